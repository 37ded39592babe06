"""The loop guard holds: through runs, over processes, and when a supervisor dies."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from runner import Runner
from runner.errors import RecordError, RequestError, StateError
from runner.intake import build_request
from runner.model.outcome import Termination

SECRET = "hunter2-of-the-guard"


def profile(folder: Path, stated: str = "refused: 3, failing: 3, pause: 30m") -> str:
    path = folder / "guarded.yaml"
    path.write_text(f"extends: agent\nloop_guard: {{ {stated} }}\n")
    return str(path)


def events(runner: Runner, kind: str) -> list[dict]:
    return [json.loads(e.body)["data"] for e in runner.store.events() if e.kind == kind]


def rule(outcome) -> str | None:
    return outcome.decision.rules[0].id if outcome.decision.rules else None


def test_what_is_refused_again_and_again_has_to_pause(runner, work, tmp_path):
    chosen = profile(tmp_path)

    def ask(text: str = f"sudo cat {SECRET}", **who: str):
        return runner.run(shell=text, cwd=work, profile=chosen, **who)

    assert [rule(ask(agent="a")) for _ in range(3)] == ["privileges"] * 3
    held = ask(f"sudo   cat\n{SECRET}", agent="a")
    assert (held.termination, held.status, rule(held)) == (Termination.DENIED, 126, "loop-guard")
    assert "refused 3 times in a row" in held.decision.reason
    assert "not tried again before 20" in held.decision.reason
    assert rule(ask(agent="child", parent="a")) == "loop-guard"
    assert rule(ask(agent="b")) == "privileges"
    assert rule(ask("sudo cat other", agent="a")) == "privileges"
    assert runner.run(["true"], cwd=work, profile=chosen, agent="a").ok
    (paused,) = events(runner, "guard.paused")
    (row,) = runner.guards.paused()
    assert paused == {
        "command": row.id,
        "trigger": "refused",
        "count": 3,
        "pauses": 1,
        "layer": "profile:guarded",
        "until": paused["until"],
    }
    assert (row.whose, row.uid) == ("a", os.getuid())
    assert len(events(runner, "run.decided")) == len(events(runner, "run.ended")) == 8
    with closing(sqlite3.connect(runner.store.home / "runner.db")) as db:
        assert SECRET not in str(db.execute("SELECT * FROM loops").fetchall())


def test_what_fails_the_same_way_has_to_pause_and_a_success_ends_it(runner, work, tmp_path):
    chosen = profile(tmp_path)
    flag = work / "flag"

    def ask(text: str = "cat flag"):
        return runner.run(shell=text, cwd=work, profile=chosen)

    assert [ask().exit_code for _ in range(2)] == [1, 1]
    flag.write_text("there")
    assert ask().ok
    flag.unlink()
    assert [ask().exit_code for _ in range(3)] == [1, 1, 1]
    assert rule(ask()) == "loop-guard"
    assert "failed the same way 3 times" in ask().decision.reason
    assert [p["trigger"] for p in events(runner, "guard.paused")] == ["failing"]
    # Other output each time is another failure.
    assert [ask("date +%N; false").exit_code for _ in range(5)] == [1] * 5


def test_a_decision_that_is_asked_for_counts_and_is_told(runner, work, tmp_path):
    request = build_request(argv=["sudo", "ls"], cwd=work, profile=profile(tmp_path))
    found = [runner.check(request).rules[0].id for _ in range(4)]
    assert found == [*["privileges"] * 3, "loop-guard"]
    _, facts = runner.held_against(request)
    assert facts.paused is not None
    assert facts.paused.count == 3
    assert not runner.plan(request).decision.permits
    assert len(events(runner, "guard.paused")) == 1


def test_after_a_pause_it_is_tried_once_and_the_next_is_longer(runner, work, tmp_path):
    chosen = profile(tmp_path, "refused: 2, pause: 200ms, within: 1h")
    lengths: list[float] = []
    while len(lengths) < 3:
        runner.run(["sudo", "ls"], cwd=work, profile=chosen)
        for row in runner.guards.all():
            if row.looped.pauses > len(lengths):
                lengths.append(row.looped.until_s - row.looped.began_s)
        time.sleep(0.05)
    assert [round(each, 3) for each in lengths] == [0.2, 0.4, 0.8]


def test_a_reset_lets_it_be_tried_again_and_is_recorded(runner, work, tmp_path):
    chosen = profile(tmp_path, "failing: 2, pause: 1h")
    for _ in range(2):
        runner.run(["false"], cwd=work, profile=chosen)
    assert runner.run(["false"], cwd=work, profile=chosen).termination is Termination.DENIED
    (row,) = runner.guards.paused()
    for command, reason in ((row.id, " "), ("short", "x"), ("0" * 32, "x")):
        with pytest.raises(RequestError):
            runner.guards.reset(command, reason)
    assert runner.guards.reset(row.id[:12], "mended") == [row.id]
    assert events(runner, "guard.reset") == [
        {"commands": {"count": 1, "first": [row.id]}, "reason": "mended"}
    ]
    assert runner.guards.reset(None, "nothing there") == []
    assert runner.run(["false"], cwd=work, profile=chosen).exit_code == 1


def test_it_holds_over_restarts_and_costs_nothing_where_none_is_stated(native, work, tmp_path):
    chosen, home = profile(tmp_path, "failing: 2, pause: 1h"), tmp_path / "home"
    for _ in range(2):
        with Runner(home=home) as runner:
            assert runner.run(["false"], cwd=work, profile=chosen).exit_code == 1
    with Runner(home=home) as runner:
        assert rule(runner.run(["false"], cwd=work, profile=chosen)) == "loop-guard"
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("UPDATE loops SET times = '[NaN]'")
    with Runner(home=home) as runner, pytest.raises((RecordError, StateError), match="damaged"):
        runner.run(["false"], cwd=work, profile=chosen)
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("DROP TABLE loops")  # who looks at it fails
    with Runner(home=home) as runner:
        assert runner.run(["false"], cwd=work, profile="agent").exit_code == 1
        assert runner.run(["sudo", "ls"], cwd=work).termination is Termination.DENIED
        with pytest.raises((RecordError, StateError)):
            runner.run(["false"], cwd=work, profile=chosen)


CROWD = """
import sys
from runner import Runner
with Runner(home=sys.argv[3]) as runner:
    for _ in range(10):
        outcome = runner.run(["sudo", "ls"], cwd=sys.argv[1], profile=sys.argv[2], agent="a")
        print(outcome.decision.rules[0].id)
"""


def test_of_many_processes_each_sees_what_the_others_were_refused(native, work, tmp_path):
    chosen, home = profile(tmp_path, "refused: 7, pause: 1h"), tmp_path / "home"
    words = [sys.executable, "-c", CROWD, str(work), chosen, str(home)]
    crowds = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = Counter(" ".join(each.communicate(timeout=300)[0] for each in crowds).split())
    assert said == {"privileges": 7, "loop-guard": 23}
    with Runner(home=home) as runner:
        assert [p["count"] for p in events(runner, "guard.paused")] == [7]


STUCK = """
import sys
from runner import Runner
with Runner(home=sys.argv[3]) as runner:
    runner.run(["sh", "-c", "echo on; test -e stop || sleep 600; exit 1"], cwd=sys.argv[1],
               profile=sys.argv[2], stdout=open(sys.argv[4], "wb", 0))
"""


def test_a_run_whose_supervisor_was_killed_counts_as_nothing(native, work, tmp_path):
    chosen, home = profile(tmp_path, "failing: 2, pause: 1h"), tmp_path / "home"
    output = tmp_path / "output"
    program = ["sh", "-c", "echo on; test -e stop || sleep 600; exit 1"]

    def fail(runner: Runner):
        (work / "stop").touch()
        return runner.run(program, cwd=work, profile=chosen)

    with Runner(home=home) as runner:
        assert fail(runner).exit_code == 1
    (work / "stop").unlink()
    output.touch()
    stuck = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(work), chosen, str(home), str(output)]
    )
    try:
        deadline_s = time.monotonic() + 120
        while not output.stat().st_size and time.monotonic() < deadline_s:
            time.sleep(0.05)
    finally:
        os.kill(stuck.pid, signal.SIGKILL)
        stuck.wait(timeout=60)
    with Runner(home=home) as runner:
        assert len(runner.recovered) == 1
        assert [row.looped.count for row in runner.guards.all()] == [1]
        assert fail(runner).exit_code == 1
        assert rule(fail(runner)) == "loop-guard"
