"""Building a log's database beside everything else, of events that exist already."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from runner.audit.beginning import WHOLE, Beginning
from runner.audit.merkle import root_above
from runner.audit.stored_event import Row
from runner.audit.verify import Verification
from runner.errors import RecordError, StateError
from runner.model.event import EventDraft
from runner.stores.damage import sentence
from runner.stores.database import connect, migrate, remove
from runner.stores.home import fsync_folder
from runner.stores.removing import insert
from runner.stores.replaying import Replay
from runner.stores.transaction import write_first_event

_ROWS_AT_ONCE = 5_000  # events in a transaction: bounds the WAL


class NewLog:
    """A log that is being built; made by `new_log`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.end = self._beginning = WHOLE
        """Behind the last event so far."""
        self.replay = Replay(connection)
        self.finished = False

    def begin(self, beginning: Beginning) -> None:
        """The first event follows these; before the first `take`."""
        self.end = self._beginning = beginning

    def root_at(self, size: int) -> bytes | None:
        """Root of the tree over the first `size` events; None: they are not all there."""
        if not self._beginning.size <= size <= self.end.size:
            return None

        def leaves(start: int, end: int) -> Iterator[bytes]:
            query = "SELECT leaf_hash FROM events WHERE seq >= ? AND seq < ? ORDER BY seq"
            return (leaf for (leaf,) in self.connection.execute(query, (start, end)))

        return root_above(self._beginning.tree, leaves)(0, size)

    def take(self, rows: Iterable[Row]) -> Verification:
        """Write events that follow the last one, as far as they hold; returns what verifying told.

        The ledger is charged with what they say.
        """
        return insert(self.connection, self._counted(rows), self.end)

    def finish(self, drafts: Sequence[EventDraft] = (), now_s: float = 0.0) -> None:
        """All is there; `drafts`: events to write behind the last one, at the time `now_s`."""
        self._store_tree()
        for draft in drafts:
            write_first_event(self.connection, draft, now_s)
        self.finished = True

    def _counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        for count, row in enumerate(rows, 1):
            yield row
            # Asked for the next one: this one holds and is written.
            if not isinstance(row.leaf_hash, bytes) or not isinstance(row.body, bytes):
                raise StateError("an event that was verified has no bytes")
            self.end = Beginning(self.end.tree.appended(row.leaf_hash), row.leaf_hash)
            self.replay.add(row.body)
            if count % _ROWS_AT_ONCE == 0:
                self.connection.execute("COMMIT")
                self.connection.execute("BEGIN")

    def _store_tree(self) -> None:
        tree = self.end.tree
        self.connection.execute(
            "UPDATE tree SET size = ?, peaks = ? WHERE id = 0", (tree.size, tree.to_bytes())
        )


@contextmanager
def new_log(path: Path) -> Iterator[NewLog]:
    """Build a database at `path`, which is whole and on the disk behind the block if it called
    `finish`, and is not there if not. What is at `path` already is an unfinished one.

    StateError: it can't be written.
    """
    try:
        remove(path)
        with closing(connect(path, "rwc")) as connection:
            migrate(connection, path, lambda _: None)
            path.chmod(0o600)
            # What a power cut leaves of it is thrown away, so nothing has to be waited for.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            new = NewLog(connection)
            yield new
            if new.finished:
                connection.execute("COMMIT")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if new.finished:
            _fsync(path)
            fsync_folder(path.parent)
        else:
            remove(path)
    except (sqlite3.Error, OSError) as error:
        remove(path)
        raise StateError(f"a log could not be built: {sentence(path, error)}") from error
    except RecordError as error:
        remove(path)
        raise StateError(str(error)) from error
    except BaseException:
        remove(path)
        raise


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
