"""Writing the log: one transaction at a time, durable together with the ledger, or not at all.

Inside a process threads share commits: a transaction that finds others waiting leaves the commit,
and with it the wait for the disk, to the last of them (group commit). Each but
the first stands in a savepoint of its own, so one that fails takes nothing with it, and none
returns before the commit did.
Between processes writers take turns (`queue.py`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.audit.redaction import Redactor
from runner.errors import RecordError
from runner.ports import Clock
from runner.stores.checkpoints import Checkpointer
from runner.stores.damage import ERRORS, sentence
from runner.stores.database import connect, roll_back
from runner.stores.queue import WriterQueue
from runner.stores.transaction import End, LogEnd, SqliteTransaction

_BATCH = 64  # transactions in one commit; more would let other processes wait too long

_RESCUE_S = 0.1  # how long to wait before looking whether those who were to commit still come


class _Batch:
    """The transactions of one commit."""

    __slots__ = ("error", "log", "members", "settled", "version", "waiters")

    def __init__(self, log: LogEnd, version: int) -> None:
        self.log = log
        self.version = version
        """Of the database, as this connection counts what others commit."""
        self.members = 0
        """How many succeeded and wait for the commit."""
        self.settled = False
        self.waiters: list[threading.Lock] = []
        """Each is held, and released once this is settled: the cheapest way to wake a thread."""
        self.error: RecordError | None = None

    def settle(self) -> None:
        """Tell everybody who waits; by who holds the turn."""
        self.settled = True
        for each in self.waiters:
            each.release()
        self.waiters.clear()


class Writer:
    """The one writing connection of a process. RecordError: what can't be made durable."""

    def __init__(  # noqa: PLR0917
        self,
        path: Path,
        queue: WriterQueue,
        clock: Clock,
        supervisor_id: Callable[[], str],
        checkpointer: Checkpointer,
        checkpoint_made: Callable[[], None],
        redactor: Redactor,
    ) -> None:
        """`supervisor_id`: called when a run is opened, for the id that the run is held under.

        `checkpoint_made`: called once one is durable. `redactor`: what every event passes before
        it is sealed.
        """
        self._redactor = redactor
        self._path = path
        self._queue = queue
        self._clock = clock
        self._supervisor_id = supervisor_id
        self._checkpointer = checkpointer
        self._check_key = checkpointer.check_key
        self._checkpoint_made = checkpoint_made
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._turn = threading.Lock()
        self._holder: int | None = None
        """Thread that holds `_turn`; written by it alone."""
        self._count = threading.Lock()
        self._waiting = 0
        self._batch: _Batch | None = None
        self._known: tuple[int, End] | None = None
        """Where the log ended at the last commit, and the database's version then."""

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        """One durable, all-or-nothing step; what its block raises undoes it and passes on."""
        # All in one: every event passes here, and a context manager costs as much as a statement.
        told: threading.Lock | None = None
        self._enter()
        try:
            batch = self._batch or self._begin()
            try:
                log, shared = batch.log, batch.members > 0  # else all that it takes back is its own
                before = log.end
                member = SqliteTransaction(log, self._clock, self._supervisor_id, self._check_key)
                try:
                    if shared:
                        log.connection.execute("SAVEPOINT member")
                    yield member
                    if shared:
                        log.connection.execute("RELEASE member")
                    batch.members += 1
                except BaseException as error:
                    log.end = before
                    if shared:
                        self._undo(batch, error)
                    if isinstance(error, (*ERRORS, OverflowError)):
                        raise self._not_recorded(error) from error
                    raise
                finally:
                    member.end()
            finally:
                if batch.settled or not (self._waiting and 0 < batch.members < _BATCH):
                    self._settle(batch)
                else:
                    told = threading.Lock()
                    told.acquire()
                    batch.waiters.append(told)
        finally:
            self._leave()
        if told is not None:
            self._await(told)
        if batch.error is not None:
            raise RecordError(str(batch.error)) from batch.error

    def close(self) -> None:
        """Commit what waits and let go of the file; the next transaction opens it again."""
        self._enter()
        try:
            self.close_in_turn()
        finally:
            self._leave()

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

    def _enter(self) -> None:
        """Wait for the turn."""
        me = threading.get_ident()
        if self._holder == me:
            raise RecordError("a transaction was opened inside another one of the same thread")
        if not self._turn.acquire(blocking=False):
            with self._count:
                self._waiting += 1
            try:
                self._turn.acquire()
            finally:
                with self._count:
                    self._waiting -= 1
        self._holder = me

    def _leave(self) -> None:
        self._holder = None
        self._turn.release()

    def _begin(self) -> _Batch:
        try:
            self._queue.enter()
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            # It stays as it is when this connection commits (https://sqlite.org/pragma.html).
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            known = None if self._known is None or self._known[0] != version else self._known[1]
            self._known = None  # until it is known what became of this
            self._batch = _Batch(LogEnd(connection, self._redactor, known), version)
        except BaseException as error:
            self._let_go()
            if isinstance(error, (*ERRORS, OSError)):
                raise self._not_recorded(error) from error
            raise
        return self._batch

    def _connected(self) -> sqlite3.Connection:
        found = os.stat(self._path)  # noqa: PTH116  (never opened: closing would drop SQLite's locks)
        identity = (found.st_dev, found.st_ino)
        if self._connection is None:
            self._known = None
            self._connection = connect(self._path, "rw")
            self._identity = identity
        elif identity != self._identity:
            raise RecordError(
                f"the log {self._path} was replaced while it was in use: start runner again"
            )
        return self._connection

    def _undo(self, batch: _Batch, error: BaseException) -> None:
        """Take back one member; when SQLite has undone all of them, all of them failed."""
        connection = batch.log.connection
        with contextlib.suppress(*ERRORS):
            if connection.in_transaction:
                connection.execute("ROLLBACK TO member")
                connection.execute("RELEASE member")
                return
        batch.error = self._not_recorded(error)
        batch.settle()

    def _settle(self, batch: _Batch) -> None:
        """Commit, or find that there is nothing to commit, and tell everybody who waits."""
        self._batch = None
        done = made = False
        try:
            if batch.error is None and batch.members:
                made = self._checkpointer.before_commit(batch.log)
                batch.log.store_tree()
                batch.log.connection.execute("COMMIT")
                self._known = batch.version, batch.log.end
                if made:
                    self._checkpointer.after_commit(batch.log.connection)
            done = True
        except (*ERRORS, RecordError) as error:
            batch.error = self._not_recorded(error)
        finally:
            if not done and batch.error is None:  # an interrupt
                batch.error = RecordError("the record was interrupted: nothing of it is in the log")
            self._let_go()
            batch.settle()
        if made and batch.error is None:
            self._checkpoint_made()

    def _let_go(self) -> None:
        try:
            if self._connection is not None:
                roll_back(self._connection)
        except ERRORS:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        finally:
            self._queue.leave()

    def _await(self, told: threading.Lock) -> None:
        while not told.acquire(timeout=_RESCUE_S):
            # Who was waiting behind us was to commit, but may have been interrupted.
            self._enter()
            try:
                if self._batch is not None and not self._waiting:
                    self._settle(self._batch)
            finally:
                self._leave()

    def _not_recorded(self, error: BaseException) -> RecordError:
        if isinstance(error, RecordError):
            return error
        return RecordError(f"the record could not be written: {sentence(self._path, error)}")
