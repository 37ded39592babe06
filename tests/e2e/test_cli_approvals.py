"""`runner approvals`, and `run --ask-wait`."""

from __future__ import annotations

import json
import subprocess

import pytest
from conftest import RUNNER_COMMAND


@pytest.fixture
def asking(workspace):
    """A profile that asks about `touch`."""
    (workspace / "asks.yaml").write_text(
        "extends: agent\nrules:\n  list:\n"
        "    - {id: t, match: {command: touch}, effect: ask, message: look at it}\n"
    )
    return ("run", "--profile", "asks.yaml")


def test_a_question_is_shown_and_answered(run_cli, asking, native):
    assert run_cli("approvals", "list").stdout == "nothing waits for an answer\n"
    assert run_cli("approvals", "list", "--all", "--json").stdout == "[]\n"
    hostile = "a\x1b[2Jb"
    denied = run_cli(*asking, "--agent", "bot", "--", "touch", hostile)
    assert denied.returncode == 126
    (row,) = json.loads(run_cli("approvals", "list", "--json").stdout)
    assert (row["agent"], row["rules"], row["state"]) == ("bot", ["t"], "asked")
    assert row["id"] in denied.stderr
    for words in (["list"], ["show", row["id"][:8]]):
        shown = run_cli("approvals", *words)
        assert shown.returncode == 0
        assert row["id"] in shown.stdout
        assert "\x1b" not in shown.stdout
    wrong = run_cli("approvals", "approve", row["id"])
    assert wrong.returncode == 2
    assert "for a reason" in wrong.stderr
    done = run_cli("approvals", "approve", row["id"], "--reason", "fine", "--json")
    assert json.loads(done.stdout)["answer"]["reason"] == "fine"
    ran = run_cli(*asking, "--agent", "bot", "--json", "--", "touch", hostile)
    assert ran.returncode == 0
    outcome = json.loads(ran.stdout)
    assert outcome["decision"]["effect"] == "ask"
    assert outcome["decision"]["approved"]["id"] == row["id"]
    assert run_cli("approvals", "list").stdout == "nothing waits for an answer\n"
    assert "used" in run_cli("approvals", "show", row["id"]).stdout
    assert run_cli("audit", "search", "--kind", "approval.answered").stdout.count("fine") == 1


def test_a_run_waits_where_it_is_told_to(run_cli, asking, native):
    words = [*RUNNER_COMMAND, *asking, "--ask-wait", "5m", "--", "touch", "x"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "waiting for `runner approvals approve ask-" in said
        identity = said.rpartition(" ")[2].rstrip("`\n")
        assert run_cli("approvals", "approve", identity, "--reason", "fine").returncode == 0
        assert process.wait(60) == 0


@pytest.mark.parametrize("wrong", ["soon", "-1", "unlimited", "8d", ""])
def test_a_wait_that_is_none_is_refused(run_cli, asking, wrong):
    refused = run_cli(*asking, "--ask-wait", wrong, "--", "true")
    assert refused.returncode == 2
    assert "ask_wait" in refused.stderr
