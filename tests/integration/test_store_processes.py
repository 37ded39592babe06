"""The SQLite store between processes: killed at any moment, many at once, forked, disk full."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit.verify import Verification
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import sqlite
from runner.stores.reader import open_log
from runner.stores.sqlite import SqliteStore

KILLS = 36


class WallClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()


# What every worker starts with; `run` is one run from its first event to its last.
PRELUDE = """
import os, secrets, sys, threading, time
from pathlib import Path
from runner.errors import RecordError, StateError
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.stores import sqlite

class WallClock:
    monotonic = staticmethod(time.monotonic)
    now = staticmethod(time.time)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def begin(store, run_id):
    with store.transaction() as t:
        t.append(EventDraft(EventKind.RUN_DECIDED, {"pad": "x" * 300}, Principal(5, "a"), run_id))
        t.open_run(run_id, Principal(5, "a"), "agent", "native")

def end(store, run_id):
    with store.transaction() as t:
        event = t.append(EventDraft(EventKind.RUN_ENDED, {}, Principal(5, "a"), run_id))
        t.close_run(run_id, Usage(wall_s=0.25))
    return event.seq

def run(store):
    run_id = secrets.token_hex(8)
    begin(store, run_id)
    return end(store, run_id)

def append(store, text="x"):
    with store.transaction() as t:
        return t.append(EventDraft(EventKind.RUN_DECIDED, {"text": text})).seq

home = Path(sys.argv[1])
"""


def _worker(home: Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finished(worker: subprocess.Popen[str]) -> list[str]:
    out, err = worker.communicate(timeout=120)
    assert worker.returncode == 0, err
    return out.splitlines()


def _run(home: Path, script: str) -> list[str]:
    return _finished(_worker(home, script))


def _store(home: Path) -> SqliteStore:
    return sqlite.create(home, WallClock())


def _verified(home: Path) -> Verification:
    with closing(open_log(home)) as log:
        found = log.verify()
        head = log.head()
    assert found.failure is None
    assert (found.size, found.head, found.root) == (head.size, head.last_hash, head.root)
    return found


def _kinds(home: Path) -> Counter[str]:
    with closing(open_log(home)) as log:
        return Counter(event.kind for event in log.events())


def test_killed_at_any_moment_the_log_holds(tmp_path: Path) -> None:
    """Each worker is killed at a moment of its own: while it makes the log, writes, or closes."""
    home = tmp_path / "state"
    chance = random.Random(20)
    acknowledged = -1
    for kill in range(KILLS):
        worker = _worker(
            home,
            """
            while True:
                store = sqlite.create(home, WallClock())
                store.recover()
                for _ in range(7):
                    say(run(store))
                store.close()
            """,
        )
        assert worker.stdout is not None
        if kill % 4:
            worker.stdout.readline()  # at work: the moments before are the fourth ones'
            time.sleep(chance.uniform(0, 0.02))
        else:
            time.sleep(chance.uniform(0, 0.2))
        worker.kill()
        out, _ = worker.communicate()
        said = [int(line) for line in out.splitlines(keepends=True) if line.endswith("\n")]
        acknowledged = max([acknowledged, *said])
        if (home / "runner.db").exists() and acknowledged >= 0:
            assert _verified(home).size > acknowledged
    with closing(_store(home)) as store:
        store.recover()
        assert store.recover() == []
        assert os.listdir(home / "live") == []
        totals = {t.scope: t for t in store.totals()}
    _verified(home)
    kinds = _kinds(home)
    assert kinds[EventKind.LOG_CREATED] == 1
    runs = kinds[EventKind.RUN_DECIDED]
    assert runs == kinds[EventKind.RUN_ENDED] + kinds[EventKind.RUN_RECOVERED]
    assert kinds[EventKind.RUN_RECOVERED] > 0
    for scope in ("agent", "uid"):
        assert totals[scope].calls == runs
        assert totals[scope].wall_s == kinds[EventKind.RUN_ENDED] * 0.25


def test_eight_processes_write_at_once(tmp_path: Path) -> None:
    home = tmp_path / "state"
    workers = [
        _worker(
            home,
            """
            store = sqlite.create(home, WallClock())  # the first of the eight makes the log
            def work():
                for _ in range(10):
                    say(run(store))
            threads = [threading.Thread(target=work) for _ in range(2)]
            for t in threads: t.start()
            for t in threads: t.join()
            store.close()
            """,
        )
        for _ in range(8)
    ]
    ended = [int(line) for worker in workers for line in _finished(worker)]
    assert len(ended) == len(set(ended)) == 160
    assert _verified(home).size == 1 + 160 * 2
    assert _kinds(home)[EventKind.LOG_CREATED] == 1
    with closing(_store(home)) as store:
        found = [(t.scope, t.key, t.calls, t.wall_s) for t in store.totals()]
    assert found == [("agent", "a", 160, 40.0), ("uid", "5", 160, 40.0)]


OPENS_RUNS_AND_WAITS = """
store = sqlite.create(home, WallClock())
for n in range(20):
    begin(store, f"run-{n}")
say("open")
time.sleep(600)
"""


def test_several_recover_at_once_and_each_run_is_closed_once(tmp_path: Path) -> None:
    home = tmp_path / "state"
    supervisor = _worker(home, OPENS_RUNS_AND_WAITS)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "open\n"
    with closing(_store(home)) as store:
        assert store.recover() == []  # it is alive
    supervisor.kill()
    supervisor.communicate()
    recoverers = [
        _worker(home, "say(*sqlite.create(home, WallClock()).recover())") for _ in range(4)
    ]
    recovered = [run_id for worker in recoverers for run_id in _finished(worker)[0].split()]
    assert sorted(recovered) == sorted(f"run-{n}" for n in range(20))
    assert _kinds(home)[EventKind.RUN_RECOVERED] == 20
    assert os.listdir(home / "live") == []
    _verified(home)


def test_a_store_survives_a_fork(tmp_path: Path) -> None:
    said = _run(
        tmp_path / "state",
        """
        store = sqlite.create(home, WallClock())
        begin(store, "parents")
        read, write = os.pipe()
        recovered, told = os.pipe()
        child = os.fork()
        if child == 0:
            say("child recovers", store.recover())
            os.write(told, b"x")
            begin(store, "childs")
            for _ in range(20):
                append(store)
            os.read(read, 1)  # the parent has closed its store and opened it again
            append(store)
            say("child verifies", store.verify().ok)
            os._exit(0)       # as if it had died
        for _ in range(20):
            append(store)
        os.read(recovered, 1)  # while the parent's runs are still its own
        store.close()
        store = sqlite.create(home, WallClock())
        append(store)
        os.write(write, b"x")
        os.waitpid(child, 0)
        append(store)
        say("parent recovers", sorted(store.recover()))
        say("parent verifies", store.verify().ok, store.head().size)
        """,
    )
    assert said == [
        "child recovers []",
        "child verifies True",
        "parent recovers ['childs', 'parents']",
        "parent verifies True 48",
    ]
    _verified(tmp_path / "state")


def test_a_child_does_not_keep_its_parent_alive(tmp_path: Path) -> None:
    home = tmp_path / "state"
    parent = _worker(
        home,
        """
        store = sqlite.create(home, WallClock())
        begin(store, "parents")
        if os.fork() == 0:
            say("forked")  # from here: before it runs, what a fork inherits is still open in it
            os.close(1)
            os.close(2)
            os.read(0, 1)  # outlives its parent, until the test ends
            os._exit(0)
        time.sleep(600)
        """,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "forked\n"
    parent.kill()
    parent.wait()
    with closing(_store(home)) as store:
        assert store.recover() == ["parents"]


def test_a_fork_inside_a_transaction_or_while_reading(tmp_path: Path) -> None:
    said = _run(
        tmp_path / "state",
        """
        def child_says(store):
            child = os.fork()
            if child == 0:
                refused = 0
                for act in (store.head, store.transaction, store.recover, store.verify):
                    try:
                        act()
                        say("used")
                    except StateError as error:
                        refused += "forked while it was in use" in str(error)
                say(refused)
                sys.exit(0)  # not _exit: objects are torn down
            os.waitpid(child, 0)

        store = sqlite.create(home, WallClock())
        with store.transaction() as t:
            t.append(EventDraft(EventKind.RUN_DECIDED, {}))
            child_says(store)
            t.append(EventDraft(EventKind.RUN_DECIDED, {}))

        class File:
            forked = False
            def write(self, data):
                if not self.forked:
                    self.forked = True
                    child_says(store)
        say(store.export(File()))
        append(store)
        say(store.verify().ok, store.head().size)
        """,
    )
    assert said == ["4", "4", "3", "True 4"]


WRITES_UNTIL_IT_CAN_NOT = """
store = sqlite.create(home, WallClock())
append(store)
fill()
done, errors, big = [], [], "x" * 20_000

def work():
    try:
        for _ in range(2000):
            done.append(append(store, big))
    except RecordError as error:
        errors.append(error)

threads = [threading.Thread(target=work) for _ in range(3)]
for t in threads: t.start()
for t in threads: t.join()
say(len(errors), errors[0])
for n in range(2000):  # one event may fit where three did not
    try:
        done.append(append(store, big))
    except RecordError as error:
        say("refused")
        break
try:
    sqlite.create(home.parent / "other", WallClock())
    say("made")
except StateError as error:
    say(error)
events = {e.seq for e in store.events()}
say("holds", store.verify().ok, events.issuperset(done), len(events) - len(done) <= 2 + 3)
unfill()
say("again", append(store, big) == store.head().size - 1, store.verify().ok)
"""


def _refused(said: list[str], why: str) -> None:
    assert said[0].startswith("3 the record could not be written: ")
    assert why in said[0]
    assert said[1] == "refused"
    assert "state folder" in said[2] or "the log can't be opened" in said[2]
    assert said[3:] == ["holds True True True", "again True True"]


def test_files_that_can_not_grow_leave_the_log_whole(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk, which takes root to make."""
    script = """
    import resource
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    fill = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    unfill = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    """
    script = textwrap.dedent(script) + WRITES_UNTIL_IT_CAN_NOT
    said = _run(tmp_path / "state", script.replace('home.parent / "other"', 'Path("/proc/x")'))
    _refused(said, "a limit on files")
    _verified(tmp_path / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk to fill")
def test_a_full_disk_leaves_the_log_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is withheld here")
    try:
        script = """
        ballast = home.parent / "ballast"
        def fill():
            with open(ballast, "wb") as file:
                file.write(bytes(400_000))
        unfill = ballast.unlink
        """
        said = _run(disk / "state", textwrap.dedent(script) + WRITES_UNTIL_IT_CAN_NOT)
        _refused(said, "full")
        assert "the disk is full" in said[2]
        _verified(disk / "state")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_one_that_waits_for_a_commit_that_never_comes_commits_itself(tmp_path: Path) -> None:
    """The thread that was next, and so to commit, was interrupted while it waited its turn."""
    with closing(_store(tmp_path / "state")) as store:
        store._writer._waiting += 1
        written = threading.Thread(target=_append, args=(store,))
        written.start()
        written.join(0.05)
        store._writer._waiting -= 1
        written.join(60)
        assert not written.is_alive()
        assert store.head().size == 2
    _verified(tmp_path / "state")


def test_threads_share_commits(tmp_path: Path) -> None:
    """While one thread holds the turn, those that come meanwhile are committed together."""
    with closing(_store(tmp_path / "state")) as store:
        _append(store)
        settled = 0
        settle = store._writer._settle

        def counted(batch: object) -> None:
            nonlocal settled
            settled += 1
            settle(batch)  # type: ignore[arg-type]

        store._writer._settle = counted  # type: ignore[method-assign]
        threads = [threading.Thread(target=_append, args=(store,)) for _ in range(8)]
        with store.transaction() as transaction:
            for thread in threads:
                thread.start()
            while store._writer._waiting < 8:
                time.sleep(0.001)
            transaction.append(EventDraft(EventKind.RUN_DECIDED, {}))
        for thread in threads:
            thread.join()
        assert store.head().size == 1 + 1 + 8 + 1
        assert settled < 9
    _verified(tmp_path / "state")


def _append(store: SqliteStore) -> None:
    with store.transaction() as transaction:
        transaction.append(EventDraft(EventKind.RUN_DECIDED, {}, Principal(1), "r"))


def test_a_supervisor_is_one_however_many_threads_it_has(tmp_path: Path) -> None:
    home = tmp_path / "state"
    with closing(_store(home)) as store:
        ids: set[str] = set()
        threads = [
            threading.Thread(target=lambda: ids.add(store._supervisor_id())) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 1
        assert os.listdir(home / "live") == [f"{ids.pop()}.lock"]
    assert os.listdir(home / "live") == []


def test_a_run_that_was_recovered_names_who_held_it(tmp_path: Path) -> None:
    home = tmp_path / "state"
    with closing(_store(home)) as store, store.transaction() as transaction:
        principal = Principal(7, "a\udcff", "b", "s", "t")
        transaction.open_run("run-1", principal, "agent", "native")
    with closing(_store(home)) as store:
        assert store.recover() == ["run-1"]
        (event,) = store.events("run-1")
    body = json.loads(event.body)
    assert body["principal"] == {
        "agent": "a\ufffddcff",
        "parent": "b",
        "session": "s",
        "tenant": "t",
        "uid": 7,
    }
    assert body["data"]["termination"] == "unknown"
    assert (body["data"]["profile"], body["data"]["backend"]) == ("agent", "native")


def test_a_supervisor_id_from_a_doctored_log_is_no_path(tmp_path: Path) -> None:
    import sqlite3

    home = tmp_path / "state"
    canary = tmp_path / "canary.lock"
    canary.touch()
    with closing(_store(home)) as store, store.transaction() as transaction:
        transaction.open_run("run-1", Principal(1), "agent", "native")
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("UPDATE runs SET supervisor = '../../canary'")
    with closing(_store(home)) as store:
        assert store.recover() == ["run-1"]
    assert canary.exists()
