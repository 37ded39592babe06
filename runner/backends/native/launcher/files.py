"""Reads and writes the files of a session's sandbox, from inside of it.

It runs in the place of a command, behind all of a command's walls and in its view of the files.
Contents go over stdin and stdout; what else there is to say is one JSON object on stderr. Exit
status 0: it is done; 1: it is not.

No link is followed: where a path goes through one, nothing is done, and `leads` tells where it
would lead a program in here (never out). Whoever asked decides about that path as well and asks
again; so what is done is done at the very path that was decided about, whatever programs do to
names meanwhile. Not by openat2(2), which the filter on system calls refuses: folder by folder.
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

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Task = dict[str, Any]
"""`do` (`read`, `write`, `list`, `stat`, `remove`), `path`, and what each needs beside."""


class _LinkError(Exception):
    """The path goes through a link, and so leads to another one."""

    def __init__(self, leads: str) -> None:
        super().__init__(leads)
        self.leads = leads


def work(task: Task) -> Callable[[], None]:
    """What does it; ends the process."""

    def do() -> None:
        try:
            said = _TASKS[task["do"]](task)
        except _LinkError as link:
            said = {"errno": errno.ELOOP, "why": os.strerror(errno.ELOOP), "leads": link.leads}
        except OSError as error:
            number = error.errno or errno.EIO
            said = {"errno": number, "why": os.strerror(number)}
        with contextlib.suppress(OSError):
            os.write(2, json.dumps(said).encode("ascii"))
        os._exit(1 if "errno" in said else 0)

    return do


def _read(task: Task) -> Task:
    """The content, from `offset` on, at most `length` bytes (None: all)."""
    at, name = _reached(task["path"])
    _follow_none(at, name, task["path"])
    # O_NONBLOCK: a FIFO would be waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=at)
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
    if task["path"].rpartition("/")[2] in ("", ".", ".."):
        raise OSError(errno.EISDIR, "")
    at, name = _reached(task["path"], make=True)
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
    at, name = _reached(task["path"])
    _follow_none(at, name, task["path"])
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=at)
    _not_of_proc(os.fstat(fd))
    names = sorted(os.listdir(fd))
    for name in names[:MOST_ENTRIES]:
        with contextlib.suppress(FileNotFoundError):
            entry = _told(name, fd)
            _write_all(1, json.dumps({"name": name, **entry}).encode("ascii") + b"\n")
    return {"entries": min(len(names), MOST_ENTRIES), "truncated": len(names) > MOST_ENTRIES}


def _stat(task: Task) -> Task:
    at, name = _reached(task["path"])
    return _told(name, at)


def _remove(task: Task) -> Task:
    """A file or a link, or a folder that is empty."""
    path = task["path"].rstrip("/") or "/"
    at, name = _reached(path)
    if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
        os.rmdir(name, dir_fd=at)
    elif path != task["path"]:
        raise OSError(errno.ENOTDIR, "")
    else:
        os.unlink(name, dir_fd=at)
    return {}


def _reached(path: str, *, make: bool = False) -> tuple[int, str]:
    """The folder, open, that an absolute path's last name stands in, and that name.

    `.` for a path that ends in a slash, `.` or `..`. `make`: folders that are missing are made.
    _LinkError: it goes through a link. OSError.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    # All that were come by: with no link on the way, `..` is the one before.
    way = [os.open("/", _FOLDER)]
    last = "." if path.rpartition("/")[2] in ("", ".", "..") else parts.pop()
    for part in parts:
        if part == "..":
            if len(way) > 1:
                os.close(way.pop())
            continue
        try:
            way.append(_entered(way[-1], part, make=make))
        except NotADirectoryError:
            if _is_link(part, way[-1]):
                # Where its folder lies, and where its own last name is a link, is for others to
                # look at: those of a name that is removed or replaced are its own.
                folder, name = (path, "") if last == "." else os.path.split(path)
                raise _LinkError(os.path.join(os.path.realpath(folder), name)) from None
            raise
    return way[-1], last


def _entered(at: int, name: str, *, make: bool) -> int:
    try:
        fd = os.open(name, _FOLDER, dir_fd=at)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=at)
        fd = os.open(name, _FOLDER, dir_fd=at)
    _not_of_proc(os.fstat(fd))
    return fd


def _follow_none(at: int, name: str, path: str) -> None:
    """Where the last name is followed. _LinkError: it is a link."""
    if _is_link(name, at):
        raise _LinkError(os.path.realpath(path))


def _is_link(name: str, at: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _not_of_proc(found: os.stat_result) -> os.stat_result:
    """What /proc has of this process is the launcher's, with paths of the host."""
    if found.st_dev == os.stat("/proc").st_dev:
        raise OSError(errno.EACCES, "")
    return found


def _told(name: str, at: int) -> Task:
    found = _not_of_proc(os.stat(name, dir_fd=at, follow_symlinks=False))
    kind = next((name for is_it, name in _TYPES if is_it(found.st_mode)), "device")
    target = {"target": os.readlink(name, dir_fd=at)} if kind == "symlink" else {}
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
