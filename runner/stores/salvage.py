"""What can still be proved of a damaged log.

First by SQLite, in order, as far as it gives rows; then, where that was not all, from the pages
themselves (`pages.py`). An event is given on when its bytes have their hash, it has the next
number, and it names the event before it: so what comes out is the beginning of the log that was,
whoever damaged it and how.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.audit.beginning import WHOLE, Beginning, archived_up_to
from runner.audit.canonical import parse_canonical
from runner.audit.merkle import Tree, leaf_hash
from runner.audit.stored_event import Row, unreadable
from runner.audit.verify import export_line, rows_of
from runner.model.event import EventKind
from runner.stores.damage import ERRORS
from runner.stores.database import connect, read_beginning
from runner.stores.pages import PageReader

_MIN_DATABASE_BYTES = 512  # a smaller file has no page, and SQLite would remove its WAL


PrunedRow = tuple[object, ...]
"""A row of the table `pruned`."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the damaged file says besides its events; nothing of it is sure."""

    beginning: Beginning | None
    """Where the log begins; None: that can't be read."""
    tree: Tree
    """The tree over the events; an empty one: that can't be read."""
    pruned: tuple[PrunedRow, ...]
    """What was archived, in order, as far as that can be read."""


def connect_damaged(path: Path) -> sqlite3.Connection:
    """Open a damaged database to be read as far as it goes. sqlite3.Error."""
    return connect(path, "ro", damaged=True)


def told(path: Path) -> Told:
    """Ask SQLite."""
    found = Told(None, Tree(), ())
    if not has_pages(path):
        return found
    try:
        with closing(connect_damaged(path)) as connection:
            with suppress(*ERRORS, ValueError, TypeError):
                row = connection.execute("SELECT size, peaks FROM tree").fetchone()
                found = replace(found, tree=Tree.from_bytes(*row))
            with suppress(*ERRORS, ValueError):
                beginning = read_beginning(connection)
                rows: list[PrunedRow] = []
                if beginning.size:
                    rows = connection.execute("SELECT * FROM pruned ORDER BY size").fetchall()
                found = replace(found, beginning=beginning, pruned=tuple(rows))
    except ERRORS:
        pass
    return found


def rows_by_sqlite(path: Path, start: int) -> Iterator[Row]:
    """Events from number `start` on, for `verify`, to the first that can't be read."""
    if not has_pages(path):
        return
    try:
        with closing(connect_damaged(path)) as connection:
            connection.text_factory = bytes
            query = "SELECT seq, leaf_hash, body FROM events WHERE seq >= ? ORDER BY seq"
            for seq, leaf, body in connection.execute(query, (start,)):
                if not isinstance(body, bytes) or leaf_hash(body) != leaf:
                    unreadable("its bytes are not those that its leaf hash was made of")
                yield from rows_of([export_line(seq, leaf, body)])
    except (*ERRORS, OverflowError) as error:
        unreadable(str(error))


class Found:
    """Events that the pages gave, in a scratch database: they may be more than memory holds."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection`: to an empty database."""
        self._connection = connection
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "CREATE TABLE found (seq INTEGER, leaf BLOB, prev TEXT, kind TEXT, body BLOB, "
            "PRIMARY KEY (seq, leaf)) WITHOUT ROWID"
        )

    def read(self, path: Path) -> None:
        """Take in what the pages have of events. OSError, sqlite3.Error."""
        self._connection.execute("BEGIN")
        with closing(PageReader(path)) as pages:
            for event in pages.events():
                value = _fields(event.body)
                if value.get("seq") != event.seq:
                    continue
                self._connection.execute(
                    "INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?, ?)",
                    (event.seq, event.leaf, value.get("prev"), value.get("kind"), event.body),
                )
        self._connection.execute("COMMIT")

    def beginning(self, told: Beginning | None) -> Beginning:
        """Where the log begins: where most of it follows, the first such place.

        `told`: what the damaged file says; None: nothing. It may be out of date as any page is, so
        the events that tell of archiving are asked as well.
        """
        candidates = [WHOLE] if told is None else [WHOLE, told]
        for (body,) in self._connection.execute(
            "SELECT body FROM found WHERE kind = ?", (EventKind.LOG_ARCHIVED.value,)
        ):
            named = archived_up_to(body)
            if named is not None:
                candidates.append(named)
        best, reached = WHOLE, 0
        for each in sorted(candidates, key=lambda each: each.size):
            if each.size >= reached and (end := self._reach(each)) > each.size:
                best, reached = each, end
        return best if told is None or told.size <= reached else told

    def _reach(self, beginning: Beginning) -> int:
        """Behind the last event that follows this."""
        seq, previous = beginning.size, beginning.last_hash
        while True:
            following = self._connection.execute(
                "SELECT leaf FROM found WHERE seq = ? AND prev = ? LIMIT 2", (seq, previous.hex())
            ).fetchall()
            if len(following) != 1:
                return seq
            seq, previous = seq + 1, following[0][0]

    def archived(self, beginning: Beginning) -> PrunedRow | None:
        """A row of `pruned` for it, from the event that says so; None: there is none."""
        for (body,) in self._connection.execute(
            "SELECT body FROM found WHERE kind = ?", (EventKind.LOG_ARCHIVED.value,)
        ):
            if archived_up_to(body) == beginning:
                data = _fields(body)["data"]
                with suppress(KeyError, TypeError, ValueError):
                    return (
                        beginning.size, data["from"], beginning.tree.to_bytes(),
                        beginning.last_hash, data["log"], data["file"],
                        bytes.fromhex(data["sha256"]),
                    )  # fmt: skip
        return None

    def rows_from(self, end: Callable[[], Beginning]) -> Iterator[Row]:
        """The events that follow `end()`, which moves on with each that was taken.

        Where two different ones would follow, none does: which was the log's is not known.
        """
        while True:
            at = end()
            bodies = self._connection.execute(
                "SELECT leaf, body FROM found WHERE seq = ? AND prev = ? LIMIT 2",
                (at.size, at.last_hash.hex()),
            ).fetchall()
            if len(bodies) != 1:
                return
            yield from rows_of([export_line(at.size, *bodies[0])])

    def lines_from(self, start: int) -> Iterator[bytes]:
        """All that was found from number `start` on, as lines of an export."""
        query = "SELECT seq, leaf, body FROM found WHERE seq >= ? ORDER BY seq"
        for seq, leaf, body in self._connection.execute(query, (start,)):
            yield export_line(seq, leaf, body)

    def size(self) -> int:
        """Behind the event with the largest number."""
        (last,) = self._connection.execute("SELECT max(seq) FROM found").fetchone()
        return 0 if last is None else int(last) + 1


def has_pages(path: Path) -> bool:
    """Whether there is a database that SQLite may be shown: of an empty one it removes the WAL."""
    try:
        return path.stat().st_size >= _MIN_DATABASE_BYTES
    except FileNotFoundError:
        return False


def _fields(body: bytes) -> dict[str, Any]:
    try:
        value = parse_canonical(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
