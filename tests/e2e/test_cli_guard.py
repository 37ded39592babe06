"""`runner guard`, and what the other commands say of a pause."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing


def guarded(workspace, monkeypatch) -> None:
    """A layer above all profiles: who runs chooses none of it."""
    layers = workspace.parent / "policy.d"
    layers.mkdir()
    (layers / "loops.yaml").write_text("loop_guard: { refused: 2, failing: 2, pause: 1h }\n")
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(layers))


def test_a_pause_is_told_and_ended_by_hand(run_cli, workspace, monkeypatch, native):
    guarded(workspace, monkeypatch)
    assert run_cli("guard", "show").stdout == "no command has to pause\n"
    assert run_cli("guard", "show", "--all").stdout == "no command is counted\n"
    result = workspace.parent / "result.json"
    for _ in range(2):
        assert run_cli("run", "--agent", "a", "-c", "sudo ls").returncode == 126
    # Another profile does not take the layer away, nor does a limit or a variable.
    denied = run_cli(
        *("run", "--agent", "a", "--result", str(result), "--env", "A=1", "-c", "sudo  ls")
    )
    assert denied.returncode == 126
    assert "refused 2 times in a row" in denied.stderr
    outcome = json.loads(result.read_text())
    assert outcome["termination"] == "denied"
    assert outcome["decision"]["rules"][0]["id"] == "loop-guard"
    assert outcome["decision"]["rules"][0]["layer"].endswith("loops.yaml")
    told = run_cli("explain", "--agent", "a", "-c", "sudo ls")
    assert told.returncode == 126
    assert "refused 2 times in a row" in " ".join(told.stdout.split())
    assert run_cli("check", "--agent", "a", "-c", "sudo ls").returncode == 126
    assert "refused 2 times" not in run_cli("explain", "--agent", "b", "-c", "sudo ls").stdout

    (row,) = json.loads(run_cli("guard", "show", "--json").stdout)
    assert (row["whose"], row["trigger"], row["count"], row["pauses"]) == ("a", "refused", 2, 1)
    story = run_cli("audit", "show", outcome["run_id"])
    assert "loop-guard" in story.stdout
    found = run_cli("audit", "search", "--kind", "guard.paused")
    assert "refused 2 times: until 20" in found.stdout
    shown = run_cli("guard", "show").stdout.splitlines()
    assert shown[1].startswith(f"{row['command'][:12]} a ")

    for words in (["--reason", "x"], [row["command"]], [row["command"], "--all", "--reason", "x"]):
        wrong = run_cli("guard", "reset", *words)
        assert wrong.returncode == 2
        assert wrong.stderr.startswith("runner: error: ")
    reset = run_cli("guard", "reset", row["command"][:8], "--reason", "looked at it")
    assert reset.stdout == f"begun anew: {row['command']}\n"
    assert "1 commands: looked at it" in run_cli("audit", "show", "--last", "1").stdout
    again = run_cli("run", "--agent", "a", "-c", "sudo ls")
    assert "rule 'privileges'" in again.stderr
    assert run_cli("audit", "verify").returncode == 0


def test_a_repair_begins_anew(run_cli, workspace, runner_home, monkeypatch, native):
    guarded(workspace, monkeypatch)
    for expected in (1, 1, 126):
        assert run_cli("run", "--", "false").returncode == expected
    with closing(sqlite3.connect(runner_home / "runner.db")) as db, db:
        db.execute("DELETE FROM tree")
    assert run_cli("audit", "repair").returncode == 0
    assert run_cli("guard", "show", "--all").stdout == "no command is counted\n"
    assert run_cli("run", "--", "false").returncode == 1


def test_a_program_that_is_waited_for_is_let_be(run_cli, workspace, monkeypatch, native):
    """The twin: what says something else each time, or comes to another end, never pauses."""
    guarded(workspace, monkeypatch)
    for _ in range(4):
        assert run_cli("run", "-c", "date +%N; exit 1").returncode == 1
        assert run_cli("run", "--", "true").returncode == 0
    assert run_cli("guard", "show").stdout == "no command has to pause\n"
