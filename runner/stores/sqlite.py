"""The default store: one SQLite database in WAL mode, in a state folder with one owner.

A transaction is on the disk when its block ends (`synchronous = FULL`). Any number of threads and
processes of one user may share a folder. A store survives `fork`: SQLite must not be carried into
a child (https://sqlite.org/howtocorrupt.html, 2.6), so its connections are closed before one and
opened again, in both, when they are needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import IO

from runner import __version__
from runner.audit.keychain import log_name
from runner.audit.redaction import Redactor
from runner.audit.verify import Verification
from runner.errors import RecordError, RunnerError, StateError
from runner.model.checkpoints import CheckpointRules, Unsent
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.keeping import KeepBounds
from runner.model.kill import Kill
from runner.model.principal import Principal
from runner.model.rule import CountOf
from runner.model.swept import Swept
from runner.ports import Clock, Head, Totals
from runner.stores import kills
from runner.stores.books import SqliteBooks
from runner.stores.checkpoints import Checkpointer, has_begun, key_in_force, signing_trouble
from runner.stores.damage import ERRORS, sentence
from runner.stores.database import (
    BUSY_TIMEOUT_S,
    FILE_NAME,
    MIGRATIONS,
    check_whole,
    connect,
    migrate,
    remove,
    schema_version,
)
from runner.stores.discarding import discard, looking
from runner.stores.home import fsync_folder, prepare_home
from runner.stores.kept import KeptOutput
from runner.stores.keys import KeyFolder
from runner.stores.liveness import LiveLock, claimed, known_supervisors
from runner.stores.queue import WriterQueue
from runner.stores.reader import LogReader
from runner.stores.redacting import redactor_of
from runner.stores.sending import Sender, unsent
from runner.stores.stored_checkpoint import newest
from runner.stores.transaction import SqliteTransaction, write_first_event
from runner.stores.writer import Writer

QUEUE_NAME = "queue.lock"

_FORK_WAIT_S = 5.0  # for the transactions of other threads; each takes milliseconds


def create(
    home: Path,
    clock: Clock,
    rules: CheckpointRules = CheckpointRules(),  # noqa: B008  (frozen)
    *,
    redactor: Redactor | None = None,
) -> SqliteStore:
    """Open the state folder `home`, which is made and filled where it is missing.

    `rules`: when checkpoints are made, and where they are sent. `redactor`: what every event
    passes; None: one that knows the shapes of secrets and no more. StateError: the folder can't be
    used, or the log in it can't be opened; see `prepare_home`.
    """
    home = prepare_home(home)
    _open_database(home, clock)
    return SqliteStore(home, clock, rules, redactor or redactor_of(home))


def _open_database(
    home: Path, clock: Clock, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Make or migrate the database, one process at a time."""
    path = home / FILE_NAME
    keys = KeyFolder(home)

    def first_event(connection: sqlite3.Connection) -> None:
        log_id = secrets.token_hex(16)
        data = {
            "log_id": log_id,
            "runner": __version__,
            "uid": os.geteuid(),
            "key": keys.make(log_name(log_id)),
        }
        write_first_event(connection, EventDraft(EventKind.LOG_CREATED, data), clock.now())

    try:
        check_whole(path)
        if not path.exists():
            with _turn(home):
                check_whole(path)  # a repair may have begun meanwhile
                if not path.exists():
                    _create_database(path, first_event, migrations)
        with closing(connect(path, "rw")) as connection:
            if schema_version(connection) == len(migrations) and (
                migrations is not MIGRATIONS or has_begun(connection)
            ):
                return
            with _turn(home):
                migrate(connection, path, first_event, migrations)
                if migrations is MIGRATIONS:
                    Checkpointer(keys, CheckpointRules(), clock).open_log(connection)
    except (*ERRORS, OSError) as error:
        raise StateError(f"the log can't be opened: {sentence(path, error)}") from error
    except RecordError as error:
        raise StateError(str(error)) from error


def _create_database(
    path: Path,
    first_event: Callable[[sqlite3.Connection], None],
    migrations: Sequence[Sequence[str]],
) -> None:
    """Whole, with its first event, or not at all: a file that is empty is a damaged one."""
    new = path.with_name(f"{path.name}.new")
    remove(new)
    with closing(connect(new, "rwc")) as connection:
        new.chmod(0o600)  # by name: opening and closing it would drop SQLite's locks
        migrate(connection, new, first_event, migrations)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    new.rename(path)
    fsync_folder(path.parent)


@contextmanager
def _turn(home: Path) -> Iterator[None]:
    queue = WriterQueue(home / QUEUE_NAME, BUSY_TIMEOUT_S)
    try:
        queue.enter()
        yield
    finally:
        queue.leave()
        queue.close()


class SqliteStore(SqliteBooks):
    """`ports.Store` over one state folder, for all threads of a process; made by `create`."""

    def __init__(
        self, home: Path, clock: Clock, rules: CheckpointRules, redactor: Redactor
    ) -> None:
        self.home = home
        self._redactor = redactor
        self._rules = rules
        self._clock = clock
        self._live: LiveLock | None = None
        self._live_guard = threading.Lock()
        self._kept = KeptOutput(home / "runs")
        self._closed = False
        self._broken_by_fork = False
        self._reset()
        _forks.stores.add(self)

    def transaction(self) -> AbstractContextManager[SqliteTransaction]:
        """One durable, all-or-nothing step. RecordError if it can't be made durable."""
        self._check_usable()
        return self._writer.transaction()

    def recover(self) -> list[str]:
        """Close, as `unknown`, the runs whose supervisor is dead; returns their ids.

        Safe in several processes at once: each run gets exactly one event.
        """
        self._check_usable()
        recovered: list[str] = []
        folder = self.home / "live"
        holders = set(self._reader.open_supervisors())
        died = False
        own = None if self._live is None else self._live.supervisor_id
        for supervisor_id in sorted(holders.union(known_supervisors(folder)) - {own}):
            with claimed(folder, supervisor_id) as dead:
                died = died or dead
                if dead and supervisor_id in holders:
                    with self._writer.transaction() as transaction:
                        found = transaction.recover_runs(supervisor_id)
                    recovered += found
        if died:
            self._cover()
        return recovered

    def checkpoint(self) -> str:
        """The newest checkpoint, over all events; made now if it was over fewer."""
        self._check_usable()
        self._cover()
        with self._reader.reading() as connection:
            last, trouble = newest(connection), signing_trouble(connection)
        if last is None or trouble is not None:
            raise RecordError(trouble or "no checkpoint could be made")
        return last.note

    def send_checkpoints(self) -> Sequence[Unsent]:
        """Send the newest one to whoever does not have it, now; what did not arrive."""
        self._check_usable()
        self._sender.send()
        return self.unsent()

    def unsigned(self) -> str | None:
        """Why checkpoints can't be signed, as a sentence; None: they can, as far as is known."""
        self._check_usable()
        with self._reader.reading() as connection:
            try:
                self._checkpointer.check_key(connection)
            except RecordError as error:
                return str(error)
            return signing_trouble(connection)

    def unsent(self) -> Sequence[Unsent]:
        """What the destinations of checkpoints do not have."""
        self._check_usable()
        with self._reader.reading() as connection:
            return unsent(connection, self._rules.to)

    def key(self) -> str:
        """The vkey that signs checkpoints now."""
        self._check_usable()
        with self._reader.reading() as connection:
            return key_in_force(connection) or ""

    def rotate_key(self, *, lost: bool = False) -> str:
        """Let a new key sign from here on; returns its vkey. RecordError: nothing has changed.

        `lost`: the private key is not there any more, so it can't sign that another follows it.
        """
        self._check_usable()
        with self._writer.transaction() as transaction:
            _, new = self._checkpointer.rotate(transaction.log, lost=lost)
        return new

    def events(self, run_id: str | None = None, start: int = 0) -> Iterator[AuditEvent]:
        """Events in order from sequence number `start`, of one run or all."""
        self._check_usable()
        return self._reader.events(run_id, start)

    def head(self) -> Head:
        """Size, last hash and tree root."""
        self._check_usable()
        return self._reader.head()

    def totals(self) -> Sequence[Totals]:
        """Calls and wall time per agent and per uid."""
        self._check_usable()
        return self._reader.totals()

    def runs_since(self, principal: Principal, of: CountOf, since_s: float) -> int:
        """Runs of the principal's that began at `since_s` or later."""
        self._check_usable()
        return self._reader.runs_since(self.told(principal), of, since_s)

    def began_s(
        self, principal: Principal, of: CountOf, since_s: float, latest: int
    ) -> float | None:
        """When the `latest`-th latest of them began; None: there are fewer."""
        self._check_usable()
        return self._reader.began_s(self.told(principal), of, since_s, latest)

    def fingerprint(self, data: bytes) -> str:
        """A keyed digest."""
        return self._redactor.fingerprint(data)

    def killed_runs(self) -> Mapping[str, Kill]:
        """Open runs that have to end."""
        with self._connected() as connection:
            return kills.killed_runs(connection)

    def verify(self) -> Verification:
        """Check every event, the tree and every checkpoint, in one snapshot."""
        self._check_usable()
        return self._reader.verify()

    def export(self, file: IO[bytes], start: int = 0) -> int:
        """Write events from `start` on as JSON lines; returns how many."""
        self._check_usable()
        return self._reader.export(file, start)

    @property
    def reader(self) -> LogReader:
        """Everything that only reads, proofs too."""
        self._check_usable()
        return self._reader

    def keep_output(self, run_id: str, stream: str, data: bytes) -> None:
        """Append to what is kept of a run's `stdout`, `stderr` or `program` (its text)."""
        self._kept.append(run_id, stream, data)

    def kept_output(self, run_id: str, stream: str) -> bytes | None:
        """What was kept, or None when there is nothing by that name."""
        return self._kept.read(run_id, stream)

    def discard_outdated(
        self, bounds: KeepBounds, *, not_within_s: float = 0.0, most: int | None = None
    ) -> Swept:
        """Drop kept output that is too old or too much, and outdated counters; see the port."""
        self._check_usable()
        now_s = self._clock.now()
        with looking(self.home, now_s, not_within_s) as due:
            if not due:
                return Swept()
            with self._writer.transaction() as transaction:
                transaction.forget_outdated()
            return discard(
                self._kept,
                bounds,
                now_s,
                open_runs=self._reader.open_runs,
                transaction=self.transaction,
                most=most,
            )

    def close(self) -> None:
        """Let go of the files; may be called twice. Runs still open are then anybody's to close."""
        if self._closed:
            return
        self._closed = True
        _forks.stores.discard(self)
        if self._broken_by_fork:
            return
        with contextlib.suppress(RunnerError):  # all is on the disk; the next process makes it
            self._cover()
            self._sender.finish()
        self._reader.close()  # first: the last one to close tidies up, which takes a writer
        self._writer.close()
        with self._live_guard:
            if self._live is not None:
                self._live.release()
                self._live = None

    def told(self, principal: Principal) -> Principal:
        """Who it is, as events and the ledger name it."""
        return self._redactor.principal(principal)

    def told_text(self, text: str) -> str:
        """A name or a reason, as events and the ledger have it."""
        return self._redactor.text(text)

    def _connected(self) -> AbstractContextManager[sqlite3.Connection]:
        self._check_usable()
        return self._reader.reading()

    def _now_s(self) -> float:
        return self._clock.now()

    def _cover(self) -> None:
        """Make a checkpoint if there are events past the last one."""
        with self._reader.reading() as connection:
            last = newest(connection)
        if last is None or last.size != self._reader.head().size:
            with self._writer.transaction() as transaction:
                transaction.log.checkpoint_wanted = True

    def _reset(self) -> None:
        path = self.home / FILE_NAME
        self._queue = WriterQueue(self.home / QUEUE_NAME, BUSY_TIMEOUT_S)
        self._checkpointer = Checkpointer(KeyFolder(self.home), self._rules, self._clock)
        self._writer = Writer(
            path,
            self._queue,
            self._clock,
            self._supervisor_id,
            self._checkpointer,
            lambda: self._sender.wake(),  # noqa: PLW0108  (made below)
            self._redactor,
        )
        self._reader = LogReader(path)
        self._sender = Sender(
            self._rules.to, self._reader.reading, self._writer.transaction, self._clock
        )

    def _supervisor_id(self) -> str:
        """This process's, with its sign of life in place before the first run is opened."""
        with self._live_guard:
            if self._live is None:
                try:
                    self._live = LiveLock.take(self.home / "live")
                except OSError as error:
                    what = sentence(self.home / "live", error)
                    raise RecordError(f"a run can't be opened: {what}") from error
            return self._live.supervisor_id

    def _check_usable(self) -> None:
        if self._closed:
            raise StateError(f"the store {self.home} is closed: open it again")
        if self._broken_by_fork:
            raise StateError(
                f"the store {self.home} can't be used in a process that was forked while it was "
                "in use: open it in a process that was started clean"
            )

    def before_fork(self) -> bool:
        """Close what a child must not inherit, and hold it closed; False: it is in use."""
        if not self._writer.take_turn(_FORK_WAIT_S):
            return False
        self._writer.close_in_turn()
        if self._reader.hold_closed(_FORK_WAIT_S):
            return True
        self._writer.give_turn()
        return False

    def after_fork_in_parent(self, held: bool) -> None:
        """Go on. `held`: what `before_fork` said."""
        if held:
            self._reader.let_open()
            self._writer.give_turn()

    def after_fork_in_child(self, held: bool) -> None:
        """Start over, as a supervisor of its own; the parent's sign of life stays the parent's."""
        live, self._live = self._live, None
        if live is not None:
            live.forget()
        self._live_guard = threading.Lock()
        if held:
            self._reset()
            return
        self._broken_by_fork = True
        self._queue.close()
        for connection in self._writer.connections() + self._reader.connections():
            # Never closed, not even when the process ends: that would tamper with the parent's.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


class _Forks:
    """What happens to the stores of this process when it forks (`os.register_at_fork`)."""

    def __init__(self) -> None:
        self.stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
        self._held: list[tuple[SqliteStore, bool]] = []

    def before(self) -> None:
        self._held = [(store, store.before_fork()) for store in list(self.stores)]

    def in_parent(self) -> None:
        held, self._held = self._held, []
        for store, closed in held:
            store.after_fork_in_parent(closed)

    def in_child(self) -> None:
        held, self._held = self._held, []
        for store, closed in held:
            store.after_fork_in_child(closed)


_forks = _Forks()
os.register_at_fork(
    before=_forks.before, after_in_parent=_forks.in_parent, after_in_child=_forks.in_child
)
