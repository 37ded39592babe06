"""The list of attacks, the cases that try them and the page that speaks of them say the same."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))
import case_files
import harness

ROOT = Path(__file__).resolve().parents[2]
PROBES = yaml.safe_load((ROOT / "tests" / "data" / "probes.yaml").read_text())
PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def headed(path: Path) -> set[int]:
    """The numbers that a case's first line names: `1, 2, 8 to 11: …`."""
    first = path.read_text().lstrip('"#/* ').partition(":")[0]
    return numbers(first)


def numbers(text: str) -> set[int]:
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_every_attack_is_tried_or_says_why_not():
    assert [probe["number"] for probe in PROBES] == list(range(1, 118))
    assert len({probe["title"] for probe in PROBES}) == len(PROBES)
    for probe in PROBES:
        assert set(probe) == {"number", "title"} | ({"tried_by", "reason"} & set(probe)), probe
        assert bool(probe.get("tried_by")) != bool(probe.get("reason")), probe


def test_of_files_processes_resources_and_leaks_every_attack_is_tried():
    untried = {probe["number"] for probe in PROBES if "reason" in probe}
    assert not untried & (set(range(1, 30)) | set(range(61, 106)))


def test_what_tries_an_attack_is_there_and_says_so():
    for probe in PROBES:
        for name in probe.get("tried_by", ()):
            path = ROOT / "tests" / "security" / name
            assert path.is_file(), probe
            if path.parent == case_files.FOLDER:
                assert probe["number"] in headed(path), (probe, path.name)


def test_every_case_tries_what_its_first_line_says():
    named = {name for probe in PROBES for name in probe.get("tried_by", ())}
    for case in case_files.cases():
        name = f"cases/{case.path.name}"
        assert name in named
        tried = {probe["number"] for probe in PROBES if name in probe.get("tried_by", ())}
        assert headed(case.path) == tried, name


def test_the_page_speaks_of_every_attack_that_is_tried():
    rows = re.findall(r"^\| ([\d, to]+) \|", PAGE, re.MULTILINE)
    spoken = [number for row in rows for number in sorted(numbers(row))]
    tried = [probe["number"] for probe in PROBES if "tried_by" in probe]
    assert sorted(spoken) == tried


def test_the_page_names_every_gap_with_its_case():
    _, *parts = re.split(
        r"^#### `(\w+)`.*$", PAGE.partition("\n## A folder")[0], flags=re.MULTILINE
    )
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    for case in case_files.cases():
        if any("gap" in part for part in case.stated.get("WITHOUT", {}).values()):
            assert f"`{case.name}`" in PAGE
        for target in {*case.stated.get("NOT_ON", {}), *case.stated.get("GAPS", {})}:
            assert f"`{case.name}`" in sections[target], (case.name, target)


def test_the_pages_table_has_every_case_and_no_cell_that_is_empty_or_wrong():
    (table,) = re.findall(r"^```text\n( +\| native, root .*?)```$", PAGE, re.MULTILINE | re.DOTALL)
    halves, columns, *rows = (
        [part.split() for part in line.split("|")] for line in table.splitlines()
    )
    assert [" ".join(half) for half in halves[1:]] == ["native, root", "native, rootless"]
    assert [" ".join(column) for column in columns[1:]] == [", ".join(harness.COLUMNS)] * 2
    assert [name for (name,), *_ in rows] == [case.name for case in case_files.cases()]
    for _, *cells in rows:
        assert [len(cell) for cell in cells] == [len(harness.COLUMNS)] * 2
        assert {word for cell in cells for word in cell} <= {"yes", "gap"}


def test_what_a_case_states_is_known():
    known = {"LIMITS", "EXPECTED", "WITHOUT", "NOT_ON", "GAPS", "TERMINAL", "ORDER"}
    targets = {target.name for target in harness.TARGETS}
    for case in case_files.cases():
        if case.path.suffix != ".py":
            assert set(case.stated) <= known, case.name
        assert {*case.stated.get("NOT_ON", {}), *case.stated.get("GAPS", {})} <= targets
        for mode in (*case.stated.get("EXPECTED", {}), *case.stated.get("ORDER", ())):
            assert mode in ("attack", "twin"), case.name
