"""What is left of a log in damaged bytes, told without runner's code and without SQLite.

Before the damage every place is noted where an event stands: the pages of the database and the
frames of the WAL that its row is on. What still stands there afterwards, byte by byte, is left.
https://sqlite.org/fileformat2.html, 1.6 and 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

PAGE = 4096
FRAME = PAGE + 24
WAL_HEAD = 32
_ARCHIVED = b'"kind":"log.archived"'

Bytes = Mapping[str, bytes]
"""The contents of `runner.db` and `runner.db-wal`; what is missing is empty."""


@dataclass(frozen=True)
class Event:
    """One that was committed, and on the disk, before the damage."""

    seq: int
    leaf: bytes
    previous: bytes
    body: bytes


@dataclass(frozen=True)
class _Place:
    """Where a page stands: `frame` is the WAL's, None the database's."""

    offset: int
    frame: int | None

    def left(self, old: Bytes, new: Bytes) -> bool:
        name = "runner.db" if self.frame is None else "runner.db-wal"
        end = self.offset + PAGE
        return old[name][self.offset : end] == new[name][self.offset : end]


class Oracle:
    """Made of the log as it was."""

    def __init__(self, home: Path, events: Sequence[Event], beginning: int) -> None:
        """`events`: those of the log; the first has the number `beginning`."""
        self.events = events
        self.beginning = beginning
        self.old = read(home)
        wal = self.old["runner.db-wal"]
        self.salts = wal[16:24]
        self.frames = [
            at
            for at in range(WAL_HEAD, len(wal) - FRAME + 1, FRAME)
            if wal[at + 8 : at + 16] == self.salts
        ]
        self.commits = [
            n for n, at in enumerate(self.frames) if struct.unpack(">I", wal[at + 4 : at + 8])[0]
        ]
        self._copies = [list(self._copies_of(event)) for event in events]
        short = [event.seq for event, found in zip(events, self._copies, strict=True) if not found]
        if short:
            raise ValueError(f"events {short} are nowhere in the log as it was")

    def last_transaction(self) -> tuple[int, int]:
        """Where the last one begins and ends in the WAL."""
        if not self.commits:
            return 0, 0
        first = self.commits[-2] + 1 if len(self.commits) > 1 else 0
        return self.frames[first], self.frames[self.commits[-1]] + FRAME

    def sure(self, new: Bytes, *, opened: bool) -> int:
        """So many events, the first ones, all stand where they stood: none of them may be lost.

        `opened`: not repaired; what is torn of the last transaction then takes all of it along.
        """
        last = self._last_commit(new)
        if opened:
            last = min(last, self._before_torn(new))
        held = [any(self._left(copy, new, last) for copy in each) for each in self._copies]
        count = sum(1 for _ in takewhile(bool, held))
        # Of archived events one of those behind them has to tell, or nothing joins them.
        tells = any(_ARCHIVED in event.body for event in self.events[:count])
        return self.beginning + count if tells or not self.beginning else 0

    def _before_torn(self, new: Bytes) -> int:
        """The last commit before what looks torn: behind the first damaged frame is no more than
        one transaction. The last of all: there is more.
        """
        old, wal = self.old["runner.db-wal"], new["runner.db-wal"]
        spoiled = (
            n for n, at in enumerate(self.frames) if old[at : at + FRAME] != wal[at : at + FRAME]
        )
        first = next(spoiled, len(self.frames))
        behind = [n for n in self.commits if n >= first]
        heads = [n for n in behind if wal[(at := self.frames[n]) : at + 24] == old[at : at + 24]]
        if len(behind) > 1 and heads and heads[-1] != behind[0]:
            return len(self.frames)
        return max((n for n in self.commits if n < first), default=-1)

    def possible(self, new: Bytes) -> int:
        """So many, at most: of the others not even the hash is left."""
        alive = (any(event.leaf in data for data in new.values()) for event in self.events)
        return self.beginning + sum(1 for _ in takewhile(bool, alive))

    def _last_commit(self, new: Bytes) -> int:
        """The last frame that is known to have been committed; -1: none."""
        old, wal = self.old["runner.db-wal"], new["runner.db-wal"]
        heads = [wal[at : at + 24] == old[at : at + 24] for at in self.frames]
        if wal[:WAL_HEAD] != old[:WAL_HEAD] and sum(heads) < 2:
            return -1  # which frames belong together is not known any more
        return max((n for n in self.commits if heads[n]), default=-1)

    def _left(self, copy: list[list[_Place]], new: Bytes, last: int) -> bool:
        old, wal = self.old["runner.db-wal"], new["runner.db-wal"]
        for number, places in enumerate(copy):
            for place in places:
                if place.frame is not None:
                    at = place.offset - 24
                    if place.frame > last or (number and wal[at : at + 24] != old[at : at + 24]):
                        continue
                if place.left(self.old, new):
                    break
            else:
                return False
        return True

    def _pages(self) -> Iterable[_Place]:
        for offset in range(0, len(self.old["runner.db"]), PAGE):
            yield _Place(offset, None)
        for number, at in enumerate(self.frames):
            yield _Place(at + 24, number)

    def _bytes(self, place: _Place) -> bytes:
        name = "runner.db" if place.frame is None else "runner.db-wal"
        return self.old[name][place.offset : place.offset + PAGE]

    def _places(self, page: int) -> list[_Place]:
        wal = self.old["runner.db-wal"]
        found = [_Place((page - 1) * PAGE, None)]
        for number, at in enumerate(self.frames):
            if int.from_bytes(wal[at : at + 4], "big") == page:
                found.append(_Place(at + 24, number))
        return found

    def _copies_of(self, event: Event) -> Iterable[list[list[_Place]]]:
        """For each copy, the places of its pages; any one place of each page will do."""
        for place in self._pages():
            page = self._bytes(place)
            at = page.find(event.leaf + event.previous)
            # A page that was split keeps what it moved, where nothing points any more.
            if at < 0 or not _points_at(page, at):
                continue
            at += len(event.leaf + event.previous)
            here = _common(page[at:], event.body)
            pages, done = [[place]], here
            following = page[at + here : at + here + 4]
            while done < len(event.body):
                rest = event.body[done : done + PAGE - 4]
                places = [
                    each
                    for each in self._places(int.from_bytes(following, "big"))
                    if self._bytes(each)[4 : 4 + len(rest)] == rest
                ]
                if not places:
                    break
                # Wherever another version of the page could be taken for it, it is not sure.
                pages.append(places if len(places) == 1 else places[:1])
                following, done = self._bytes(places[0])[:4], done + len(rest)
            else:
                yield pages


def read(home: Path) -> dict[str, bytes]:
    """The files that hold a log."""
    return {
        name: (home / name).read_bytes() if (home / name).exists() else b""
        for name in ("runner.db", "runner.db-wal")
    }


def _common(left: bytes, right: bytes) -> int:
    size = min(len(left), len(right))
    if left[:size] == right[:size]:
        return size
    return next(n for n in range(size) if left[n] != right[n])


def _points_at(page: bytes, at: int) -> bool:
    """Whether a cell of this leaf begins so closely in front that it is the row's."""
    if page[0] != 0x0D:
        return False
    count = int.from_bytes(page[3:5], "big")
    cells = struct.unpack(f">{count}H", page[8 : 8 + 2 * count])
    return any(0 < at - cell < 400 for cell in cells)
