"""What a WAL holds that SQLite would not read.

After a crash the first to open a database reads its WAL up to the first frame that is damaged, and
the last to close it removes the file. Behind a frame that a crash tore nothing follows: each commit
waits for the disk before the next begins. So where commits follow, the disk lost something that was
safe, and opening the log would lose the rest as well.
https://sqlite.org/fileformat2.html, 4.1 and 4.2.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_MAGIC = {0x377F0682: "little", 0x377F0683: "big"}
_DEFAULT_PAGE_BYTES = 4096
_TORN = 1  # commits that the crash itself may have torn: the last one


@dataclass(frozen=True, slots=True)
class Frame:
    """A page's version in a WAL; damaged ones too."""

    page: int
    """Its number; 0: the frame's header is damaged."""
    pages: int
    """How many the database has after this commit; 0: it is not the last frame of one."""
    offset: int
    """Where the page's bytes stand."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a WAL is laid out, by its header, or where that is damaged by its frames."""

    page_bytes: int
    salts: bytes
    order: str | None
    """Byte order of the checksums; None: the header is damaged."""
    sums: tuple[int, int]


def layout(fd: int, page_bytes: int | None = None) -> Layout:
    """`page_bytes`: that of the database, where it is known. OSError."""
    head = os.pread(fd, HEADER_BYTES, 0)
    order = _MAGIC.get(int.from_bytes(head[:4], "big"))
    told = int.from_bytes(head[8:12], "big")
    if order is not None and len(head) == HEADER_BYTES and is_page_size(told):
        sums = _add(head[:24], order, (0, 0))
        if struct.pack(">II", *sums) == head[24:]:
            return Layout(told, head[16:24], order, sums)
    known = page_bytes or _DEFAULT_PAGE_BYTES
    return Layout(known, _salts_of_frames(fd, known), None, (0, 0))


def frames(fd: int, of: Layout) -> Iterator[Frame]:
    """All frames of this WAL, and not those of an earlier one whose file is used again.

    Frames with a damaged header are among them where others follow, as frames stand in one row.
    """
    damaged: list[Frame] = []
    for head, offset in _headers(fd, of.page_bytes):
        page, size = struct.unpack(">II", head[:8])
        if head[8:16] == of.salts and page:
            yield from damaged
            damaged.clear()
            yield Frame(page, size, offset + FRAME_HEADER_BYTES)
        else:
            damaged.append(Frame(0, 0, offset + FRAME_HEADER_BYTES))


def loses_commits(path: Path) -> bool:
    """Whether SQLite, opening this WAL after a crash, would drop what was committed. OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        found = layout(fd)
        if found.order is None:  # it is on the disk before the first frame is written
            good, torn = HEADER_BYTES, 0
        else:
            good, torn = _good_until(fd, found, found.order), _TORN
        every = list(frames(fd, found))
        # Of a header that was torn itself the rest may tell of any number of pages.
        most = len(every) + max((f.pages for f in every if f.offset < good), default=0)
        most += _database(path).stat().st_size // found.page_bytes
        behind = [f for f in every if f.offset > good and max(f.page, f.pages) <= most]
        lost = _commits_at_least(behind)
        return lost > torn and not _in_database(fd, found, path)
    finally:
        os.close(fd)


def somebody_reads(shm: Path) -> bool:
    """Whether a process holds the database open, so that its WAL is read already (proc_locks(5)).

    The file itself must not be opened for this: closing it would drop this process's own locks.
    """
    try:
        found = shm.stat()
        locks = Path("/proc/locks").read_text("ascii", "replace")
    except OSError:
        return False
    device = found.st_dev
    return f" {os.major(device):02x}:{os.minor(device):02x}:{found.st_ino} " in locks


def is_page_size(size: int) -> bool:
    """Whether a database can have pages of so many bytes."""
    return 512 <= size <= 65536 and size & (size - 1) == 0


def _headers(fd: int, page_bytes: int) -> Iterator[tuple[bytes, int]]:
    """What stands where frames have their headers, and where that is."""
    offset = HEADER_BYTES
    while len(head := os.pread(fd, FRAME_HEADER_BYTES, offset)) == FRAME_HEADER_BYTES:
        yield head, offset
        offset += FRAME_HEADER_BYTES + page_bytes


def _salts_of_frames(fd: int, page_bytes: int) -> bytes:
    """The salts of the WAL's frames, of which its header does not tell.

    Frames of an earlier WAL may stand behind them, and headers may be damaged. So they are the
    first ones that several frames have, or one that has the number behind that of another: the
    first half is counted up when the file is used again (fileformat2, 4.1).
    """
    found = [head[8:16] for head, _ in _headers(fd, page_bytes) if any(head[:4])]
    count = Counter(found)
    firsts = {salts[:4] for salts in count}
    for salts in found:
        before = (int.from_bytes(salts[:4], "big") - 1) & 0xFFFFFFFF
        if count[salts] > 1 or before.to_bytes(4, "big") in firsts:
            return salts
    return found[0] if found else b""


def _in_database(fd: int, of: Layout, path: Path) -> bool:
    """Whether all that a WAL holds was written to the database before: it is about to be used
    again, and nothing is lost with it.
    """
    newest = {frame.page: frame.offset for frame in frames(fd, of)}
    if 0 in newest:
        return False
    db = os.open(_database(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        return all(
            os.pread(fd, of.page_bytes, offset)
            == os.pread(db, of.page_bytes, (page - 1) * of.page_bytes)
            for page, offset in newest.items()
        )
    finally:
        os.close(db)


def _database(wal: Path) -> Path:
    return wal.with_name(wal.name.removesuffix("-wal"))


def _commits_at_least(found: list[Frame]) -> int:
    """How many commits there were, of some of whose frames the headers may be damaged: none has a
    page twice.
    """
    last = max((n for n, frame in enumerate(found) if frame.pages), default=-1)
    count, seen = 0, set[int]()
    for frame in found[: last + 1]:
        if frame.page in seen:
            count, seen = count + 1, set()
        if frame.page:
            seen.add(frame.page)
        if frame.pages:
            count, seen = count + 1, set()
    return count


def _good_until(fd: int, of: Layout, order: str) -> int:
    """Behind the last commit whose checksums hold."""
    good, offset, sums = HEADER_BYTES, HEADER_BYTES, of.sums
    size = FRAME_HEADER_BYTES + of.page_bytes
    while len(frame := os.pread(fd, size, offset)) == size:
        sums = _add(frame[:8] + frame[FRAME_HEADER_BYTES:], order, sums)
        if frame[8:16] != of.salts or struct.pack(">II", *sums) != frame[16:24]:
            break
        offset += size
        if any(frame[4:8]):
            good = offset
    return good


def _add(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    words = array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    first, second = sums
    pairs = iter(words)
    for word in pairs:
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next(pairs) + first) & 0xFFFFFFFF
    return first, second
