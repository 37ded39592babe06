"""Events out of a damaged database: its pages read one by one, whatever its trees say.

SQLite gives rows as far as it can follow the tree that they stand in. Behind a page that it can't
read, the rows are still there, each on a leaf page that can be read by itself
(https://sqlite.org/fileformat2.html, 1.6 and 2.1; the WAL: 4.1). Nothing that is found so is
trusted: an event is one only if its bytes have the hash that stands beside them, and it has a
place only if the event before names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.audit.merkle import HASH_BYTES, leaf_hash
from runner.stores import wal

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A record that claims to be longer is none of ours."""

_MAGIC = b"SQLite format 3\0"
_PAGE_BYTES = 4096  # SQLite's default since 3.12, which every log was made with
_LEAF = 0x0D  # a leaf of a table
_FILE_HEADER_BYTES = 100  # in front of page 1's own header
_COLUMNS = 8  # of the table `events`
_HASH_TYPE = 12 + 2 * HASH_BYTES  # serial type of a blob of 32 bytes


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """A row of `events` whose bytes have the hash that stands beside them."""

    seq: int
    leaf: bytes
    body: bytes


class _NoRecordError(Exception):
    """These bytes are no record of `events`."""


class PageReader:
    """All pages of a database and of the committed part of its WAL."""

    def __init__(self, path: Path) -> None:
        """`path`: the database; either file may be missing. OSError: one can't be read."""
        self._db = _open(path)
        self._wal = _open(path.with_name(f"{path.name}-wal"))
        self._page_bytes = self._found_page_bytes()
        self._frames = self._committed()
        """Where each page's versions stand in the WAL, oldest first; 0: pages that lost their
        number.
        """

    def events(self) -> Iterator[FoundEvent]:
        """Every event that can be read; one may come several times, in any order."""
        for number in range(1, self._page_count() + 1):
            yield from self._of_page(self._of_db(number), number)
        for number, offsets in self._frames.items():
            for offset in offsets:
                yield from self._of_page(_read(self._wal, offset, self._page_bytes), number)

    def close(self) -> None:
        """Let go of the files."""
        for fd in (self._db, self._wal):
            if fd is not None:
                os.close(fd)
        self._db = self._wal = None

    def _found_page_bytes(self) -> int:
        """From whichever header is whole."""
        head = _read(self._db, 0, _FILE_HEADER_BYTES)
        if head.startswith(_MAGIC):
            told = int.from_bytes(head[16:18], "big")
            size = 65536 if told == 1 else told
        else:
            size = int.from_bytes(_read(self._wal, 8, 4), "big")
        return size if wal.is_page_size(size) else _PAGE_BYTES

    def _page_count(self) -> int:
        size = 0 if self._db is None else os.fstat(self._db).st_size
        return -(-size // self._page_bytes)

    def _committed(self) -> dict[int, list[int]]:
        """The frames that a commit follows. Checksums and the headers of single frames are left
        alone: behind a frame that is damaged SQLite reads none, and yet they were committed.
        """
        found: dict[int, list[int]] = {}
        waiting: list[wal.Frame] = []
        if self._wal is None:
            return found
        for frame in wal.frames(self._wal, wal.layout(self._wal, self._page_bytes)):
            waiting.append(frame)
            if frame.pages:
                for each in waiting:
                    found.setdefault(each.page, []).append(each.offset)
                waiting.clear()
        return found

    def _of_db(self, number: int) -> bytes:
        return _read(self._db, (number - 1) * self._page_bytes, self._page_bytes)

    def _versions(self, number: int) -> Iterator[bytes]:
        """A page, the newest first."""
        for offset in reversed(self._frames.get(number, ())):
            yield _read(self._wal, offset, self._page_bytes)
        yield self._of_db(number)

    def _of_page(self, page: bytes, number: int) -> Iterator[FoundEvent]:
        start = _FILE_HEADER_BYTES if number == 1 else 0
        if len(page) < self._page_bytes:
            page = page.ljust(self._page_bytes, b"\0")  # the file was cut here
        if page[start] != _LEAF:
            return
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        pointers = page[start + 8 : start + 8 + 2 * count]
        for at in range(0, len(pointers) - 1, 2):
            try:
                yield self._event(page, int.from_bytes(pointers[at : at + 2], "big"))
            except (_NoRecordError, IndexError):
                continue

    def _event(self, page: bytes, at: int) -> FoundEvent:
        size, at = _varint(page, at)
        seq, at = _varint(page, at)
        if not 3 * HASH_BYTES < size <= MAX_BODY_BYTES:
            raise _NoRecordError
        local = self._local_bytes(size)
        head = page[at : at + local]
        if local == size:
            return _checked(seq, head)
        follows = int.from_bytes(page[at + local : at + local + 4], "big")
        for newest in (True, False):  # a page that was used anew is another one in the database
            try:
                return _checked(seq, head + self._overflow(follows, size - local, newest))
            except _NoRecordError:
                if not newest:
                    raise
        raise _NoRecordError

    def _local_bytes(self, size: int) -> int:
        """How much of a record stands on its leaf page (fileformat2, 1.6)."""
        usable = self._page_bytes
        most = usable - 35
        if size <= most:
            return size
        least = (usable - 12) * 32 // 255 - 23
        kept = least + (size - least) % (usable - 4)
        return kept if kept <= most else least

    def _overflow(self, number: int, size: int, newest: bool) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            if number == 0:
                raise _NoRecordError
            page = next(self._versions(number)) if newest else self._of_db(number)
            part = page[4 : 4 + min(size, self._page_bytes - 4)]
            if not part:
                raise _NoRecordError
            parts.append(part)
            size -= len(part)
            number = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def _checked(seq: int, record: bytes) -> FoundEvent:
    """The event in a record of `events`, if it is one and has its hash."""
    header, at = _varint(record, 0)
    types: list[int] = []
    while at < header:
        kind, at = _varint(record, at)
        types.append(kind)
    if len(types) != _COLUMNS or types[5:7] != [_HASH_TYPE, _HASH_TYPE] or at != header:
        raise _NoRecordError
    if types[7] < 12 or types[7] & 1 or types[0] != 0:  # the body is a blob, `seq` the row's id
        raise _NoRecordError
    if any(kind and (kind < 13 or not kind & 1) for kind in types[1:5]):  # texts, or NULL
        raise _NoRecordError
    at += sum((kind - 13) // 2 for kind in types[1:5] if kind)
    leaf = record[at : at + HASH_BYTES]
    body = record[at + 2 * HASH_BYTES :]
    if len(body) != (types[7] - 12) // 2 or leaf_hash(body) != leaf:
        raise _NoRecordError
    return FoundEvent(seq, leaf, body)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer, and what is behind it. IndexError: the data ends in it."""
    value = 0
    for length in range(9):
        byte = data[at + length]
        if length == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + length + 1
    raise _NoRecordError


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _read(fd: int | None, offset: int, size: int) -> bytes:
    return b"" if fd is None else os.pread(fd, size, offset)
