"""Catching up: what the log has and the search index does not is read once and noted.

Whoever searches does it, one process at a time (`search.lock`, by flock(2)). It is committed piece
by piece, so who is killed loses a second of work, and readers see a whole index at any time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from runner.audit.facets import Facet, facets
from runner.errors import StateError
from runner.stores.damage import ERRORS
from runner.stores.database import remove, roll_back
from runner.stores.home import network_file_system
from runner.stores.postings import BLOCK, offsets, packed, unpacked
from runner.stores.reader import LogReader, Progress
from runner.stores.search_index import (
    FILE_NAME,
    IndexDamagedError,
    IndexState,
    SearchIndex,
    open_file,
    read_state,
)

LOCK_NAME = "search.lock"

Tell = Callable[[str], None]
_PAGE = 512  # events read at once; some take 60 kB
_COMMIT_BLOCKS = 16  # 65,536 events: about a second of work
_TERMS_KEPT = 200_000  # numbers of terms in memory, some 40 MB; looked up again when dropped
_FORGOTTEN_BLOCKS = 16  # so much of an index is of events that went to an archive: it is dropped

_SILENT_S = 1.0
_POLL_S = 0.02

_TABLES = ("blocks", "postings", "state", "terms")


@contextmanager
def caught_up(
    home: Path, log: LogReader, tell: Tell, progress: Progress = lambda _done, _all: None
) -> Iterator[SearchIndex | None]:
    """The index of the log of `home`, with all that is in the log now; None: it can't be used.

    `tell`: is told, in a sentence, why it can't be used or is made anew. StateError: the log can't
    be read.
    """
    index = None
    try:
        with _alone(home, tell):
            index = _opened(home, log, tell, progress)
    except (OSError, *ERRORS, IndexDamagedError) as error:
        tell(f"the search index can't be used, so the whole log is read: {_sentence(home, error)}")
    try:
        yield index
    finally:
        if index is not None:
            index.close()


def forget(home: Path) -> None:
    """Remove the index; the next search makes it anew. OSError: it can't be removed."""
    with _alone(home, lambda _: None):
        remove(home / FILE_NAME)


def _opened(home: Path, log: LogReader, tell: Tell, progress: Progress) -> SearchIndex:
    try:
        return _current(home, log, tell, progress)
    except (*ERRORS, IndexDamagedError) as error:
        if isinstance(error, sqlite3.OperationalError):  # a full or read-only disk
            raise
        tell(f"the search index is damaged and is made anew ({error})")
        remove(home / FILE_NAME)
        return _current(home, log, tell, progress)


def _current(home: Path, log: LogReader, tell: Tell, progress: Progress) -> SearchIndex:
    connection = open_file(home)
    try:
        return _Catching(connection, log, tell, progress).index()
    except BaseException:
        connection.close()
        raise


@contextmanager
def _alone(home: Path, tell: Tell) -> Iterator[None]:
    """One process at a time, and only where files of ours can stand."""
    if home.stat().st_uid != os.geteuid():  # files of ours there would lock their owner out
        raise PermissionError(0, "the state folder is somebody else's", str(home))
    if (remote := network_file_system(home)) is not None:
        raise OSError(0, f"the state folder is on a network file system ({remote})", str(home))
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(home / LOCK_NAME, flags, 0o600)
    try:
        _wait_for(fd, tell)
        yield
    finally:
        os.close(fd)


def _wait_for(fd: int, tell: Tell) -> None:
    """Lock it when it is free; whoever waits for longer is told what for."""
    until_s: float | None = time.monotonic() + _SILENT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if until_s is not None and time.monotonic() > until_s:
                tell("another search brings the index up to date; this one waits for it")
                until_s = None
            time.sleep(_POLL_S)
        else:
            return


def _sentence(home: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or home / FILE_NAME}: {error.strerror}"
    return f"{home / FILE_NAME}: {error}"


class _Catching:
    """One process catching an index up with the log."""

    def __init__(
        self, connection: sqlite3.Connection, log: LogReader, tell: Tell, progress: Progress
    ) -> None:
        self._connection = connection
        self._log = log
        self._tell = tell
        self._progress = progress
        self._ids: dict[Facet, int] = {}
        self._block = -1
        self._events: defaultdict[int, list[int]] = defaultdict(list)
        self._earliest = self._latest = ""

    def index(self) -> SearchIndex:
        size, start = self._log.head().size, self._log.beginning().size
        log_id = self._log.log_id()
        state = read_state(self._connection)
        if state is not None and (why := self._not_of(state, log_id, start, size)) is not None:
            self._tell(f"the search index {why}, so it is made anew")
            self._empty()
            state = None
        if state is None:
            state = IndexState(log_id, start, start, b"")
        if start // BLOCK - state.start // BLOCK >= _FORGOTTEN_BLOCKS:
            state = self._forget_before(state, start)
        if state.size < size:
            state = self._catch_up(state, size)
        return SearchIndex(self._connection, max(start, state.start), state.size)

    def _not_of(self, state: IndexState, log_id: str, start: int, size: int) -> str | None:
        """Why an index can't be gone on with, in a clause; None: it can."""
        if state.log_id != log_id:
            return "is of another log"
        if state.start > start:
            return "begins behind the log, to which archived events came back"
        if state.size > size:
            return "has events that the log does not have"
        if state.size < start:
            return "ends before the log begins, which was archived in part"
        if state.size == start:
            last = self._log.beginning().last_hash
        else:
            last = self._log.leaf_hash(state.size - 1) or b""
        return None if last == state.last_hash else "is of a log with other events"

    def _empty(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608  (ours)
        self._connection.execute("COMMIT")

    def _forget_before(self, state: IndexState, start: int) -> IndexState:
        """Drop what is of archived events; terms stay."""
        self._connection.execute("BEGIN IMMEDIATE")
        for table in ("postings", "blocks"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE block < ?",  # noqa: S608  (ours)
                (start // BLOCK,),
            )
        state = IndexState(state.log_id, start, state.size, state.last_hash)
        self._write_state(state)
        self._connection.execute("COMMIT")
        return state

    def _catch_up(self, state: IndexState, size: int) -> IndexState:
        began, blocks = state.size, 0
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for start in range(state.size - state.size % BLOCK, size, BLOCK):
                span = max(start, state.size), min(start + BLOCK, size)
                if (last := self._note_all(*span)) is None:
                    continue  # of a damaged log a block may be missing
                self._write_block()
                state = IndexState(state.log_id, state.start, *last)
                blocks += 1
                if blocks % _COMMIT_BLOCKS == 0:
                    self._write_state(state)
                    self._connection.execute("COMMIT")
                    self._progress(state.size - began, size - began)
                    self._connection.execute("BEGIN IMMEDIATE")
            if state.size > began:
                self._write_state(state)
            self._connection.execute("COMMIT")
        except BaseException:
            roll_back(self._connection)
            raise
        self._progress(size - began, size - began)
        return state

    def _note_all(self, start: int, end: int) -> tuple[int, bytes] | None:
        """Note events of one block, from `start` up to, not including, `end`.

        The number behind the last one and its leaf hash; None: there is none.
        """
        last = None
        for low in range(start, end, _PAGE):
            with self._log.reading() as connection:
                page = connection.execute(
                    "SELECT seq, body, leaf_hash FROM events "
                    "WHERE seq >= ? AND seq < ? ORDER BY seq",
                    (low, min(low + _PAGE, end)),
                ).fetchall()
            for seq, body, leaf_hash in page:
                self._note(seq, body)
                last = seq + 1, leaf_hash
        if last is not None and not isinstance(last[1], bytes):
            raise StateError(
                f"event {last[0] - 1} has no hash; `runner audit verify` tells what is wrong"
            )
        return last

    def _note(self, seq: int, body: object) -> None:
        block, offset = divmod(seq, BLOCK)
        if block != self._block:
            self._block, self._earliest, self._latest = block, "", ""
        with suppress(ValueError):  # damaged: `runner audit verify` tells
            self._note_facets(offset, orjson.loads(body) if isinstance(body, bytes) else None)

    def _note_facets(self, offset: int, event: object) -> None:
        if not isinstance(event, dict):
            return
        time = event.get("time")
        if isinstance(time, str):
            self._latest = max(self._latest, time)
            self._earliest = min(self._earliest or time, time)
        ids, events = self._ids, self._events
        for facet in facets(event):
            number = ids.get(facet)
            noted = events[self._number(facet) if number is None else number]
            if not noted or noted[-1] != offset:
                noted.append(offset)

    def _number(self, facet: Facet) -> int:
        """The number of a term, which is given one if it is new."""
        if len(self._ids) >= _TERMS_KEPT:
            self._ids.clear()
        field, text = facet
        row = self._connection.execute(
            "SELECT id FROM terms WHERE field = ? AND text = ?", (field, text)
        ).fetchone()
        if row is None:
            row = self._connection.execute(
                "INSERT INTO terms (field, text) VALUES (?, ?) RETURNING id", (field, text)
            ).fetchone()
        if type(row[0]) is not int:
            raise IndexDamagedError("a term in it has no number")
        self._ids[facet] = row[0]
        return row[0]

    def _write_block(self) -> None:
        """Write what was noted of the block, beside what was known of it."""
        known = self._connection.execute(
            "SELECT earliest, latest FROM blocks WHERE block = ?", (self._block,)
        ).fetchone()
        if known is not None:
            self._earliest = min(filter(None, (self._earliest, str(known[0]))), default="")
            self._latest = max(self._latest, str(known[1]))
        rows = []
        for term, noted in sorted(self._events.items()):
            before = (
                known
                and self._connection.execute(
                    "SELECT events FROM postings WHERE term = ? AND block = ?", (term, self._block)
                ).fetchone()
            )
            if before:
                noted = [*_offsets(before[0]), *noted]  # noqa: PLW2901
            rows.append((term, self._block, packed(noted)))
        self._connection.executemany("INSERT OR REPLACE INTO postings VALUES (?, ?, ?)", rows)
        self._connection.execute(
            "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)",
            (self._block, self._earliest, self._latest),
        )
        self._events.clear()

    def _write_state(self, state: IndexState) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO state VALUES (0, ?, ?, ?, ?)",
            (state.log_id, state.start, state.size, state.last_hash),
        )


def _offsets(events: object) -> list[int]:
    try:
        if isinstance(events, bytes):
            return list(offsets(unpacked(events)))
    except ValueError:
        pass
    raise IndexDamagedError("a list of events in it is none")
