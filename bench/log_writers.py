"""Who writes events in `bench audit`, and for how long each one waited."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from runner.clock import SystemClock
from runner.model.event import EventDraft
from runner.stores import sqlite

Append = Callable[[EventDraft], None]
"""Makes one event durable, then returns."""

_BUSY_S = 60.0


@contextmanager
def runner_log(folder: Path) -> Iterator[Append]:
    """runner's log: redacted, chained, in the tree, signed now and then; a transaction each."""
    with closing(sqlite.create(folder / "home", SystemClock())) as store:

        def append(draft: EventDraft) -> None:
            with store.transaction() as transaction:
                transaction.append(draft)

        yield append


@contextmanager
def plain_sqlite(folder: Path) -> Iterator[Append]:
    """The bytes of the event and who it is about, in a table, with `synchronous = FULL`.

    A connection for each thread; writers wait for each other as SQLite lets them.
    """
    path = folder / "plain.db"
    local = threading.local()
    opened: list[sqlite3.Connection] = []

    def connected() -> sqlite3.Connection:
        found = getattr(local, "connection", None)
        if found is None:
            found = sqlite3.connect(
                path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False
            )
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = FULL")
            found.execute(
                "CREATE TABLE IF NOT EXISTS events "
                "(seq INTEGER PRIMARY KEY, time REAL, kind TEXT, run TEXT, agent TEXT, body BLOB)"
            )
            opened.append(found)
            local.connection = found
        return found

    def append(draft: EventDraft) -> None:
        who = draft.principal
        connected().execute(
            "INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?)",
            (
                time.time(),
                draft.kind.value,
                draft.run_id,
                None if who is None else who.agent,
                sqlite3.Binary(_bytes_of(draft)),
            ),
        )

    connected()
    try:
        yield append
    finally:
        for connection in opened:
            connection.close()


def _bytes_of(draft: EventDraft) -> bytes:
    import orjson  # noqa: PLC0415  (what a plain program would write with)

    return orjson.dumps(draft.data)


Opened = Callable[[Path], "contextmanager[Append]"]


def alone(opened: Opened, folder: Path, drafts: Sequence[EventDraft], seconds: float) -> list[int]:
    """Nanoseconds of each event, one behind the other."""
    with opened(folder) as append:
        return _written(append, drafts, time.monotonic() + seconds)


def threads(
    opened: Opened, folder: Path, drafts: Sequence[EventDraft], seconds: float, count: int
) -> list[int]:
    """Nanoseconds of each event, so many threads of a process writing."""
    took_ns: list[list[int]] = []
    with opened(folder) as append:
        end_s = time.monotonic() + seconds

        def write(number: int) -> None:
            took_ns.append(_written(append, drafts[number:] + drafts[:number], end_s))

        writers = [threading.Thread(target=write, args=(n,)) for n in range(count)]
        for each in writers:
            each.start()
        for each in writers:
            each.join()
    return [each for some in took_ns for each in some]


def processes(
    opened: Opened, folder: Path, drafts: Sequence[EventDraft], seconds: float, count: int
) -> list[int]:
    """Nanoseconds of each event, so many processes writing."""
    with opened(folder):
        pass  # made by one of them, not by all at once
    context = multiprocessing.get_context("fork")
    ready, took_ns = context.Barrier(count), context.SimpleQueue()

    def write(number: int) -> None:
        with opened(folder) as append:
            append(drafts[number])
            ready.wait()
            mine = drafts[number:] + drafts[:number]
            took_ns.put(_written(append, mine, time.monotonic() + seconds))

    writers = [context.Process(target=write, args=(n,)) for n in range(count)]
    for each in writers:
        each.start()
    found = [each for _ in writers for each in took_ns.get()]
    for each in writers:
        each.join()
    return found


def _written(append: Append, drafts: Sequence[EventDraft], end_s: float) -> list[int]:
    took_ns: list[int] = []
    while time.monotonic() < end_s:
        draft = drafts[len(took_ns) % len(drafts)]
        began_ns = time.perf_counter_ns()
        append(draft)
        took_ns.append(time.perf_counter_ns() - began_ns)
    return took_ns
