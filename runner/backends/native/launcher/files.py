"""Reads and writes the files of a session's sandbox, from inside of it.

It runs in the place of a command, behind all of a command's walls and in its view of the files: a
link leads where it would lead a program in there, and never out. Contents go over stdin and stdout;
what else there is to say is one JSON object on stderr. Exit status 0: it is done; 1: it is not.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable
from typing import Any

MOST_ENTRIES = 10_000
"""Of a folder, that are listed."""
_CHUNK_BYTES = 1 << 18
_TYPES = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISLNK, "symlink"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
)

Task = dict[str, Any]
"""`do` (`read`, `write`, `list`, `stat`, `remove`), `path`, and what each needs beside."""


def work(task: Task) -> Callable[[], None]:
    """What does it; ends the process."""

    def do() -> None:
        try:
            said = _TASKS[task["do"]](task)
        except OSError as error:
            number = error.errno or errno.EIO
            said = {"errno": number, "why": os.strerror(number)}
        with contextlib.suppress(OSError):
            os.write(2, json.dumps(said).encode("ascii"))
        os._exit(1 if "errno" in said else 0)

    return do


def _read(task: Task) -> Task:
    """The content, from `offset` on, at most `length` bytes (None: all)."""
    # O_NONBLOCK: a FIFO would be waited for.
    fd = os.open(task["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    found = _not_of_proc(os.fstat(fd))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL, "")
    left = task["length"]
    sent, position = 0, task["offset"]
    while left is None or sent < left:
        wanted = _CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left - sent)
        data = os.pread(fd, wanted, position + sent)
        if not data:
            break
        _write_all(1, data)
        sent += len(data)
    return {"bytes": sent, "size_bytes": found.st_size}


def _write(task: Task) -> Task:
    """Whole or not at all: what stands there is replaced once all of stdin has come."""
    folder, _, name = task["path"].rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(errno.EISDIR, "")
    os.makedirs(folder or ".", exist_ok=True)
    at = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    fresh = f".{name[:200]}.{os.getpid()}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=at)
    written = 0
    try:
        while data := os.read(0, _CHUNK_BYTES):
            _write_all(fd, data)
            written += len(data)
        if written != task["size_bytes"]:
            raise OSError(errno.EPIPE, "")  # whoever sends it has gone away
        os.fchmod(fd, 0o755 if task["executable"] else 0o644)
        os.rename(fresh, name, src_dir_fd=at, dst_dir_fd=at)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh, dir_fd=at)
        raise
    return {"bytes": written}


def _list(task: Task) -> Task:
    """A folder's entries by name, one JSON object a line on stdout."""
    fd = os.open(task["path"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _not_of_proc(os.fstat(fd))
    names = sorted(os.listdir(fd))
    for name in names[:MOST_ENTRIES]:
        with contextlib.suppress(FileNotFoundError):
            entry = _told(name, fd)
            _write_all(1, json.dumps({"name": name, **entry}).encode("ascii") + b"\n")
    return {"entries": min(len(names), MOST_ENTRIES), "truncated": len(names) > MOST_ENTRIES}


def _stat(task: Task) -> Task:
    return _told(task["path"])


def _remove(task: Task) -> Task:
    """A file or a link, or a folder that is empty."""
    if stat.S_ISDIR(os.lstat(task["path"]).st_mode):
        os.rmdir(task["path"])
    else:
        os.unlink(task["path"])
    return {}


def _not_of_proc(found: os.stat_result) -> os.stat_result:
    """What /proc has of this process is the launcher's, with paths of the host."""
    if found.st_dev == os.stat("/proc").st_dev:
        raise OSError(errno.EACCES, "")
    return found


def _told(path: str, at: int | None = None) -> Task:
    found = _not_of_proc(os.stat(path, dir_fd=at, follow_symlinks=False))
    kind = next((name for is_it, name in _TYPES if is_it(found.st_mode)), "device")
    target = {"target": os.readlink(path, dir_fd=at)} if kind == "symlink" else {}
    return {
        "type": kind,
        "size_bytes": found.st_size,
        "mode": stat.S_IMODE(found.st_mode),
        "modified_s": found.st_mtime,
        **target,
    }


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


_TASKS: dict[str, Callable[[Task], Task]] = {
    "read": _read,
    "write": _write,
    "list": _list,
    "stat": _stat,
    "remove": _remove,
}
