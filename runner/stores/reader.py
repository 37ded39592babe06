"""Reading the log: events in pages, the head, totals, proofs, verification, exports.

`open_log` reads a log that can't be written as well: a copy, a read-only disk, an auditor's view.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO

from runner.audit.beginning import Beginning
from runner.audit.event import NO_PREVIOUS
from runner.audit.merkle import Tree, consistency_proof, inclusion_proof, root_above
from runner.audit.stored_event import TELLING, Checked, Leaf, Row, unreadable
from runner.audit.verify import StoredTree, Verification, VerificationFailure, export_line, verify
from runner.errors import RequestError, StateError
from runner.model.event import AuditEvent
from runner.model.principal import Principal
from runner.model.rule import CountOf
from runner.ports import Head, Totals
from runner.stores import counting
from runner.stores.against import NOTHING, Against, stored_vouching
from runner.stores.check_worker import ROWS, undecoded
from runner.stores.checking import checked_parts
from runner.stores.damage import ERRORS, is_damage, sentence
from runner.stores.database import (
    FILE_NAME,
    check_version,
    check_whole,
    connect,
    read_beginning,
    schema_version,
)

Progress = Callable[[int, int], None]
"""Hears how many events are done now, and how many there will be."""

_PAGE = 256  # events fetched at once: a reader never holds a snapshot while its caller thinks

_LOG_ID = re.compile(r"[0-9a-f]{32}")

_COLUMNS = "seq, time, kind, run_id, body, leaf_hash, previous"  # as AuditEvent has them


class LogReader:
    """A log's events by a connection that can't write; any thread may call."""

    def __init__(self, path: Path, mode: str = "ro") -> None:
        """`path`: the database file. `mode`: SQLite's, see `database.connect`."""
        self._path = path
        self._mode = mode
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._snapshots: list[sqlite3.Connection] = []

    def events(self, run_id: str | None = None, start: int = 0) -> Iterator[AuditEvent]:
        """Events from number `start` on, of one run or all; those appended meanwhile too."""
        where = "seq >= ?" if run_id is None else "seq >= ? AND run_id = ?"
        query = f"SELECT {_COLUMNS} FROM events WHERE {where} ORDER BY seq LIMIT {_PAGE}"  # noqa: S608
        while True:
            given = (start,) if run_id is None else (start, run_id)
            with self._reading() as connection:
                page = connection.execute(query, given).fetchall()
            yield from (AuditEvent(*row) for row in page)
            if len(page) < _PAGE:
                return
            start = page[-1][0] + 1

    def head(self) -> Head:
        """Size, last hash and tree root."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT size, peaks, (SELECT leaf_hash FROM events WHERE seq = size - 1) FROM tree"
            ).fetchone()
        try:
            size, peaks, last = row
            tree = Tree.from_bytes(size, peaks)
            last_hash = NO_PREVIOUS if size == 0 else bytes(last)
        except (TypeError, ValueError):
            raise StateError(
                f"{self._path}: the log's head is damaged; `runner audit verify` tells where"
            ) from None
        return Head(size=size, last_hash=last_hash.hex(), root=tree.root.hex())

    def totals(self) -> list[Totals]:
        """Calls and wall time, by scope and key."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT scope, key, calls, wall_us FROM totals ORDER BY scope, key"
            ).fetchall()
        return [Totals(scope, key, calls, wall_us / 1e6) for scope, key, calls, wall_us in rows]

    def runs_since(self, principal: Principal, of: CountOf, since_s: float) -> int:
        """Runs that began at `since_s` or later, of whom `ports.Counter` says."""
        with self._reading() as connection:
            return counting.runs_since(connection, principal, of, since_s)

    def began_s(
        self, principal: Principal, of: CountOf, since_s: float, latest: int
    ) -> float | None:
        """When the `latest`-th latest of them began; None: there are fewer."""
        with self._reading() as connection:
            try:
                return counting.began_s(connection, principal, of, since_s, latest)
            except ValueError:
                raise StateError(
                    f"{self._path}: a run's beginning is damaged; `runner audit verify` tells where"
                ) from None

    def verify(
        self,
        archived: Iterable[Row] | None = None,
        against: Against = NOTHING,
        progress: Progress = lambda _done, _all: None,
    ) -> Verification:
        """Check every event, the tree and every checkpoint, in one snapshot and constant memory.

        `archived`: the events before those of the log, from event 0 on, to be checked as well; else
        the check begins with the log's first event, at the tree that is noted of those before it.
        `against`: what the reader knows from elsewhere. `progress`: hears how many of the log's
        events were checked, and how many there are. StateError: the log could not be read for a
        reason that is not the log's. RequestError: it can't be held against that.
        """
        with self._snapshot() as connection:
            connection.text_factory = undecoded
            try:
                beginning = read_beginning(connection)
            except (*ERRORS, ValueError) as error:
                return _nothing_read(f"where the log begins can't be read: {error}")
            try:
                vouching = stored_vouching(
                    connection, against, 0 if archived is not None else beginning.size
                )
                rows = self._rows(connection, against.since, progress)
                stored = self._stored_tree(connection)
                if archived is not None:
                    return verify(chain(archived, rows), stored, vouching=vouching)
                return verify(rows, stored, beginning=beginning, vouching=vouching)
            except ERRORS as error:
                if not is_damage(error):
                    raise self._unreadable(error) from error
                why = f"the checkpoints can't be read from {self._path}: {error}"
                return _nothing_read(why)

    def export(self, file: IO[bytes], start: int = 0) -> int:
        """Write events from `start` on as JSON lines (see `audit.verify_jsonl`), in one snapshot.

        Returns how many. OSError: `file` could not be written.
        """
        count = 0
        with self._snapshot() as connection:
            query = "SELECT seq, leaf_hash, body FROM events WHERE seq >= ? ORDER BY seq"
            try:
                for seq, leaf, body in connection.execute(query, (start,)):
                    file.write(export_line(seq, leaf, body))
                    count += 1
            except ERRORS as error:
                raise self._unreadable(error) from error
            except (TypeError, AttributeError):
                raise StateError(
                    f"{self._path}: event {start + count} is damaged; "
                    "`runner audit verify` tells how"
                ) from None
        return count

    def inclusion_proof(self, seq: int, size: int) -> list[bytes]:
        """RFC 9162 proof that event `seq` is in the tree of the first `size` events.

        RequestError: there is no such event or tree.
        """
        return self.inclusion_proofs([seq], size)[0]

    def inclusion_proofs(self, seqs: Iterable[int], size: int) -> list[list[bytes]]:
        """The same of several events; what their proofs share is read once."""
        self._check_size(size)
        root_of = cache(self._range_root)
        try:
            return [inclusion_proof(root_of, seq, size) for seq in seqs]
        except ValueError as error:
            raise RequestError(f"no proof: {error}") from None

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """RFC 9162 proof that the tree of `new` events extends that of `old`; as above."""
        self._check_size(new)
        try:
            return consistency_proof(self._range_root, old, new)
        except ValueError as error:
            raise RequestError(f"no proof: {error}") from None

    def log_id(self) -> str:
        """What the log was named when it was made: 32 hexadecimal digits. StateError: damaged."""
        with self._reading() as connection:
            first = connection.execute("SELECT body FROM events WHERE seq = 0").fetchone()
            if first is None:
                first = connection.execute(
                    "SELECT log_id FROM pruned ORDER BY size DESC LIMIT 1"
                ).fetchone()
        try:
            told = first[0]
            found = json.loads(told)["data"]["log_id"] if isinstance(told, bytes) else told
            if _LOG_ID.fullmatch(found):
                return str(found)
        except (TypeError, ValueError, KeyError):
            pass
        raise StateError(
            f"{self._path}: the log's id can't be read; `runner audit verify` tells what is wrong"
        )

    def leaf_hash(self, seq: int) -> bytes | None:
        """That of an event, as it is stored; None: there is no such event."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT leaf_hash FROM events WHERE seq = ?", (seq,)
            ).fetchone()
        return row[0] if row is not None and isinstance(row[0], bytes) else None

    def first_since(self, time: str) -> int:
        """Number of the first event at `time` (as events have it) or later; else the log's size."""
        with self._reading() as connection:
            (seq,) = connection.execute(
                "SELECT min(seq) FROM events WHERE time >= ?", (time,)
            ).fetchone()
        return self.head().size if seq is None else int(seq)

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """The connection, for a block; what SQLite raises in it becomes a StateError."""
        return self._reading()

    def open_supervisors(self) -> list[str]:
        """Ids of the supervisors that have runs open."""
        with self._reading() as connection:
            rows = connection.execute("SELECT DISTINCT supervisor FROM runs WHERE state = 'open'")
            return [supervisor_id for (supervisor_id,) in rows]

    def open_runs(self) -> frozenset[str]:
        """Ids of the runs that have not ended, whoever holds them."""
        with self._reading() as connection:
            rows = connection.execute("SELECT run_id FROM runs WHERE state = 'open'").fetchall()
        return frozenset(row[0] for row in rows)

    def hold_closed(self, timeout_s: float) -> bool:
        """Close the file and keep it closed until `let_open`; False: it is being read."""
        if not self._lock.acquire(timeout=timeout_s):
            return False
        if self._snapshots:
            self._lock.release()
            return False
        self.close()
        return True

    def let_open(self) -> None:
        """End what `hold_closed` began."""
        self._lock.release()

    def connections(self) -> list[sqlite3.Connection]:
        """Those that are open now."""
        return [*self._snapshots, *([] if self._connection is None else [self._connection])]

    def close(self) -> None:
        """Let go of the file; may be called twice, and reading opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _check_size(self, size: int) -> None:
        if size > (now := self.head().size):
            raise RequestError(f"no proof: the log has {now} events, not {size}")

    def beginning(self) -> Beginning:
        """Where the log begins. StateError: the record of that is damaged."""
        with self._reading() as connection:
            try:
                return read_beginning(connection)
            except ValueError as error:
                raise StateError(f"{self._path}: {error}; `runner audit repair` mends it") from None

    def _range_root(self, start: int, end: int) -> bytes:
        query = "SELECT leaf_hash FROM events WHERE seq >= ? AND seq < ? ORDER BY seq"
        with self._reading() as connection:

            def leaves(start: int, end: int) -> Iterator[bytes]:
                return (leaf for (leaf,) in connection.execute(query, (start, end)))

            return root_above(self.beginning().tree, leaves)(start, end)

    def _rows(
        self, connection: sqlite3.Connection, since: int, progress: Progress
    ) -> Iterator[Row | Leaf | Checked]:
        try:
            for seq, leaf, kind in connection.execute(
                "SELECT seq, leaf_hash, kind FROM events WHERE seq < ? ORDER BY seq", (since,)
            ):
                if kind in TELLING:
                    yield Row(*connection.execute(ROWS, (seq, seq)).fetchone())
                else:
                    yield Leaf(seq, leaf)
            first, last = connection.execute(
                "SELECT min(seq), max(seq) FROM events WHERE seq >= ?", (since,)
            ).fetchone()
            if first is None:
                return
            for part in checked_parts(self._path, self._mode, first, last + 1):
                yield part
                first = part.end
                progress(first, last + 1)
            for number, row in enumerate(connection.execute(ROWS, (first, last)), start=first):
                if number % _PAGE == 0:
                    progress(number, last + 1)
                yield Row(*row)
            progress(last + 1, last + 1)
        except ERRORS as error:
            if not is_damage(error):
                raise self._unreadable(error) from error
            unreadable(f"it can't be read from {self._path}: {error}")

    def _stored_tree(self, connection: sqlite3.Connection) -> StoredTree:
        try:
            rows = connection.execute("SELECT size, peaks FROM tree LIMIT 2").fetchall()
        except ERRORS as error:
            if not is_damage(error):
                raise self._unreadable(error) from error
            rows = []
        return StoredTree(*rows[0]) if len(rows) == 1 else StoredTree(None, None)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = connect(self._path, self._mode)
                yield self._connection
            except ERRORS as error:
                raise self._unreadable(error) from error

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that sees the log as it is now, however long it reads."""
        with self._lock:
            try:
                connection = connect(self._path, self._mode)
                self._snapshots.append(connection)
                connection.execute("BEGIN")
            except ERRORS as error:
                raise self._unreadable(error) from error
        try:
            yield connection
        finally:
            with self._lock:
                self._snapshots.remove(connection)
                connection.close()

    def _unreadable(self, error: Exception) -> StateError:
        return StateError(f"the log could not be read: {sentence(self._path, error)}")


def _nothing_read(why: str) -> Verification:
    return Verification(0, NO_PREVIOUS.hex(), None, VerificationFailure(0, why))


def open_log(path: Path) -> LogReader:
    """Read a log without writing anything: `path` is a state folder, or the database file.

    StateError: there is none, it is damaged, or its schema is newer than known.
    """
    path = path / FILE_NAME if path.is_dir() else path
    check_whole(path)
    if not path.is_file():
        raise StateError(f"there is no log at {path}: nothing has run with this state folder yet")
    mode = "ro"
    try:
        version = _version(path, mode)
    except sqlite3.OperationalError as error:
        # Where nothing can be written SQLite can't share a WAL; without one it needs nothing.
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size > 0:
            raise StateError(
                f"the log could not be read: {sentence(path, error)}; copy {path.name} and "
                f"{wal.name} into a folder that you can write"
            ) from error
        mode = "ro&immutable=1"
        version = _version(path, mode)
    if version == 0:
        raise StateError(f"{path} is not runner's log: name its state folder")
    check_version(version, path)
    return LogReader(path, mode)


def _version(path: Path, mode: str) -> int:
    try:
        with closing(connect(path, mode)) as connection:
            return schema_version(connection)
    except sqlite3.OperationalError:
        if "immutable" in mode:
            raise StateError(f"the log at {path} could not be opened: look at its mode") from None
        raise
    except ERRORS as error:
        raise StateError(f"the log could not be read: {sentence(path, error)}") from error
