"""`runner audit search`, `tail`, `export --format csv` and `show RUN`, as people call them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
from conftest import RUNNER_COMMAND

from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import sqlite
from runner.stores.archiving import archive
from runner.stores.reader import open_log
from runner.stores.repairing import repair
from runner.testing.fakes import FakeClock

HOSTILE = "x\x1b]0;owned\x07\x1b[2J\u202e\r\nevil"
WAIT_S = 120  # for what comes at once


@pytest.fixture
def store(runner_home: Path) -> Iterator[sqlite.SqliteStore]:
    with closing(sqlite.create(runner_home, FakeClock(time.time()))) as made:
        yield made


def write(store: sqlite.SqliteStore, agent: str = "a", message: str = "m") -> int:
    with store.transaction() as tx:
        draft = EventDraft(EventKind.REQUEST_REFUSED, {"message": message}, Principal(1, agent))
        return tx.append(draft).seq


@pytest.fixture
def ran(run_cli, native, workspace, runner_home) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A log of three runs, the second of which was denied, and a check."""
    for _ in range(20):
        run_cli("run", "--agent", "one", "--label", "task=7", "--session", "s", "--", "true")
        run_cli("run", "--agent", "two", "-c", "sudo ls | grep x")
        run_cli("run", "--agent", "one", "-c", "echo new > made.txt; exit 3")
        run_cli("check", "--agent", "two", "--", "curl", "https://x.example.org/")
        with closing(open_log(runner_home)) as log:
            if EventKind.MACHINE_SWEPT not in {event.kind for event in log.events()}:
                return run_cli
        shutil.rmtree(
            runner_home
        )  # what other tests left on this machine was swept: numbers differ
    pytest.fail("something is swept from this machine at each start")


def numbers(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done.stderr
    return [int(line.split()[0]) for line in done.stdout.splitlines()]


def test_what_is_asked_for_is_found(ran, runner_home):
    cases = {
        ("--agent", "one"): [1, 2, 3, 6, 7, 8],
        ("--agent", "one", "--newest-first", "--limit", "2"): [8, 7],
        ("--agent", "one", "--agent", "two"): [*range(1, 10)],
        ("--effect", "deny"): [4],
        ("--rule", "privileges"): [4],
        ("--command", "grep"): [4],
        ("--command", "/usr/bin/su*", "--agent", "two"): [4],
        ("--host", "*.example.org"): [9],
        ("--label", "task=7"): [1],
        ("--session", "s", "--kind", "run.*"): [1, 2, 3],
        ("--profile", "agent", "--effect", "allow"): [1, 6, 9],
        ("--termination", "exited"): [3, 8],
        ("--since", "1h", "--effect", "deny"): [4],
        ("--until", "1h"): [],
        ("--agent", "nobody"): [],
    }
    for words, expected in cases.items():
        assert numbers(ran("audit", "search", *words)) == expected, words
        assert numbers(ran("audit", "search", "--no-index", *words)) == expected, words
    run = json.loads(ran("audit", "search", "--effect", "deny", "--json").stdout)["run"]
    assert numbers(ran("audit", "search", "--run", run)) == [4, 5]
    assert numbers(ran("audit", "search", "--run", run, "--newest-first")) == [5, 4]
    assert (runner_home / "search.db").exists()


def test_json_is_the_bytes_that_are_hashed(ran):
    found = ran("audit", "search", "--agent", "one", "--json").stdout.splitlines()
    shown = ran("audit", "show", "--json", "--last", "0").stdout.splitlines()
    assert found == [shown[n] for n in (1, 2, 3, 6, 7, 8)]


def test_an_index_of_another_log_is_told_of(ran, runner_home, tmp_path, monkeypatch):
    ran("audit", "search", "--agent", "one")
    shutil.copyfile(runner_home / "search.db", tmp_path / "search.db")
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "other"))
    ran("run", "--agent", "three", "--", "true")
    shutil.copyfile(tmp_path / "search.db", tmp_path / "other" / "search.db")
    done = ran("audit", "search", "--agent", "*", "--kind", "run.decided")
    assert numbers(done) == [1]
    assert done.stderr == "runner: the search index is of another log, so it is made anew\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", "yesterday"), "'yesterday' is no time: give 2026-01-31"),
        (("--label", "task"), "--label 'task' has no '='"),
        (("--limit", "0"), "0 is not in the range"),
    ],
)
def test_bad_input(run_cli, store, words, says):
    done = run_cli("audit", "search", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_without_a_log_it_says_so(run_cli):
    for command in ("search", "tail", "export"):
        done = run_cli("audit", command)
        assert done.returncode == 125
        assert "there is no log" in done.stderr


def test_hostile_texts_move_no_cursor(run_cli, store, runner_home):
    write(store, agent=HOSTILE, message=HOSTILE)
    write(store, agent="é", message="schön")
    for words in (("search", "--kind", "request.*"), ("tail",), ("show",)):
        done = run_cli("audit", *words)
        lines = done.stdout.splitlines()
        assert "é" in lines[-1]
        assert "schön" in lines[-1]
        assert all(line.isprintable() for line in lines)
        assert "\\x1b]0;owned\\x07" in done.stdout
        done = run_cli("audit", *words, env=os.environ | {"PYTHONIOENCODING": "ascii"})
        assert done.returncode == 0, done.stderr
        assert "sch\\xf6n" in done.stdout


def test_a_table(ran):
    done = ran("audit", "export", "--format", "csv", text=False)
    assert done.returncode == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
    assert [int(row["seq"]) for row in rows] == [*range(10)]
    assert (rows[4]["effect"], rows[4]["programs"]) == ("deny", "sudo ls grep")
    assert (rows[8]["termination"], rows[8]["exit_code"]) == ("exited", "3")
    some = ran("audit", "export", "--format", "csv", "--effect", "deny", "--from", "2").stdout
    assert [row.split(",")[0] for row in some.splitlines()] == ["seq", "4"]
    lines = ran("audit", "export", "--effect", "deny").stdout
    whole = ran("audit", "export").stdout.splitlines()
    assert lines == whole[4] + "\n"
    done = ran("audit", "export", "--format", "xml")
    assert done.returncode == 2
    assert "there are jsonl and csv" in done.stderr


def test_the_story_of_a_run(ran):
    decided = [
        json.loads(line)
        for line in ran("audit", "search", "--kind", "run.decided", "--json").stdout.splitlines()
    ]
    first, denied, third = (event["run"] for event in decided)
    told = ran("audit", "show", first).stdout
    for each in ("agent one", "session s", "task=7", "asked for     true", "protections", "wall "):
        assert each in told, each
    assert "outcome       exited with 0" in told
    told = ran("audit", "show", denied).stdout
    assert "deny by profile:agent / privileges" in told
    assert "outcome       denied" in told
    assert "run.started" not in told
    told = ran("audit", "show", third).stdout
    assert "exited with 3" in told
    assert "created made.txt" in told
    ran("apply", "latest")
    assert "1 applied, 0 not" in ran("audit", "show", third).stdout
    lines = ran("audit", "show", denied, "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["run.decided", "run.ended"]
    assert "there is no run" in ran("audit", "show", "run-x").stderr
    assert ran("audit", "show", denied, "--run", denied).returncode == 2


def test_the_story_of_a_run_that_goes_on_or_is_damaged(run_cli, store, runner_home):
    with store.transaction() as tx:
        data = {"decision": HOSTILE}
        tx.append(EventDraft(EventKind.RUN_DECIDED, data, Principal(1, HOSTILE), "run-1"))
        tx.append(EventDraft(EventKind.RUN_STARTED, {
            "workspace": HOSTILE, "protections": [HOSTILE], "degraded": []
        }, Principal(1, HOSTILE), "run-1"))  # fmt: skip
    told = run_cli("audit", "show", "run-1")
    assert told.returncode == 0, told.stderr
    assert "event 1 is damaged" in told.stdout
    assert "It has not ended" in told.stdout
    assert all(line.isprintable() for line in told.stdout.splitlines())


class Following:
    """`runner audit tail -f …` as it goes on."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [*RUNNER_COMMAND, "audit", "tail", "-f", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.told: list[str] = []
        self._threads = [
            Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.told))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: Iterator[str], into: list[str]) -> None:
        for line in stream:
            into.append(line)

    def until(self, found: Callable[[], bool]) -> None:
        end_s = time.monotonic() + WAIT_S
        while not found():
            assert time.monotonic() < end_s, (self.lines, self.told)
            assert self.process.poll() is None, (self.lines, self.told)
            time.sleep(0.02)

    def numbers(self) -> list[int]:
        return [int(line.split()[0]) for line in self.lines]

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        for thread in self._threads:
            thread.join(WAIT_S)
        return code


@pytest.fixture
def follow() -> Iterator[Callable[..., Following]]:
    begun: list[Following] = []

    def begin(*words: str) -> Following:
        begun.append(Following(*words))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.wait()


def test_the_last_ones(run_cli, store):
    for n in range(12):
        write(store, agent="a" if n % 3 else "b")
    assert numbers(run_cli("audit", "tail")) == [*range(3, 13)]
    assert numbers(run_cli("audit", "tail", "-n", "2")) == [11, 12]
    assert numbers(run_cli("audit", "tail", "-n", "2", "--agent", "b")) == [7, 10]
    assert numbers(run_cli("audit", "tail", "-n", "99", "--agent", "b", "--no-index")) == [
        1, 4, 7, 10
    ]  # fmt: skip
    assert numbers(run_cli("audit", "tail", "-n", "0")) == []


def test_it_follows_another_process_that_writes(run_cli, ran, follow):
    tail = follow("-n", "1", "--agent", "one")
    tail.until(lambda: tail.numbers() == [8])
    ran("run", "--agent", "two", "--", "true")
    ran("run", "--agent", "one", "--", "true")
    tail.until(lambda: len(tail.lines) == 4)
    kinds = [line.split()[3] for line in tail.lines]
    assert kinds == ["run.ended", "run.decided", "run.started", "run.ended"]
    assert {line.split()[4] for line in tail.lines} == {"one"}
    assert tail.end() == 130
    assert not tail.told


def test_it_follows_a_log_that_is_archived_and_repaired(run_cli, store, runner_home, follow):
    for _ in range(5):
        write(store)
    tail = follow("-n", "1", "--json")
    tail.until(lambda: len(tail.lines) == 1)
    archive(store, runner_home / "archive", 4, prune_too=True)
    write(store)
    tail.until(lambda: len(tail.lines) == 3)
    kinds = [json.loads(line)["kind"] for line in tail.lines]
    assert kinds == ["request.refused", "log.archived", "request.refused"]
    assert not tail.told
    store.close()
    with closing(sqlite3.connect(runner_home / "runner.db", isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = ON")  # or the repair finds it all the same
        db.execute("DROP TRIGGER events_are_kept")
        db.execute("DELETE FROM events WHERE seq = 7")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    repair(runner_home, FakeClock())
    tail.until(lambda: bool(tail.told) and len(tail.lines) == 4)
    assert "the log was replaced by another one" in tail.told[0]
    assert json.loads(tail.lines[-1])["kind"] == "log.repaired"
    with closing(sqlite.create(runner_home, FakeClock())) as again:
        number = write(again)
    tail.until(lambda: json.loads(tail.lines[-1])["seq"] == number)
    assert tail.end() == 130


def test_it_goes_on_with_a_log_that_was_put_back(store, runner_home, tmp_path, follow):
    write(store)
    tail = follow("-n", "1")
    tail.until(lambda: tail.numbers() == [1])
    store.close()
    shutil.copyfile(runner_home / "runner.db", runner_home / "copy")
    os.replace(runner_home / "copy", runner_home / "runner.db")
    with closing(sqlite.create(runner_home, FakeClock())) as again:
        write(again)
    tail.until(lambda: tail.numbers() == [1, 2])
    assert "goes on from it, with event 2" in tail.told[0]
    assert tail.end() == 130


def test_it_ends_when_nobody_reads(store):
    write(store)
    process = subprocess.Popen(
        [*RUNNER_COMMAND, "audit", "tail", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(WAIT_S) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_log_that_is_gone_is_told_of(store, runner_home, monkeypatch, follow):
    tail = follow("-n", "1")
    tail.until(lambda: tail.numbers() == [0])
    store.close()
    for each in runner_home.glob("runner.db*"):
        each.unlink()
    assert tail.process.wait(WAIT_S) == 125
    tail.end(0)
    assert "there is no log" in tail.told[-1]
