"""Bad input: one clear sentence, the right exit code, and a log that is whole afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import RUNNER_COMMAND

from runner.stores.reader import open_log


def one_sentence(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("runner: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


BAD = {
    "unknown key in a profile": (["--profile", "bad.yaml"], "bad.yaml:3:1: netwrok: unknown key"),
    "profile that is not there": (["--profile", "./no.yaml"], "no.yaml"),
    "profile by a wrong name": (["--profile", "agnet"], "did you mean 'agent'?"),
    "missing script": (["missing.py"], "missing.py"),
    "folder as script": (["."], "is not a file"),
    "script in no known language": (["plain"], "--language"),
    "limit that is no number": (["--limit", "wall=soon"], "'soon' is no duration"),
    "limit of nothing": (["--limit", "wall=0"], "not above zero"),
    "looser limit": (["--limit", "wall=10h"], "grants 120s"),
    "unknown limit": (["--limit", "speed=1"], "unknown limit 'speed'"),
    "limit without value": (["--limit", "wall"], "wall=5s"),
    "label without value": (["--label", "x"], "--label 'x'"),
    "variable twice": (["--env", "A=1", "--env", "A=2"], "twice"),
    "folder that is not there": (["-C", "/no/such/folder"], "/no/such/folder"),
    "file as folder": (["-C", "plain"], "plain"),
    "the whole machine": (["-C", "/"], "whole machine"),
    "a home": (["-C", "HOME"], "home folder"),
    "runner's state": (["-C", ".."], "state"),
    "unknown backend": (["--backend", "cloud"], "docker, native"),
    "text and script": (["-c", "true", "x.py"], "not both"),
    "nothing to run": ([], "nothing to run"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(run_cli, runner_home, workspace, tmp_path, case):
    (workspace / "bad.yaml").write_text("name: bad\nextends: agent\nnetwrok: none\n")
    (workspace / "plain").write_text("no interpreter\n")
    home = tmp_path / "person"
    home.mkdir()
    words, says = BAD[case]
    words = [str(home) if word == "HOME" else word for word in words]
    whole = {"missing script", "folder as script", "script in no known language",
             "text and script", "nothing to run"}  # fmt: skip
    program = [] if case in whole else ["--", "true"]
    env = {**os.environ, "HOME": str(home)}
    assert says in one_sentence(run_cli("run", *words, *program, env=env), 2)
    log = open_log(runner_home)
    assert [event.kind for event in log.events()] == ["log.created", "request.refused"]
    assert log.verify().failure is None


def test_every_problem_of_a_profile_has_its_line(run_cli, workspace):
    (workspace / "bad.yaml").write_text(
        "name: bad\nextends: agent\nlimits:\n  wall: soon\n  speed: 3\nnetwrok: none\n"
    )
    done = run_cli("run", "--profile", "bad.yaml", "--", "true")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith("runner: error: ") for line in lines)
    for number in (4, 5, 6):
        assert any(f"bad.yaml:{number}" in line for line in lines), (number, lines)
    assert run_cli("profile", "validate", "bad.yaml", "agent").returncode == 2


def test_other_commands_say_it_as_plainly(run_cli, workspace):
    one_sentence(run_cli("check", "--profile", "nope", "--", "true"), 2)
    one_sentence(run_cli("logs", "run-of-nobody"), 2)
    one_sentence(run_cli("logs", os.fsdecode(b"run\xff")), 2)
    one_sentence(run_cli("audit", "show", "--run", "run-of-nobody"), 2)
    one_sentence(run_cli("audit", "verify", "missing.jsonl"), 2)
    one_sentence(run_cli("audit", "export", "--format", "xml"), 2)
    one_sentence(run_cli("profile", "show", "nope"), 2)


def test_a_script_without_end_is_refused(runner_home, workspace):
    done = subprocess.run(
        ["bash", "-c", 'yes | "$@"', "bash", *RUNNER_COMMAND, "run", "-"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "larger than 16 MiB" in one_sentence(done, 2)


def test_a_result_that_cant_be_written_is_found_out_before(run_cli, workspace, tmp_path):
    one_sentence(run_cli("run", "--result", "/no/such/folder/r.json", "--", "true"), 2)
    one_sentence(run_cli("run", "--result", str(tmp_path), "--", "true"), 2)
    assert "no log" in run_cli("audit", "show").stderr  # nothing was begun


def refused_home(run_cli, home: Path | str, says: str) -> None:
    env = {**os.environ, "RUNNER_HOME": str(home)}
    for words in (["run", "--", "true"], ["check", "--", "true"], ["clean"]):
        said = one_sentence(run_cli(*words, env=env), 125)
        assert says in said
        assert "RUNNER_HOME" in said or "chmod" in said


def test_a_state_folder_that_is_a_file(run_cli, workspace):
    (workspace / "file").write_text("mine")
    refused_home(run_cli, workspace / "file", "is not a folder")
    refused_home(run_cli, workspace / "file" / "under", "can't be made")
    assert (workspace / "file").read_text() == "mine"


def test_a_state_folder_that_others_may_use(run_cli, workspace):
    for mode in (0o770, 0o707):
        home = workspace / f"open-{mode:o}"
        home.mkdir()
        home.chmod(mode)
        refused_home(run_cli, home, "open to others")
        assert list(home.iterdir()) == []


def test_a_state_folder_that_cant_be_made(run_cli, workspace):
    refused_home(run_cli, "/proc/runner", "can't be made")


@pytest.mark.unprivileged
def test_a_state_folder_that_cant_be_written(run_cli, workspace):
    locked = workspace / "locked"
    locked.mkdir(mode=0o500)
    refused_home(run_cli, locked, "can't be written")
    refused_home(run_cli, locked / "under", "Permission denied")


@pytest.mark.unprivileged
def test_a_state_folder_of_somebody_else(run_cli, workspace):
    refused_home(run_cli, "/usr", "belongs to uid 0")


@pytest.mark.root
def test_a_state_folder_that_root_was_given(run_cli, workspace):
    home = workspace / "anothers"
    home.mkdir(mode=0o700)
    os.chown(home, 54321, 54321)
    refused_home(run_cli, home, "belongs to uid 54321")


def test_a_log_that_is_none(run_cli, runner_home, workspace):
    assert run_cli("check", "--", "true").returncode == 0
    database = next(runner_home.glob("*.db"))
    for left in runner_home.glob("*.db-*"):
        left.unlink()
    database.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    one_sentence(run_cli("run", "--", "true"), 125)
    assert run_cli("audit", "verify").returncode in (1, 125)


# Full: the log can't even be opened. Then with room for SQLite's shared memory and no more: the
# log can be opened, and an intent can't be written.
FULL = """
set -eu
mount -t tmpfs -o size=1m,mode=0700 none "$RUNNER_HOME"
"$@" check -- true >/dev/null
head -c 44K /dev/zero > "$RUNNER_HOME/spare"
cat /dev/zero > "$RUNNER_HOME/filler" 2>/dev/null || true
try() { code=0; "$@" || code=$?; echo "$code"; }
try "$@" run -- true
rm "$RUNNER_HOME/spare"
try "$@" run -- true
try "$@" run missing.py
"$@" audit verify | head -1
rm "$RUNNER_HOME/filler"
"$@" check -- true >/dev/null
"$@" audit verify | head -1
"""


def test_a_full_disk(runner_home, workspace):
    """A small file system of its own on RUNNER_HOME: full, and then not any more."""
    apart = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    probe = [*apart, "mount", "-t", "tmpfs", "none", str(workspace)]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    runner_home.mkdir(mode=0o700)
    done = subprocess.run(
        [*apart, "bash", "-c", FULL, "bash", *RUNNER_COMMAND],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes, verified = done.stdout.splitlines()[:3], done.stdout.splitlines()[3:]
    assert codes == ["125", "125", "2"], done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 3
    assert all(line.startswith("runner: error: ") for line in said)
    assert all("full" in line for line in said[:2])
    assert "missing.py" in said[2]  # refused all the same, written down or not
    full, freed = (int(line.split()[0]) for line in verified)
    assert freed == full + 1


@pytest.mark.root
@pytest.mark.usefixtures("native")
def test_a_disk_that_fills_up_while_a_program_runs(runner_home, workspace):
    """The run is stopped: what can't be recorded may not go on. Recovery closes the record."""
    runner_home.mkdir(mode=0o700)
    text = """
set -eu
mount -t tmpfs -o size=1m,mode=0700 none "$RUNNER_HOME"
code=0; "$@" run -- head -c 8M /dev/zero >/dev/null || code=$?; echo "$code"
rm -r "$RUNNER_HOME"/runs/*
"$@" clean >/dev/null
"$@" audit verify >/dev/null
"$@" audit show | tail -1
"""
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", text, "bash", *RUNNER_COMMAND],
        env={**os.environ, "RUNNER_KEEP_OUTPUT_BYTES": "8MiB"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, last = done.stdout.splitlines()
    assert code == "125"
    assert done.stderr.startswith("runner: error: ")
    assert done.stderr.count("\n") == 1
    assert "run.recovered" in last or "runner_failed" in last


def test_a_defect_is_told_in_a_sentence(runner_home, workspace):
    """Whatever goes wrong in runner itself: no traceback, and 125."""
    text = (
        "import runner.app; runner.app.build_request = None; import runner.intake;"
        "runner.intake.build_request = lambda **_: 1 / 0;"
        "from runner.surfaces.cli.main import main; main()"
    )
    done = subprocess.run(
        [RUNNER_COMMAND[0], "-c", text, "run", "--", "true"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "ZeroDivisionError" in one_sentence(done, 125)
