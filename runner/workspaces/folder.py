"""A workspace folder of the host, read and written without ever following a link.

Others may work in it meanwhile, and some of them may be hostile: the program that ran could have
friends outside. So a path is walked one name at a time from a descriptor of the folder, no name
may be a link (openat(2), O_NOFOLLOW), and what is changed is first put in place under the path's
own name in one step that can be undone (renameat2(2), RENAME_EXCHANGE): if it then turns out that
what stood there is not what was looked at, it is put back.

As root everything is done with the rights of the folder's owner (setfsuid(2)): what that owner
could not write is not written, and what is made is theirs.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RequestError, RunnerError
from runner.model.outcome import Original

CHUNK_BYTES = 1 << 20
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: a FIFO that was put in a file's place must not hold us up.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class ConflictError(Exception):
    """A path is not what it was; the message is a clause. Never leaves this package's callers."""


class MissingFolderError(ConflictError):
    """A folder on the way to a path is not there, and so nothing is at the path."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at a path now."""

    is_: Original
    identity: tuple[int, int, int, int]
    """Device, inode, size and modification time in nanoseconds."""
    mode: int
    owner: tuple[int, int]
    """User and group."""


class WorkspaceFolder:
    """One folder, open for as long as changes are looked at or applied; a context manager."""

    def __init__(self, directory: str, device: int, inode: int) -> None:
        """`directory` must be the folder of this device and inode, by a path without links.

        RequestError: it is another one now, or can't be opened.
        """
        self._directory = directory
        self._fd = _open_from_root(directory)
        found = os.fstat(self._fd)
        if (found.st_dev, found.st_ino) != (device, inode):
            os.close(self._fd)
            raise RequestError(
                f"the folder at {directory!r} is not the one that the run worked on: it was "
                "replaced, or moved to another disk; nothing was applied"
            )
        self._owner = (found.st_uid, found.st_gid)

    def __enter__(self) -> WorkspaceFolder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @contextmanager
    def as_owner(self) -> Iterator[None]:
        """As root: this thread's access to files is the owner's, for the block (setfsuid(2))."""
        if os.geteuid() != 0 or self._owner[0] == 0:
            yield
            return
        uid, gid = self._owner
        groups = os.getegid()
        _libc.setfsgid(gid)
        _libc.setfsuid(uid)
        try:
            if _libc.setfsuid(ctypes.c_uint(0xFFFFFFFF)) != uid:  # -1 fails, and tells the current
                raise RunnerError(
                    f"the rights of uid {uid} could not be taken on; run as that user"
                )
            yield
        finally:
            _libc.setfsuid(0)
            _libc.setfsgid(groups)

    def keep_group(self, fd: int, found: Standing) -> bool:
        """Give a new file the group of the one that it replaces; whether it has it then.

        Within `as_owner`. An owner may give a file to a group that they are in (chown(2)). As root
        which groups those are is not known: that of a file of theirs is taken for one.
        """
        user, group = found.owner
        if os.fstat(fd).st_gid == group:
            return True
        as_root = os.geteuid() == 0 and user == self._owner[0] != 0
        if as_root:
            _libc.setfsuid(0)
        try:
            os.fchown(fd, -1, group)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EINVAL):  # not in it, or not mapped
                return False
            raise
        finally:
            if as_root:
                _libc.setfsuid(user)
        return True

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, bytes]]:
        """Descriptor of the folder that a path's last name stands in, and that name.

        ConflictError: a folder on the way is not there, or is a link.
        """
        *folders, name = os.fsencode(path).split(b"/")
        fd = os.dup(self._fd)
        try:
            for folder in folders:
                fd = _step(fd, folder)
            yield fd, name
        finally:
            os.close(fd)

    def check_parent(self, path: str, folder_fd: int) -> None:
        """ConflictError unless the path still leads to this folder."""
        with self.parent(path) as (again_fd, _):
            if not os.path.samestat(os.fstat(again_fd), os.fstat(folder_fd)):
                raise ConflictError("a folder on the way was replaced while it was applied")

    def standing(self, path: str) -> Standing | None:
        """What stands at a path; None: nothing. ConflictError: a link is on the way."""
        try:
            with self.parent(path) as (folder_fd, name):
                return standing(folder_fd, name)
        except FileNotFoundError:
            return None

    def content(self, path: str, most_bytes: int) -> bytes | None:
        """A file's bytes or a link's target; None: it is larger, or is neither."""
        with self.parent(path) as (folder_fd, name):
            found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                return os.readlink(name, dir_fd=folder_fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > most_bytes:
                return None
            fd = os.open(name, _FILE, dir_fd=folder_fd)
            with os.fdopen(fd, "rb") as file:
                content = file.read(most_bytes + 1)
            return content if len(content) <= most_bytes else None


def standing(folder_fd: int, name: bytes) -> Standing | None:
    """What stands under a name in a folder; None: nothing."""
    try:
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    kind = _type_of(found.st_mode)
    digest = None
    if kind == "symlink":
        digest = hashlib.sha256(os.readlink(name, dir_fd=folder_fd)).hexdigest()
    elif kind == "file":
        fd = os.open(name, _FILE, dir_fd=folder_fd)
        try:
            if not os.path.samestat(os.fstat(fd), found):
                raise ConflictError("it was replaced while it was looked at")
            digest = _digest(fd)
            found = os.fstat(fd)
        finally:
            os.close(fd)
    executable = kind == "file" and bool(found.st_mode & stat.S_IXUSR)
    owner = (found.st_uid, found.st_gid)
    return Standing(Original(kind, digest, executable), identity(found), found.st_mode, owner)


def identity(found: os.stat_result) -> tuple[int, int, int, int]:
    """What changes with the file and not with its name."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def rename(folder_fd: int, old: bytes, new: bytes, flags: int) -> None:
    """renameat2(2) within one folder; OSError."""
    if _libc.renameat2(folder_fd, old, folder_fd, new, ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(new))


def umask() -> int:
    """This process's, without setting it for a moment as umask(2) would (proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").split("\n"):
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077


def new_file(folder_fd: int, name: bytes) -> int:
    """A new file, open for writing; one that is left of a killed attempt goes first."""
    try:
        return os.open(name, _NEW, 0o600, dir_fd=folder_fd)
    except FileExistsError:
        os.unlink(name, dir_fd=folder_fd)
        return os.open(name, _NEW, 0o600, dir_fd=folder_fd)


def _open_from_root(directory: str) -> int:
    fd = os.open("/", _FOLDER)
    try:
        for name in os.fsencode(directory).split(b"/"):
            if name:
                fd = _step(fd, name)
    except (ConflictError, OSError) as error:
        os.close(fd)
        raise RequestError(
            f"the run's workspace {directory!r} can't be opened ({error}); nothing was applied"
        ) from error
    return fd


def _step(fd: int, name: bytes) -> int:
    """The folder of that name instead of the one it stands in, whose descriptor is closed."""
    try:
        inner = os.open(name, _FOLDER, dir_fd=fd)
    except FileNotFoundError:
        shown = os.fsdecode(name)
        raise MissingFolderError(f"the folder {shown!r} on the way is not there") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            shown = os.fsdecode(name)
            raise ConflictError(f"{shown!r} on the way is a link, or no folder") from None
        raise
    os.close(fd)
    return inner


def _digest(fd: int) -> str:
    found = hashlib.sha256()
    while chunk := os.read(fd, CHUNK_BYTES):
        found.update(chunk)
    return found.hexdigest()


def _type_of(mode: int) -> str:
    for test, word in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "symlink"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
    ):
        if test(mode):
            return word
    return "device"
