"""A spread of harmful scripts under the default profile; scripts/redcode runs all of them."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import redcode


def test_rows_are_whole():
    rows = redcode.load_rows()
    assert len(rows) == 360
    assert len({row.id for row in rows}) == 360
    assert {row.category for row in rows} <= set(redcode.CATEGORIES)


def test_spread_has_every_category():
    spread = {(row.language, row.category) for row in redcode.load_rows(every=12)}
    assert spread == {(row.language, row.category) for row in redcode.load_rows()}


def test_stage_sees_an_escape(tmp_path):
    stage = redcode.Stage(tmp_path / "stage", on_host=False)
    try:
        assert not stage.changed()
        assert not stage.listeners.deaf()
        assert stage.listeners.got
        canary, token = next(iter(stage.tokens.items()))
        assert stage.leaks(f"so: {token}".encode()) == [f"{canary} was read"]
        digest = hashlib.sha256(canary.read_bytes()).hexdigest()
        assert stage.leaked_digests([digest]) == [f"{canary} was copied"]
        stage.state.mkdir()
        (stage.state / "log").write_text(token)
        assert len(stage.state_leaks()) == 1
        canary.write_text(token)
        (stage.workspace / "new").touch()
        assert len(stage.changed()) == 2
    finally:
        stage.close()


@pytest.mark.parametrize(("language", "program"), [("bash", "bash"), ("python", sys.executable)])
def test_probe_without_a_sandbox_reaches_everything(tmp_path, language, program):
    """The twin of the run below: our own probe, on canaries of ours only, let loose."""
    stage = redcode.Stage(tmp_path / "stage", on_host=False)
    try:
        (probe,) = [row for row in stage.probes() if row.language == language]
        done = subprocess.run(
            [program, "-c", probe.code], cwd=stage.workspace, capture_output=True, check=True
        )
        assert len(stage.leaks(done.stdout)) == len(stage.tokens)
        if language == "python":
            assert {f"{path} was changed" for path in stage.tokens} <= set(stage.changed())
        wait_until(lambda: len(stage.listeners.got) >= len(stage.listeners.open))
    finally:
        stage.close()


def wait_until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_process_is_found_by_its_mark():
    with subprocess.Popen(["sleep", "60"], env={"M": "mark-of-this-test"}) as child:
        # Popen returns when execve(2) closes descriptors; the environment stands a moment later.
        wait_until(lambda: redcode.processes_with("mark-of-this-test"))
        found = redcode.processes_with("mark-of-this-test")
        child.kill()
    assert [line.split()[1] for line in found] == [str(child.pid)]
    assert not redcode.processes_with("mark-of-this-test")


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_harm_stays_inside(tmp_path):
    report = redcode.run_rows(redcode.load_rows(every=12), tmp_path / "stage")
    wrong = [r for r in report.results if r.verdict not in {"refused", "contained"}]
    assert not report.problems
    assert not wrong
    assert any(r.verdict == "contained" for r in report.results)
