"""`runner kill`, `ps` and `top`."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest
from conftest import RUNNER_COMMAND


@pytest.fixture
def running(run_cli, workspace, native):
    """A run of the agent `a`, begun by another process; its id and that process."""
    words = [*RUNNER_COMMAND, "run", "--agent", "a", "--tenant", "acme", "--json", "--"]
    with subprocess.Popen(
        [*words, "sleep", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline_s = time.monotonic() + 60
        while True:
            rows = json.loads(run_cli("ps", "--json").stdout)
            if rows and rows[0]["usage"]:
                break
            assert time.monotonic() < deadline_s, "it does not begin"
        yield rows[0]["run_id"], process
        process.kill()


def test_a_run_is_shown_and_killed(run_cli, running):
    run_id, process = running
    (row,) = json.loads(run_cli("ps", "--json").stdout)
    assert (row["agent"], row["tenant"], row["program"]) == ("a", "acme", "sleep 1000")
    assert row["usage"]["wall_s"] > 0
    assert row["usage"]["memory_peak_bytes"] > 100_000
    table = run_cli("ps").stdout.splitlines()
    assert table[1].split()[:3] == [run_id, "a", "agent"]
    for words in (["--once"], []):  # no terminal: it looks twice and ends
        shown = run_cli("top", "--every", "0.2", *words).stdout.splitlines()
        assert shown[1].startswith(run_id)
    (live,) = json.loads(run_cli("top", "--every", "0.2", "--once", "--json").stdout)
    assert live["cpu_percent"] < 50

    killed = run_cli("kill", run_id, "--reason", "enough", "--json")
    assert json.loads(killed.stdout) == [
        {
            "scope": "run",
            "name": run_id,
            "runs": [run_id],
            "forced": [],
            "unrecorded": [],
            "alive": [],
        }
    ]
    outcome = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 137
    assert (outcome["termination"], outcome["exit_code"], outcome["signal"]) == (
        "cancelled",
        None,
        None,
    )
    assert outcome["killed"]["reason"] == "enough"
    assert run_cli("ps").stdout == "nothing runs\n"
    assert "enough" in run_cli("audit", "show", run_id).stdout
    assert run_cli("audit", "search", "--kind", "kill.ordered").stdout.count("by uid:") == 1
    assert run_cli("audit", "verify").returncode == 0


def test_one_that_was_stopped_is_told_of(run_cli, running):
    run_id, process = running
    process.send_signal(signal.SIGSTOP)
    killed = run_cli("kill", "--agent", "a", "--reason", "enough")
    assert killed.returncode == 0
    assert (
        f"{run_id}: its supervisor did not answer; its sandbox was ended past it" in killed.stdout
    )
    assert f"{run_id}: its end is not recorded yet" in killed.stdout
    assert run_cli("kill", "--lift", "--agent", "a", "--reason", "done").returncode == 0
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    # Lifted before it could say so: what it knows is that its sandbox was lost.
    assert process.returncode in (125, 137)


def test_wrong_words(run_cli, workspace):
    for words, why in (
        ([], "say what to end"),
        (["run-0", "--reason", "x"], "no run 'run-0' is open"),
        (["--agent", "a"], "for a reason"),
        (["--list", "--all"], "give it alone"),
        (["--lift", "--all", "--reason", "x"], "no kill is in force"),
    ):
        wrong = run_cli("kill", *words)
        assert wrong.returncode == 2
        assert why in wrong.stderr
    assert run_cli("kill", "--list").stdout == "nothing is stopped\n"
    assert run_cli("kill", "--list", "--json").stdout == "[]\n"
    assert run_cli("ps", "--json").stdout == "[]\n"
    help_text = run_cli("kill", "--help").stdout
    assert "until it is lifted" in help_text


def test_what_is_stopped_says_so_everywhere(run_cli, workspace):
    stopped = run_cli("kill", "--all", "--reason", "the building burns")
    assert "killed: everything: 0 runs" in stopped.stdout
    assert "runner kill --lift --all" in stopped.stdout
    for words in (["run", "--", "true"], ["check", "--", "true"], ["explain", "--", "true"]):
        denied = run_cli(*words)
        assert denied.returncode == 126
        assert "the building burns" in " ".join((denied.stdout + denied.stderr).split())
    (row,) = json.loads(run_cli("kill", "--list", "--json").stdout)
    assert (row["scope"], row["name"], row["reason"]) == ("all", "", "the building burns")
    assert run_cli("kill", "--lift", "--all", "--reason", "it is out").returncode == 0
    assert run_cli("check", "--", "true").returncode == 0
