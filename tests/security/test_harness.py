"""The harness sees what is wrong, and its table has no empty cell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import attacks
import case_files
import harness
from case_stage import SECRET, staged

SCRIPT = Path(attacks.__file__)


def outcome(said: bytes, **fields: object) -> SimpleNamespace:
    made = {
        "termination": "exited", "exit_code": 0, "limit": None, "failure": None, "degraded": (),
        "protections": (), "changes": (), "stdout": SimpleNamespace(data=said),
        "stderr": SimpleNamespace(data=b""),
    }  # fmt: skip
    return SimpleNamespace(**{**made, **fields})


def test_an_attack_that_was_tried_and_failed_is_denied():
    harness.judge(outcome(b"TRIED 3\n"), {})
    harness.judge(
        outcome(b"TRIED 1\n", termination="limit", exit_code=None, limit="memory"),
        {"termination": "limit", "limit": "memory"},
    )


@pytest.mark.parametrize(
    ("said", "fields", "why"),
    [
        (b"WRONG mount 0\nTRIED 3\n", {}, "WRONG mount"),
        (b"TRIED 0\n", {}, "nothing was tried"),
        (b"", {}, "nothing was tried"),
        (b"TRIED 3\n" + SECRET, {}, "the secret was told"),
        (b"TRIED 3\n", {"exit_code": 1}, "ended as"),
        (b"TRIED 3\n", {"termination": "signaled"}, "ended as"),
    ],
)
def test_what_is_wrong_is_seen(said, fields, why):
    with pytest.raises(AssertionError, match=why):
        harness.judge(outcome(said, **fields), {})


def test_a_gap_counts_only_without_its_protection():
    (case,) = [case for case in case_files.cases() if case.name == "p087_shared_memory"]
    assert case.gap(outcome(b"", protections=("cgroup",))) is None
    assert "gap without cgroup" in case.gap(outcome(b""))
    assert case.expected("attack", outcome(b"", protections=("cgroup",)))["limit"] == "memory"
    assert case.expected("attack", outcome(b"")) == {}


def test_a_gap_of_a_target_covers_nothing_else():
    gaps = {"terminals": "so it is"}
    assert harness.judge(outcome(b"WRONG terminals 9\nTRIED 3\n"), {}, gaps) == {"so it is"}
    assert harness.judge(outcome(b"TRIED 3\n"), {}, gaps) == set()
    with pytest.raises(AssertionError, match="WRONG mount"):
        harness.judge(outcome(b"WRONG terminals 9\nWRONG mount 0\nTRIED 3\n"), {}, gaps)


def test_a_host_that_was_changed_is_seen(tmp_path):
    case = case_files.cases()[0]
    with staged(tmp_path, case) as stage:
        stage.expect_unharmed()
        (stage.outside / "secret").write_text("changed")
        with pytest.raises(AssertionError, match="changed on the host"):
            stage.expect_unharmed()


def test_a_target_with_changes_has_a_profile_of_its_own(tmp_path):
    target = harness.Target("tmpfs", "native", changes={"network": "none"})
    text = Path(target.profile(tmp_path)).read_text()
    assert text == "name: tmpfs\nextends: agent\nnetwork: none\n"
    assert harness.Target("plain", "native").profile(tmp_path) == "agent"


def test_merged_table_has_no_empty_cell(tmp_path):
    yes = dict.fromkeys(harness.COLUMNS, "yes")
    halves = {
        "native, root": {"p001": yes, "p002": yes},
        "native, rootless": {"p001": yes | {"denied": "gap without cgroup: so it is"}},
    }
    files = []
    for name, rows in halves.items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({"cells": {name: rows}}))
    done = merge(files)
    rows = [line for line in done.stdout.splitlines() if line.startswith("p00")]
    assert [row.split(" | ")[1:] for row in rows[:2]] == [
        [f"{'yes  yes  yes  yes':<32}", f"{'gap  yes  yes  yes':<32}"],
        [f"{'yes  yes  yes  yes':<32}", f"{'not run  not run  not run  not run':<32}"],
    ]
    assert "p001, native, rootless, denied: gap without cgroup: so it is" in done.stdout
    assert "4 cells of native, rootless, not run: not asked for" in done.stdout
    assert done.returncode == 0
    files[0].write_text(json.dumps({"cells": {"native, root": {"p001": yes | {"twin": "NO: x"}}}}))
    assert merge(files).returncode == 1


def merge(files: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--merge", *files], capture_output=True, text=True, check=False
    )


def test_unknown_names_are_refused_in_a_sentence():
    for words, said in (
        (["none-is-named-so"], "no case is named like none-is-named-so"),
        (["--target", "moon"], "no target moon; there are bind, copy, docker, native, process"),
    ):
        done = subprocess.run(
            [sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert said in done.stderr
