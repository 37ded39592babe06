"""Each case of `cases/` in a sandbox of each target, or of some those in SUBSETS: `harness.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import case_files
import harness

from runner import Runner

CASES = case_files.cases()
SUBSETS = {
    # What has no second lock there: files, rights, sockets, processes, limits, and what is told.
    "process": (
        "p001_links_out", "p003_hard_links", "p005_the_root_stays", "p009_proc_of_others",
        "p016_devices", "p020_no_privileges", "p023_collected", "p028_sockets_of_the_host",
        "p029_deep_tree", "p030_no_way_out", "p061_many_processes", "p063_daemons",
        "p065_other_memory", "p066_signals", "p075_terminal", "p081_limits_raised",
        "p084_process_settings", "p087_memory", "p089_full_disk", "p090_names",
        "p094_processor_time", "p101_environment", "p102_descriptors", "p103_facts_of_the_host",
    ),
    # Where the workspace is another: links in it, what is planted and left there, its size.
    "copy": (
        "p001_links_out", "p003_hard_links", "p021_planted", "p022_swapped", "p023_collected",
        "p025_paths_without_end", "p028_sockets_of_the_host", "p029_deep_tree", "p089_full_disk",
        "p090_names",
    ),
    "bind": (
        "p001_links_out", "p003_hard_links", "p005_the_root_stays", "p016_devices",
        "p020_no_privileges", "p021_planted", "p022_swapped", "p023_collected",
        "p028_sockets_of_the_host", "p029_deep_tree", "p079_loader",
    ),
}  # fmt: skip
"""Of targets that differ from `native` in a part: what tries that part. `scripts/attacks` runs all
cases against every target."""


def _parameters() -> list[object]:
    marks = {"docker": [pytest.mark.docker, pytest.mark.xdist_group("docker")]}
    return [
        pytest.param(
            target, case, id=f"{target.name}-{case.name}", marks=marks.get(target.backend, ())
        )
        for target in harness.TARGETS
        for case in CASES
        if case.name in SUBSETS.get(target.name, [case.name])
    ]


def test_what_subsets_name_is_there() -> None:
    assert set(SUBSETS) < {target.name for target in harness.TARGETS}
    assert {name for names in SUBSETS.values() for name in names} <= {case.name for case in CASES}


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory):
    made: dict[str, Runner] = {}

    def runner(backend: str) -> Runner:
        if backend not in made:
            home = tmp_path_factory.mktemp("state") / "home"
            made[backend] = Runner(home=home, backend=backend)
        return made[backend]

    yield runner
    for one in made.values():
        failure = one.store.verify().failure
        one.close()
        assert failure is None


@pytest.mark.parametrize(("target", "case"), _parameters())
def test_case(target: harness.Target, case: case_files.Case, runners, tmp_path: Path) -> None:
    why = harness.missing(target.name) or case.not_run(target.name)
    if why is not None:
        pytest.skip(why)
    found = harness.run_case(case, target, runners(target.backend), tmp_path)
    wrong = {column: cell for column, cell in found.items() if cell.startswith("NO")}
    assert not wrong
