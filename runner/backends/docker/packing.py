"""Reads a workspace on the host, without following a link, into the frames that init lays down.

It is read twice, for its size (which the sandbox's file system is made to) and for its bytes;
what changes in between is cut to the size that was seen.
"""

# A workspace may be large: pathlib costs several times as much a path.
# ruff: noqa: PTH115, PTH116, PTH118

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from runner.backends.docker.inside.wire import Kind, encode, encode_json
from runner.backends.docker.plan import PAGE_BYTES, Copied
from runner.errors import BackendError

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of the workspace."""

    path: str
    """Relative to it."""
    type: str
    """`file`, `directory`, `symlink` or `fifo`."""
    mode: int
    mtime_ns: int
    size_bytes: int
    target: str = ""
    closed: bool = False
    """The caller can't read it, so nor will the program."""


def identity(source: str) -> tuple[int, int]:
    """Device and inode of the folder. BackendError: it is not there."""
    try:
        found = os.stat(source)
    except OSError as error:
        raise BackendError(
            f"workspace {source!r} can't be read ({error.strerror}); "
            "give a folder that you can read"
        ) from error
    return found.st_dev, found.st_ino


def entries(source: str) -> tuple[Entry, ...]:
    """Everything below `source`, folders before what is in them; sockets and devices left out.

    BackendError: the folder itself can't be read.
    """
    found: list[Entry] = []
    try:
        _collect(source, found)
    except OSError as error:
        raise BackendError(
            f"workspace {source!r} can't be read ({error.strerror}); "
            "give a folder that you can read"
        ) from error
    return tuple(found)


def measured(found: tuple[Entry, ...]) -> Copied:
    """How large it is once it is copied: whole pages, and one for a link's target."""
    pages = sum(
        -(-entry.size_bytes // PAGE_BYTES) if entry.type == "file" else entry.type == "symlink"
        for entry in found
    )
    return Copied(bytes=pages * PAGE_BYTES, paths=len(found))


def frames(source: str, found: tuple[Entry, ...]) -> Iterator[bytes]:
    """The `ENTRY` and `CONTENT` frames, in order."""
    for entry in found:
        yield encode_json(
            Kind.ENTRY,
            {
                "path": entry.path,
                "type": entry.type,
                "mode": entry.mode,
                "mtime_ns": entry.mtime_ns,
                "target": entry.target,
                "closed": entry.closed,
            },
        )
        if entry.type == "file" and not entry.closed:
            yield from _content(os.path.join(source, entry.path), entry.size_bytes)


def _collect(source: str, found: list[Entry]) -> None:
    # With a stack of its own: a tree may be deeper than Python recurses.
    levels = [iter(_children(source))]
    while levels:
        child = next(levels[-1], None)
        if child is None:
            levels.pop()
            continue
        try:
            entry = _entry(child.path, child.path[len(source) :].lstrip("/"), child)
            if entry is None:
                continue
            found.append(entry)
            if entry.type == "directory" and not entry.closed:
                levels.append(iter(_children(child.path)))
        except FileNotFoundError:  # gone since it was listed
            continue


def _children(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return sorted(listing, key=lambda child: child.name)


def _entry(host_path: str, path: str, child: os.DirEntry[str]) -> Entry | None:
    status = child.stat(follow_symlinks=False)
    # Set-uid bits have no meaning in there and would be another user's.
    mode = stat.S_IMODE(status.st_mode) & 0o1777
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, "symlink", mode, status.st_mtime_ns, 0, os.readlink(host_path))
    if stat.S_ISDIR(status.st_mode):
        closed = not os.access(host_path, os.R_OK | os.X_OK)
        return Entry(path, "directory", mode, status.st_mtime_ns, 0, closed=closed)
    if stat.S_ISREG(status.st_mode):
        closed = not os.access(host_path, os.R_OK)
        return Entry(path, "file", mode, status.st_mtime_ns, status.st_size, closed=closed)
    if stat.S_ISFIFO(status.st_mode):
        return Entry(path, "fifo", mode, status.st_mtime_ns, 0)
    return None


def _content(path: str, size_bytes: int) -> Iterator[bytes]:
    try:
        # A file that became a link or a pipe since it was seen is left empty.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        while size_bytes > 0:
            data = os.read(fd, min(CHUNK_BYTES, size_bytes))
            if not data:
                return
            size_bytes -= len(data)
            yield encode(Kind.CONTENT, data)
    finally:
        os.close(fd)
