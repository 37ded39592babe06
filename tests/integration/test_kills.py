"""The kill switch reaches every process, holds across restarts, and can't be slept through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from runner import Runner
from runner.errors import RequestError
from runner.model.kill import KillScope
from runner.model.outcome import Outcome, Termination
from runner.streams import Cancellation
from runner.testing.fakes import FakeBackend, FakeRun

SUPERVISOR = """
import json, sys
from runner import Runner
home, work, agent = sys.argv[1:]
with Runner(home=home) as runner:
    print("ready", flush=True)
    outcome = runner.run(shell="echo started; sleep 1000", cwd=work, agent=agent)
    print(json.dumps([outcome.termination, outcome.status, outcome.kill.reason]), flush=True)
"""


@contextmanager
def supervisor(home: Path, work: Path, agent: str) -> Iterator[subprocess.Popen[str]]:
    """Another process with a run that would not end, which has begun."""
    words = [sys.executable, "-c", SUPERVISOR, str(home), str(work), agent]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


@pytest.fixture
def home(runner: Runner) -> Path:
    """The state folder of `runner`."""
    return Path(runner.settings.home.value)


def until(condition, what: str):
    """What it gives, once that is true."""
    deadline_s = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within a minute: {what}"
        time.sleep(0.02)
    return found


def started(runner: Runner, count: int = 1) -> list[str]:
    """Ids of the runs whose program has started, once there are so many."""

    def look() -> list[str]:
        seen = [each.run_id for each in runner.store.events() if each.kind == "run.started"]
        return seen if len(seen) >= count else []

    return until(look, f"{count} runs have started")


def events(runner: Runner, kind: str) -> list[dict]:
    return [json.loads(e.body)["data"] for e in runner.store.events() if e.kind == kind]


def end(runner: Runner, scope: KillScope, name: str, reason: str = "it runs away", **more):
    return runner.kills.await_end(runner.kills.order(scope, name, reason), **more)


def in_a_thread(runner: Runner, outcomes: list[Outcome], **options) -> threading.Thread:
    thread = threading.Thread(target=lambda: outcomes.append(runner.run(**options)))
    thread.start()
    return thread


def test_a_kill_reaches_the_runs_of_all_processes_and_of_no_other_agent(runner, work, home, native):
    outcomes: list[Outcome] = []
    mine = in_a_thread(runner, outcomes, shell="sleep 1000", cwd=work, agent="b")
    child = in_a_thread(runner, outcomes, shell="sleep 1000", cwd=work, agent="c", parent="a")
    with supervisor(home, work, "a") as other:
        started(runner, 3)
        ended = end(runner, KillScope.AGENT, "a")
        assert len(ended.runs) == 2
        assert (ended.forced, ended.unrecorded, ended.alive) == ((), (), ())
        assert json.loads(other.stdout.read()) == ["cancelled", 137, "it runs away"]
    child.join()
    (killed,) = outcomes
    assert (killed.termination, killed.status) == (Termination.CANCELLED, 137)
    assert killed.kill is not None
    assert killed.kill.by == f"uid:{os.getuid()}"
    assert mine.is_alive()
    end(runner, KillScope.ALL, "")
    mine.join()
    assert [each.status for each in outcomes] == [137, 137]
    assert runner.kills.running() == []
    ordered, everything = events(runner, "kill.ordered")
    assert (ordered["scope"], ordered["name"]) == ("agent", "a")
    assert ordered["runs"]["count"] == 2
    assert everything["runs"]["count"] == 1
    assert {each["killed"]["scope"] for each in events(runner, "run.ended")} == {"agent", "all"}
    assert runner.store.verify().ok


def test_who_was_killed_begins_no_more_until_that_is_lifted(runner, work, home, native):
    end(runner, KillScope.AGENT, "a", "look into it")
    with Runner(home=home) as later:  # another process would see the same
        for who in ({"agent": "a"}, {"agent": "c", "parent": "a"}):
            denied = later.run(["true"], cwd=work, **who)
            assert (denied.termination, denied.status) == (Termination.DENIED, 126)
            assert denied.decision.rules[0].id == "kill-switch"
            assert "look into it" in denied.decision.reason
        assert not later.check(_request(later, work, "a")).permits
        assert later.run(["true"], cwd=work, agent="b").ok
        later.kills.lift(KillScope.AGENT, "a", "it was a bug")
    assert runner.run(["true"], cwd=work, agent="a").ok
    (lifted,) = events(runner, "kill.lifted")
    assert lifted == {
        "scope": "agent",
        "name": "a",
        "by": f"uid:{os.getuid()}",
        "reason": "it was a bug",
    }


def _request(runner: Runner, work: Path, agent: str):
    from runner.intake import build_request

    return build_request(argv=["true"], cwd=work, agent=agent, profile="agent")


def test_a_profile_that_only_observes_does_not_keep_a_kill_from_holding(
    runner, work, tmp_path, native
):
    profile = tmp_path / "watched.yaml"
    profile.write_text("extends: agent\nrules:\n  mode: observe\n")
    assert runner.run(["true"], cwd=work, profile=str(profile), agent="a").ok
    end(runner, KillScope.TENANT, "acme")
    outcome = runner.run(["true"], cwd=work, profile=str(profile), agent="a", tenant="acme")
    assert outcome.termination is Termination.DENIED


def test_a_single_run_is_ended_and_its_agent_goes_on(runner, work, native):
    outcomes: list[Outcome] = []
    thread = in_a_thread(runner, outcomes, shell="sleep 1000", cwd=work, agent="a")
    (run_id,) = started(runner)
    end(runner, KillScope.RUN, run_id)
    thread.join()
    assert outcomes[0].status == 137
    assert runner.kills.all() == []
    assert runner.run(["true"], cwd=work, agent="a").ok
    for wrong in (run_id, "run-that-never-was"):
        with pytest.raises(RequestError, match=r"no run .* is open"):
            runner.kills.order(KillScope.RUN, wrong, "again")


def test_a_supervisor_that_was_stopped_is_passed_by(runner, work, home, native):
    with supervisor(home, work, "a") as other:
        (run_id,) = started(runner)
        programs = until(lambda: _sleeping(other.pid), "its program sleeps")
        other.send_signal(signal.SIGSTOP)
        ended = end(runner, KillScope.RUN, run_id, patience_s=0.2)
        assert ended.forced == (run_id,)
        assert ended.unrecorded == (run_id,)
        until(lambda: not any(map(psutil.pid_exists, programs)), "its program is gone")
        other.send_signal(signal.SIGCONT)
        assert json.loads(other.stdout.read()) == ["cancelled", 137, "it runs away"]
    (outcome,) = events(runner, "run.ended")
    assert outcome["killed"]["reason"] == "it runs away"
    assert runner.kills.all() == []


def _sleeping(supervisor_pid: int) -> list[int]:
    """The programs below a supervisor."""
    found = []
    for process in psutil.Process(supervisor_pid).children(recursive=True):
        if process.name() == "sleep":
            found.append(process.pid)
    return found


def test_what_a_dead_supervisor_held_is_over_with_recovery(runner, work, home, native):
    with supervisor(home, work, "a") as other:
        (run_id,) = started(runner)
        runner.kills.order(KillScope.RUN, run_id, "too late")
        other.kill()
        other.wait()
    with Runner(home=home) as later:
        assert later.kills.running() == []
        assert later.kills.all() == []


def test_a_run_that_is_killed_while_it_is_built_never_ends_otherwise(tmp_path, work, runner_home):
    """The kill comes between the decision and the program's start."""
    with Runner(home=runner_home) as runner:
        backend = FakeBackend(
            [
                FakeRun(
                    before=lambda _: runner.kills.order(KillScope.AGENT, "a", "now"),
                    until_cancelled=True,
                )
            ]
        )
        runner._backends["native"] = backend
        outcome = runner.run(["true"], cwd=work, agent="a")
    assert (outcome.termination, outcome.status) == (Termination.CANCELLED, 137)


def test_who_cancels_a_run_did_not_kill_it(runner, work, native):
    with Cancellation() as cancel:
        cancel.set()
        outcome = runner.run(shell="sleep 1000", cwd=work, cancel=cancel)
    assert (outcome.termination, outcome.status, outcome.kill) == (Termination.CANCELLED, 130, None)


def test_runs_that_were_lost_for_another_reason_are_no_kills(runner, work):
    runner._backends["native"] = FakeBackend([FakeRun(lost="gone")])
    with pytest.raises(Exception, match="gone") as raised:
        runner.run(["true"], cwd=work)
    assert raised.value.outcome.termination is Termination.RUNNER_FAILED


def test_kills_are_ordered_for_a_reason(runner):
    for call in (runner.kills.order, runner.kills.lift):
        with pytest.raises(RequestError, match="for a reason"):
            call(KillScope.AGENT, "a", " ")
    for scope, name in ((KillScope.AGENT, ""), (KillScope.ALL, "a")):
        with pytest.raises(RequestError, match="name"):
            runner.kills.order(scope, name, "why")
    with pytest.raises(RequestError, match="no kill is in force"):
        runner.kills.lift(KillScope.AGENT, "a", "why")


def test_a_repaired_log_still_knows_who_was_killed(runner, work, home):
    """By its events: they are what can be proved."""
    import sqlite3
    from contextlib import closing

    from runner.clock import SystemClock
    from runner.stores.repairing import repair

    end(runner, KillScope.AGENT, "a", "first")
    end(runner, KillScope.SESSION, "s", "second")
    runner.kills.lift(KillScope.AGENT, "a", "third")
    before = list(runner.kills.all())
    runner.close()
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("DELETE FROM tree")
        db.execute("DELETE FROM kills")
    repair(home, SystemClock())
    with Runner(home=home) as later:
        found = list(later.kills.all())
    assert [(each.scope, each.name, each.by, each.reason) for each in found] == [
        (each.scope, each.name, each.by, each.reason) for each in before
    ]
    assert [each.name for each in found] == ["s"]


def test_secrets_in_a_reason_are_redacted_and_names_still_match(runner, work, native):
    secret = "ghp_" + "A1b2" * 9  # a shape that is known
    name = f"agent-{secret}"
    end(runner, KillScope.AGENT, name, f"it printed {secret}")
    assert runner.run(["true"], cwd=work, agent=name).termination is Termination.DENIED
    database = (Path(runner.store.home) / "runner.db").read_bytes()
    wal = (Path(runner.store.home) / "runner.db-wal").read_bytes()
    assert secret.encode() not in database + wal
    runner.kills.lift(KillScope.AGENT, name, "over")
    assert runner.run(["true"], cwd=work, agent=name).ok


def test_a_kill_outlives_the_archive_of_its_event_and_a_repair(runner, work, home, tmp_path):
    import sqlite3
    from contextlib import closing

    from runner.clock import SystemClock
    from runner.stores.archiving import archive
    from runner.stores.repairing import repair

    end(runner, KillScope.AGENT, "a")
    runner.check(_request(runner, work, "b"))
    before = list(runner.kills.all())
    size = runner.store.head().size
    archive(runner.store, tmp_path / "old", before=size - 1, prune_too=True)
    assert list(runner.kills.all()) == before
    runner.close()
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("DELETE FROM tree")
    repair(home, SystemClock())
    with Runner(home=home) as later:
        assert list(later.kills.all()) == before
