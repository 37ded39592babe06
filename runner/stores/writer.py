"""Writing the log: one transaction at a time, durable together with the ledger, or not at all.

Inside a process threads share commits: a transaction that finds others waiting leaves the commit,
and with it the wait for the disk, to the last of them (group commit). Each stands in a savepoint
of its own, so one that fails takes nothing with it, and none returns before the commit did.
Between processes writers take turns (`queue.py`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from runner.audit.canonical import canonical, escape, unescape
from runner.audit.event import NO_PREVIOUS, rfc3339, seal
from runner.audit.merkle import HASH_BYTES, Tree
from runner.errors import RecordError
from runner.metering import microseconds
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.ports import Clock
from runner.stores.database import connect, roll_back, sentence
from runner.stores.kept import check_run_id
from runner.stores.queue import WriterQueue

_BATCH = 64  # transactions in one commit; more would let other processes wait too long

_RESCUE_S = 0.1  # how long to wait before looking whether those who were to commit still come

_DAMAGED = "the log is damaged; `runner audit verify` tells where"


class _Log:
    """The log's end inside a database transaction: where the next event goes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        row = connection.execute("SELECT size, peaks FROM tree WHERE id = 0").fetchone()
        try:
            self.stored_size = int(row[0])
            self.tree = Tree.from_bytes(self.stored_size, row[1])
        except (TypeError, ValueError):
            raise RecordError(_DAMAGED) from None
        self.previous = NO_PREVIOUS
        if self.stored_size:
            last = connection.execute(
                "SELECT leaf_hash FROM events WHERE seq = ?", (self.stored_size - 1,)
            ).fetchone()
            if last is None or not isinstance(last[0], bytes) or len(last[0]) != HASH_BYTES:
                raise RecordError(_DAMAGED)
            self.previous = last[0]

    def append(self, draft: EventDraft, now_s: float) -> AuditEvent:
        event = seal(draft, self.tree.size, now_s, self.previous)
        agent = None if draft.principal is None else escape(draft.principal.agent)
        self.connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.seq,
                event.time,
                event.kind,
                event.run_id,
                agent,
                event.leaf_hash,
                event.previous,
                event.body,
            ),
        )
        self.tree = self.tree.appended(event.leaf_hash)
        self.previous = event.leaf_hash
        return event

    def store_tree(self) -> None:
        changed = self.connection.execute(
            "UPDATE tree SET size = ?, peaks = ? WHERE id = 0 AND size = ?",
            (self.tree.size, self.tree.to_bytes(), self.stored_size),
        )
        if changed.rowcount != 1:
            raise RecordError(_DAMAGED)


def write_first_event(connection: sqlite3.Connection, draft: EventDraft, now_s: float) -> None:
    """Append to a new log, inside the transaction that made its tables."""
    log = _Log(connection)
    log.append(draft, now_s)
    log.store_tree()


class SqliteTransaction:
    """`ports.Transaction`; usable inside its `with` block only."""

    def __init__(self, log: _Log, clock: Clock, supervisor_id: Callable[[], str]) -> None:
        self._log: _Log | None = log
        self._clock = clock
        self._supervisor_id = supervisor_id

    def append(self, draft: EventDraft) -> AuditEvent:
        """Give the event its place in the log. RecordError: it can't be recorded."""
        log = self._open()
        if draft.run_id is not None:
            check_run_id(draft.run_id)
        return log.append(draft, self._clock.now())

    def open_run(self, run_id: str, principal: Principal, profile: str, backend: str) -> None:
        """Note the run as this supervisor's; charge the call to agent, parent and uid."""
        connection = self._open().connection
        check_run_id(run_id)
        if connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
            raise RecordError(f"run {run_id} is in the log already: a run id is used once")
        p = principal
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            (
                run_id,
                self._supervisor_id(),
                escape(p.agent),
                *(None if text is None else escape(text) for text in (p.parent, p.session)),
                None if p.tenant is None else escape(p.tenant),
                p.uid,
                escape(profile),
                escape(backend),
                rfc3339(self._clock.now()),
            ),
        )
        _charge(connection, principal, calls=1, wall_us=0)

    def close_run(self, run_id: str, usage: Usage) -> None:
        """The run is over; charge its wall time. RecordError: no such run is open."""
        connection = self._open().connection
        found = connection.execute(
            "SELECT agent, parent, session, tenant, uid FROM runs "
            "WHERE run_id = ? AND state = 'open'",
            (run_id,),
        ).fetchone()
        if found is None:
            raise RecordError(f"run {run_id!r} can't be closed: no run by that id is open")
        try:
            wall_us = microseconds(usage.wall_s)
        except ValueError as error:
            raise RecordError(f"run {run_id} can't be closed: {error}") from None
        _charge(connection, _principal(*found), calls=0, wall_us=wall_us)
        connection.execute(
            "UPDATE runs SET state = 'closed', closed = ?, usage = ? WHERE run_id = ?",
            (rfc3339(self._clock.now()), canonical(asdict(usage)).decode(), run_id),
        )

    def recover_runs(self, supervisor_id: str) -> list[str]:
        """Close every run that a dead supervisor left open, each with an event of its own."""
        log = self._open()
        rows = log.connection.execute(
            "SELECT run_id, profile, backend, opened, agent, parent, session, tenant, uid "
            "FROM runs WHERE state = 'open' AND supervisor = ? ORDER BY rowid",
            (supervisor_id,),
        ).fetchall()
        for run_id, profile, backend, opened, *who in rows:
            data = {
                "termination": "unknown",
                "reason": "its supervisor died",
                "supervisor": supervisor_id,
                "profile": unescape(profile),
                "backend": unescape(backend),
                "opened": opened,
            }
            self.append(EventDraft(EventKind.RUN_RECOVERED, data, _principal(*who), run_id))
            self.close_run(run_id, Usage())
        return [row[0] for row in rows]

    def end(self) -> None:
        """Refuse all further use."""
        self._log = None

    def _open(self) -> _Log:
        if self._log is None:
            raise RecordError("a transaction was used after its end: open another one")
        return self._log


class _Batch:
    """The transactions of one commit."""

    def __init__(self, log: _Log) -> None:
        self.log = log
        self.members = 0
        """How many succeeded and wait for the commit."""
        self.settled = threading.Event()
        self.error: RecordError | None = None


class Writer:
    """The one writing connection of a process. RecordError: what can't be made durable."""

    def __init__(
        self, path: Path, queue: WriterQueue, clock: Clock, supervisor_id: Callable[[], str]
    ) -> None:
        """`supervisor_id`: called when a run is opened, for the id that the run is held under."""
        self._path = path
        self._queue = queue
        self._clock = clock
        self._supervisor_id = supervisor_id
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._turn = threading.Lock()
        self._holder: int | None = None
        """Thread that holds `_turn`; written by it alone."""
        self._count = threading.Lock()
        self._waiting = 0
        self._batch: _Batch | None = None

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        """One durable, all-or-nothing step; what its block raises undoes it and passes on."""
        with self._my_turn():
            batch = self._batch or self._begin()
            try:
                with self._member(batch) as member:
                    yield member
            finally:
                if not self._waiting or batch.members >= _BATCH or batch.settled.is_set():
                    self._settle(batch)
        self._await(batch)

    def close(self) -> None:
        """Commit what waits and let go of the file; the next transaction opens it again."""
        with self._my_turn():
            self.close_in_turn()

    def close_in_turn(self) -> None:
        """`close`, for who holds the turn."""
        if self._batch is not None:
            self._settle(self._batch)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._queue.close()

    def take_turn(self, timeout_s: float) -> bool:
        """Keep everybody from writing until `give_turn`; False: not in time, or it is ours."""
        if self._holder == threading.get_ident():
            return False
        return self._turn.acquire(timeout=timeout_s)

    def give_turn(self) -> None:
        """End what `take_turn` began."""
        self._turn.release()

    def connections(self) -> list[sqlite3.Connection]:
        """Those that are open now."""
        return [] if self._connection is None else [self._connection]

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if self._holder == threading.get_ident():
            raise RecordError("a transaction was opened inside another one of the same thread")
        with self._count:
            self._waiting += 1
        try:
            self._turn.acquire()
        finally:
            with self._count:
                self._waiting -= 1
        self._holder = threading.get_ident()
        try:
            yield
        finally:
            self._holder = None
            self._turn.release()

    def _begin(self) -> _Batch:
        try:
            self._queue.enter()
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            self._batch = _Batch(_Log(connection))
        except BaseException as error:
            self._let_go()
            if isinstance(error, sqlite3.Error | OSError):
                raise self._not_recorded(error) from error
            raise
        return self._batch

    def _connected(self) -> sqlite3.Connection:
        found = os.stat(self._path)  # noqa: PTH116  (never opened: closing would drop SQLite's locks)
        identity = (found.st_dev, found.st_ino)
        if self._connection is None:
            self._connection = connect(self._path, "rw")
            self._identity = identity
        elif identity != self._identity:
            raise RecordError(
                f"the log {self._path} was replaced while it was in use: start runner again"
            )
        return self._connection

    @contextmanager
    def _member(self, batch: _Batch) -> Iterator[SqliteTransaction]:
        log, connection = batch.log, batch.log.connection
        before = (log.tree, log.previous)
        member = SqliteTransaction(log, self._clock, self._supervisor_id)
        try:
            connection.execute("SAVEPOINT member")
            yield member
            connection.execute("RELEASE member")
            batch.members += 1
        except BaseException as error:
            log.tree, log.previous = before
            self._undo(batch, error)
            if isinstance(error, sqlite3.Error | OverflowError):
                raise self._not_recorded(error) from error
            raise
        finally:
            member.end()

    def _undo(self, batch: _Batch, error: BaseException) -> None:
        """Take back one member; when SQLite has undone all of them, all of them failed."""
        connection = batch.log.connection
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK TO member")
                connection.execute("RELEASE member")
                return
        batch.error = self._not_recorded(error)
        batch.settled.set()

    def _settle(self, batch: _Batch) -> None:
        """Commit, or find that there is nothing to commit, and tell everybody who waits."""
        self._batch = None
        done = False
        try:
            if batch.error is None and batch.members:
                batch.log.store_tree()
                batch.log.connection.execute("COMMIT")
            done = True
        except (sqlite3.Error, RecordError) as error:
            batch.error = self._not_recorded(error)
        finally:
            if not done and batch.error is None:  # an interrupt
                batch.error = RecordError("the record was interrupted: nothing of it is in the log")
            self._let_go()
            batch.settled.set()

    def _let_go(self) -> None:
        try:
            if self._connection is not None:
                roll_back(self._connection)
        except sqlite3.Error:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        finally:
            self._queue.leave()

    def _await(self, batch: _Batch) -> None:
        while not batch.settled.wait(_RESCUE_S):
            # Who was waiting behind us was to commit, but may have been interrupted.
            with self._my_turn():
                if self._batch is not None and not self._waiting:
                    self._settle(self._batch)
        if batch.error is not None:
            raise RecordError(str(batch.error)) from batch.error

    def _not_recorded(self, error: BaseException) -> RecordError:
        if isinstance(error, RecordError):
            return error
        return RecordError(f"the record could not be written: {sentence(self._path, error)}")


def _principal(
    agent: str, parent: str | None, session: str | None, tenant: str | None, uid: int
) -> Principal:
    """Who a row of `runs` names."""
    return Principal(
        uid=uid,
        agent=unescape(agent),
        parent=None if parent is None else unescape(parent),
        session=None if session is None else unescape(session),
        tenant=None if tenant is None else unescape(tenant),
    )


def _charge(connection: sqlite3.Connection, who: Principal, calls: int, wall_us: int) -> None:
    """Charge the agent, its parent and the uid, each once."""
    agents = {who.agent} if who.parent is None else {who.agent, who.parent}
    scopes = [("agent", escape(agent)) for agent in sorted(agents)] + [("uid", str(who.uid))]
    connection.executemany(
        "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT (scope, key) DO UPDATE SET "
        "calls = calls + excluded.calls, wall_us = wall_us + excluded.wall_us",
        [(scope, key, calls, wall_us) for scope, key in scopes],
    )
