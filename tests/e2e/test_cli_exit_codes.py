"""Exit codes and the outcome object, through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from conftest import RUNNER_COMMAND

from runner.schema.outcome_model import OutcomeDocument

pytestmark = pytest.mark.usefixtures("native")

FIELDS = {
    "run_id", "decision", "termination", "limit", "exit_code", "signal", "error", "usage",
    "backend", "profile", "protections", "degraded", "workspace", "audit", "left", "budget",
    "killed",
    "stdout_bytes", "stdout_truncated", "stdout_sha256",
    "stderr_bytes", "stderr_truncated", "stderr_sha256",
}  # fmt: skip
USAGE = {
    "wall_s", "cpu_user_s", "cpu_system_s", "memory_peak_bytes", "processes", "execs",
    "connections", "requests", "bytes_in", "bytes_out", "tokens", "cost_usd",
}  # fmt: skip
SHELL = ["--", "sh", "-c"]


def outcome_of(text: str) -> dict:
    """One object and nothing else, as the published schema has it."""
    document = json.loads(text)
    OutcomeDocument.model_validate_json(text)
    assert document.keys() - {"stdout", "stderr", "stdout_encoding", "stderr_encoding"} == FIELDS
    assert document["usage"].keys() == USAGE
    assert document["decision"].keys() >= {"effect", "rules", "reason"}
    assert document["workspace"].keys() == {"mode", "changes", "truncated"}
    assert document["audit"].keys() == {"first_seq", "last_seq", "head"}
    return document


CASES = {
    "success": (["--", "true"], 0, {"termination": "exited", "exit_code": 0}),
    "own code": ([*SHELL, "exit 3"], 3, {"termination": "exited", "exit_code": 3}),
    "own code that is ours too": ([*SHELL, "exit 124"], 124, {"termination": "exited"}),
    "shell text": (["-c", "exit 4"], 4, {"termination": "exited", "exit_code": 4}),
    "killed": ([*SHELL, "kill -9 $$"], 137, {"termination": "signaled", "signal": 9}),
    "wall": (
        ["--limit", "wall=300ms", "--", "sleep", "60"],
        124,
        {"termination": "limit", "limit": "wall", "exit_code": None},
    ),
    "output": (
        ["--limit", "output=64KiB", "--", "yes"],
        124,
        {"termination": "limit", "limit": "output"},
    ),
    "denied": (["--", "rm", "-rf", "/"], 126, {"termination": "denied", "exit_code": None}),
    "denied variable": (["--env", "LD_PRELOAD=x", "--", "true"], 126, {"termination": "denied"}),
    "no program": (["--", "no-such-program"], 127, {"termination": "exited", "exit_code": 127}),
}


@pytest.mark.parametrize("case", CASES)
def test_exit_code_and_outcome(run_cli, workspace, tmp_path, case):
    words, code, stated = CASES[case]
    result = tmp_path / "result.json"
    done = run_cli("run", "--json", "--result", str(result), *words)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    printed, written = outcome_of(done.stdout), outcome_of(result.read_text())
    for name, value in stated.items():
        assert printed[name] == value, name
    # The file is the same object without what the program said.
    said = {"stdout", "stderr", "stdout_encoding", "stderr_encoding"}
    assert said <= printed.keys()
    assert written == {name: value for name, value in printed.items() if name not in said}


def test_without_json_the_program_speaks_and_runner_adds_one_line(run_cli, workspace):
    done = run_cli("run", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
    limited = run_cli("run", "--limit", "wall=300ms", "--", "sleep", "60")
    assert (limited.returncode, limited.stdout) == (124, "")
    assert limited.stderr.startswith("runner: limit: wall ")
    assert limited.stderr.count("\n") == 1
    denied = run_cli("run", "--", "sudo", "true")
    assert denied.returncode == 126
    assert denied.stderr.startswith("runner: deny: rule 'privileges'")
    assert denied.stderr.count("\n") == 1
    missing = run_cli("run", "--", "no-such-program")
    assert (missing.returncode, missing.stderr.count("\n")) == (127, 1)
    assert "no-such-program" in missing.stderr


def test_an_outcome_says_what_was_asked_measured_and_changed(run_cli, workspace):
    (workspace / "old").write_text("1")
    (workspace / "gone").write_text("1")
    text = "echo new > fresh; echo 2 > old; rm gone; printf '\\377' >&2"
    done = run_cli("run", "--json", "-c", text)
    outcome = outcome_of(done.stdout)
    assert outcome["decision"]["effect"] == "allow"
    assert {(c["path"], c["kind"]) for c in outcome["workspace"]["changes"]} == {
        ("fresh", "created"),
        ("old", "modified"),
        ("gone", "deleted"),
    }
    assert (outcome["stderr"], outcome["stderr_encoding"]) == ("/w==", "base64")
    assert outcome["usage"]["wall_s"] > 0
    assert outcome["usage"]["tokens"] is None  # not measured is null, never 0
    assert {"seccomp", "no_capabilities", "network_namespace"} <= set(outcome["protections"])
    assert (workspace / "old").read_text() == "1"
    assert (workspace / "gone").exists()
    assert not (workspace / "fresh").exists()


def test_a_missing_protection_is_runners_failure(run_cli, workspace, tmp_path):
    """A required cgroup where none can be had; where it can, the same profile runs."""
    profile = tmp_path / "held.yaml"
    profile.write_text("name: held\nextends: agent\ndescription: d\ncgroup: required\n")
    result = tmp_path / "result.json"
    done = run_cli("run", "--profile", str(profile), "--result", str(result), "--", "true")
    document = json.loads(result.read_text())
    if done.returncode == 0:
        assert "cgroup" in document["protections"]
        return
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "'cgroup'" in done.stderr
    assert document["error"]["code"] == "protection_missing"
    assert outcome_of(result.read_text())["termination"] == "runner_failed"


@pytest.mark.parametrize(
    ("number", "send"),
    [(signal.SIGINT, os.kill), (signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)],
    ids=["interrupt", "Ctrl-C to the whole group", "terminate"],
)
def test_a_signal_cancels_the_run(run_cli, runner_home, workspace, tmp_path, number, send):
    result = tmp_path / "result.json"
    seconds = f"98{os.getpid()}.{time.monotonic_ns()}"
    script = f"trap '' INT TERM HUP; echo ready; sleep {seconds}; sleep {seconds}"
    process = subprocess.Popen(
        [*RUNNER_COMMAND, "run", "--result", str(result), "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    send(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith(b"runner: cancelled: ")
    assert said.count(b"\n") == 1
    assert outcome_of(result.read_text())["termination"] == "cancelled"
    assert not [p for p in psutil.process_iter(["cmdline"]) if seconds in (p.info["cmdline"] or [])]
    shown = run_cli("audit", "show")
    assert shown.stdout.splitlines()[-1].endswith("cancelled")
    assert run_cli("audit", "verify").returncode == 0


def test_a_signal_that_was_ignored_stays_ignored(runner_home, workspace):
    """What nohup(1) started goes on when the terminal is gone."""
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *RUNNER_COMMAND, "run", "-c",
         "echo ready; read x; echo $x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(b"still here\n", timeout=60)
    assert (process.returncode, out) == (0, b"still here\n")


def test_when_runner_fails_the_result_says_so(run_cli, workspace, tmp_path):
    result = tmp_path / "result.json"
    done = run_cli("run", "--json", "--result", str(result), "missing.py")
    assert done.returncode == 2
    assert json.loads(done.stdout) == json.loads(result.read_text())
    document = json.loads(done.stdout)
    assert document["run_id"] is None
    assert document["error"]["code"] == "bad_request"
    assert "missing.py" in document["error"]["message"]

    blocked = tmp_path / "blocked"
    blocked.write_text("")
    env = {**os.environ, "RUNNER_HOME": str(blocked)}
    done = run_cli("run", "--result", str(result), "--", "true", env=env)
    assert done.returncode == 125
    assert json.loads(result.read_text())["error"]["code"] == "state_unusable"


def test_a_result_is_never_put_in_a_devices_place(run_cli, workspace, tmp_path):
    """As root, replacing /dev/null by a file would break the machine."""
    before = os.lstat("/dev/null")
    assert run_cli("run", "--result", "/dev/null", "--", "true").returncode == 0
    assert os.lstat("/dev/null").st_ino == before.st_ino
    done = run_cli("run", "--result", "/dev/stderr", "--", "true")
    assert outcome_of(done.stderr)["termination"] == "exited"
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    assert run_cli("run", "--result", str(link), "--", "true").returncode == 0
    assert link.is_symlink()
    assert outcome_of(real.read_text())["exit_code"] == 0
    assert list(tmp_path.glob(".*")) == []


def test_help_tells_the_codes_and_a_bare_call_shows_it(run_cli):
    told = run_cli("--help").stdout
    assert all(code in told for code in ("124", "125", "126", "127", "128+n", "130"))
    assert run_cli("--version").stdout.startswith("runner ")
    assert run_cli().returncode == 2
    assert run_cli("run", "--no-such-option").returncode == 2
    assert run_cli("no-such-command").returncode == 2
