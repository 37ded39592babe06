"""Sealed segments as files: `<log>-<first>-<behind the last>.segment.gz` in an archive's folder.

gzip (RFC 1952), because every machine reads it; the time in its header is 0, so the same events
give the same file. A file is whole and on the disk before it has its name.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.audit.segment import MAX_LINE_BYTES, Segment, SegmentError
from runner.errors import RequestError, StateError
from runner.stores.home import fsync_folder

_NAME = re.compile(r"([0-9a-f]{12})-(\d{12})-(\d{12})\.segment\.gz")
_ID_SHOWN = 12  # hexadecimal digits of a log's id in a name: enough to tell the logs of an archive
_LEVEL = 6  # gzip's own default: 9 takes three times as long for some per cent
_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment by what its name says; only reading it shows what it is."""

    path: Path
    start: int
    end: int


def name_of(log_id: str, start: int, end: int) -> str:
    """Where a segment belongs in an archive."""
    return f"{log_id[:_ID_SHOWN]}-{start:012}-{end:012}.segment.gz"


def listed(folder: Path, log_id: str | None = None) -> list[SegmentFile]:
    """The segments of one log (None: of any) by their names, in order; of one start the longest
    first. StateError: the folder can't be read. RequestError: there is none.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        raise RequestError(f"there is no archive at {folder}: name its folder") from None
    except OSError as error:
        raise StateError(f"the archive {folder} can't be read: {error.strerror}") from error
    found = [
        SegmentFile(folder / name, int(match[2]), int(match[3]))
        for name in names
        if (match := _NAME.fullmatch(name)) and (log_id is None or match[1] == log_id[:_ID_SHOWN])
    ]
    return sorted(found, key=lambda each: (each.start, -each.end, each.path.name))


def is_segment(path: Path) -> bool:
    """Whether a file begins as one does. OSError: it can't be read."""
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def write(folder: Path, name: str, lines: Iterable[bytes]) -> Path:
    """Write a segment, whole and durable when this returns. StateError: it can't be."""
    path, part = folder / name, folder / f".{name}.part"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
            _compress(file, lines)
            file.flush()
            os.fsync(file.fileno())
            # What is read back to be verified is to come from the disk, not from memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        part.replace(path)
        fsync_folder(folder)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise StateError(
            f"segment {path} could not be written: {error.strerror}; nothing was removed from the "
            "log; free some space or name another folder"
        ) from error
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return path


@contextmanager
def opened(path: Path) -> Iterator[tuple[Segment, str]]:
    """A segment to read, and the SHA-256 of its file, hex.

    StateError: the file can't be read, or does not begin as a segment does.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(f"segment {path} can't be read: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            segment = Segment(_lines(path, file))
        except OSError as error:
            raise StateError(f"segment {path} can't be read: {error.strerror}") from error
        except SegmentError as error:
            raise StateError(f"{path} is no segment of a log: {error}") from None
        yield segment, digest


def _compress(file: IO[bytes], lines: Iterable[bytes]) -> None:
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        for line in lines:
            packed.write(line)


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The lines, read in pieces. SegmentError: the file is damaged, or no text of ours."""
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as packed:
            while line := packed.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise SegmentError("it has a line that is too long for an event")
                yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SegmentError(f"the file is damaged: {error}") from None
    except OSError as error:
        raise StateError(f"segment {path} can't be read: {error.strerror}") from error
