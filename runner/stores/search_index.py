"""The search index: which events have a facet, in an SQLite file of its own, `search.db`.

A view of the log and no part of it. It says where to look; what is found is read from the log, so
whoever changes the index can hide events from a search and can't invent one. Nothing else is ever
decided by it, and it may be deleted at any time. It names the log that it is of and the leaf hash
of the last event that it holds; where that is not the log's, it is made anew.

Events stand in blocks (`postings.py`). Table `terms` numbers the facets, `postings` has for each
term and block the events, `blocks` the earliest and latest time in each.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.audit.query import Query, Wanted
from runner.stores.database import connect
from runner.stores.postings import BLOCK, offsets, unpacked, within

FILE_NAME = "search.db"

_VERSION = 1
"""Of what is indexed, and how; goes up with each change, and older files are made anew."""

_WINDOWS = (4, 256)  # blocks that are looked at together: at first, and at most
_TERMS_AT_ONCE = 500  # in one statement; SQLite takes 32,766 (https://sqlite.org/limits.html, 9)

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")

_SCHEMA = {
    "blocks": "CREATE TABLE blocks (block INTEGER PRIMARY KEY, earliest TEXT, latest TEXT)",
    "postings": (
        "CREATE TABLE postings (term INTEGER, block INTEGER, events BLOB, "
        "PRIMARY KEY (term, block)) WITHOUT ROWID"
    ),
    "state": (
        "CREATE TABLE state (id INTEGER PRIMARY KEY, log_id TEXT, start INTEGER, size INTEGER, "
        "last_hash BLOB)"
    ),
    "terms": "CREATE TABLE terms (id INTEGER PRIMARY KEY, field INTEGER, text TEXT)",
    "terms_by_text": "CREATE UNIQUE INDEX terms_by_text ON terms (field, text)",
}


class IndexDamagedError(Exception):
    """The file is not what it should be; it is made anew."""


@dataclass(frozen=True, slots=True)
class IndexState:
    """What an index holds: the events from `start` up to, not including, `size`."""

    log_id: str
    start: int
    size: int
    last_hash: bytes
    """Leaf hash of the last one."""


def open_file(home: Path) -> sqlite3.Connection:
    """The index's file, made if it is missing, by one process at a time.

    OSError, sqlite3.Error, IndexDamagedError: it can't be used.
    """
    path = home / FILE_NAME
    # SQLite would follow a link, and give a new file the umask's mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = connect(path, "rw")
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        # A power cut may lose the last of it, which is then indexed again, and damages nothing.
        connection.execute("PRAGMA synchronous = NORMAL")
        found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL"))
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not found and version == 0:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.values():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        elif (found, version) != (_SCHEMA, _VERSION):
            raise IndexDamagedError("its tables are not those of this version")
    except BaseException:
        connection.close()
        raise
    return connection


def read_state(connection: sqlite3.Connection) -> IndexState | None:
    """What it holds; None: nothing. IndexDamagedError."""
    row = connection.execute("SELECT log_id, start, size, last_hash FROM state").fetchone()
    if row is None:
        return None
    if [*map(type, row)] != [str, int, int, bytes] or not 0 <= row[1] < row[2]:
        raise IndexDamagedError("what it says of itself is no state")
    return IndexState(*row)


class SearchIndex:
    """An index that holds all of the log, as it was when it was caught up with."""

    def __init__(self, connection: sqlite3.Connection, start: int, size: int) -> None:
        """It is asked about the events from `start` up to, not including, `size`."""
        self._connection = connection
        self.start = start
        self.size = size

    def positions(self, query: Query, *, newest_first: bool) -> Iterator[list[int]]:
        """Numbers of events among which is each that matches, in order, some at a time.

        sqlite3.Error, IndexDamagedError.
        """
        first, last = self._span(query)
        terms = [self._terms(name, wanted) for name, wanted in query.wanted.items()]
        if not all(terms):
            return
        terms.sort(key=len)
        width = _WINDOWS[0]
        while first <= last:
            low = max(first, last - width + 1) if newest_first else first
            high = last if newest_first else min(last, first + width - 1)
            found = self._window(terms, low, high)
            if found:
                yield [
                    block * BLOCK + offset
                    for block in sorted(found, reverse=newest_first)
                    for offset in offsets(found[block], newest_first=newest_first)
                ]
            first, last = (first, low - 1) if newest_first else (high + 1, last)
            width = min(2 * width, _WINDOWS[1])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _span(self, query: Query) -> tuple[int, int]:
        """The first and the last block that can hold a match, as far as time tells.

        A clock that was set back makes it wider, never wrong: each block has its own bounds.
        """
        first, last = self.start // BLOCK, (self.size - 1) // BLOCK
        rows = self._connection.execute(
            "SELECT block, earliest, latest FROM blocks WHERE block BETWEEN ? AND ? ORDER BY block",
            (first, last),
        ).fetchall()
        # All of them, for a damage that SQLite does not notice would be a search that finds less.
        if [row[0] for row in rows] != [*range(first, last + 1)]:
            raise IndexDamagedError("it lacks blocks")
        found = [
            block
            for block, earliest, latest in rows
            if _is_span(earliest, latest)
            and (query.since is None or latest >= query.since)
            and (query.until is None or earliest < query.until)
        ]
        return (found[0], found[-1]) if found else (1, 0)

    def _terms(self, field: int, wanted: Wanted) -> list[int]:
        """Numbers of the terms that are wanted."""
        if wanted.has_patterns:
            rows = self._connection.execute("SELECT id, text FROM terms WHERE field = ?", (field,))
            return sorted({i for i, text in rows if isinstance(text, str) and text in wanted})
        found: set[int] = set()
        for text in wanted.exact:
            found.update(
                row[0]
                for row in self._connection.execute(
                    "SELECT id FROM terms WHERE field = ? AND text = ?", (field, text)
                )
            )
        return sorted(found)

    def _window(self, terms: Sequence[Sequence[int]], low: int, high: int) -> dict[int, int]:
        """Blocks from `low` to `high` with those of their events that have one of each terms."""
        met = {block: self._bounds(block) for block in range(low, high + 1)}
        for alternatives in terms:
            joined: dict[int, int] = {}
            for at in range(0, len(alternatives), _TERMS_AT_ONCE):
                some = alternatives[at : at + _TERMS_AT_ONCE]
                rows = self._connection.execute(
                    "SELECT block, events FROM postings WHERE term IN "  # noqa: S608  (only marks)
                    f"({', '.join('?' * len(some))}) AND block BETWEEN ? AND ?",
                    (*some, min(met), max(met)),
                )
                for block, events in rows:
                    if block in met:
                        joined[block] = joined.get(block, 0) | _unpacked(events)
            met = {block: both for block in met if (both := met[block] & joined.get(block, 0))}
            if not met:
                break
        return met

    def _bounds(self, block: int) -> int:
        """The events of a block that there are."""
        return within(self.start - block * BLOCK, min(self.size - block * BLOCK, BLOCK))


def _is_span(earliest: object, latest: object) -> bool:
    """True. IndexDamagedError: they are no times, in this order."""
    texts = [each for each in (earliest, latest) if isinstance(each, str) and _TIME.fullmatch(each)]
    if len(texts) == 2 and texts == sorted(texts):
        return True
    raise IndexDamagedError("the times of a block in it are none")


def _unpacked(events: object) -> int:
    try:
        if isinstance(events, bytes):
            return unpacked(events)
    except ValueError:
        pass
    raise IndexDamagedError("a list of events in it is none")
