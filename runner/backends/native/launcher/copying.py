"""Copying a workspace into a sandbox.

Every step is relative to an open folder, no link is followed, nothing but regular files is
opened, and depths are bounded: others may work in the folder meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass

CHUNK_BYTES = 1 << 20
MOST_DEPTH = 256
"""Deeper folders are listed, not entered: recursion and descriptors (three a level) are bounded."""

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: a FIFO put in a file's place must not hold us up.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Known:
    """A path of the copy as it was made."""

    type: str
    mode: int
    identity: tuple[int, int, int]
    """Inode, change time in nanoseconds, size: what a program can't set back (inode(7))."""
    sha256: str | None


Baseline = dict[bytes, Known]
"""Path relative to the workspace -> what stood there."""


def type_of(mode: int) -> str:
    """The word for a file's type."""
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


def copy(source_fd: int, target_fd: int, owner: int | None) -> Baseline:
    """Copy a folder's content; owner and group become `owner` unless it is None.

    Files that can't be read, sockets and devices are left out, as a reader would find them. With
    an `owner` it is root that reads: then what the folder's own owner could not read is left out.
    """
    baseline: Baseline = {}
    workspace = os.fstat(source_fd)
    _copy_folder(source_fd, target_fd, b"", workspace, owner, baseline, 0)
    if owner is not None:
        os.chown(target_fd, owner, owner)
    os.chmod(target_fd, stat.S_IMODE(workspace.st_mode))
    return baseline


def may_read(found: os.stat_result, workspace: os.stat_result) -> bool:
    """Whether the workspace's owner could: root copies for that one, not with its own rights."""
    if found.st_uid == workspace.st_uid:
        return True
    wanted = 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
    granted = found.st_mode >> 3 if found.st_gid == workspace.st_gid else found.st_mode
    return granted & wanted == wanted


def _copy_folder(
    source_fd: int,
    target_fd: int,
    prefix: bytes,
    workspace: os.stat_result,
    owner: int | None,
    baseline: Baseline,
    depth: int,
) -> None:
    for name in names(source_fd):
        path = prefix + name
        found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if owner is not None and not may_read(found, workspace):
            continue
        kind = type_of(found.st_mode)
        known: Known | None
        try:
            if kind == "directory" and depth < MOST_DEPTH:
                with opened(name, OPEN_FOLDER, source_fd, found) as inner_source:
                    os.mkdir(name, 0o700, dir_fd=target_fd)
                    with opened(name, OPEN_FOLDER, target_fd) as inner_target:
                        _copy_folder(
                            inner_source, inner_target, path + b"/", workspace, owner, baseline,
                            depth + 1,
                        )  # fmt: skip
                known = finish(name, found, kind, target_fd, owner)
            else:
                known = copy_one(name, found, kind, source_fd, target_fd, owner)
        except PermissionError:
            continue
        if known is not None:
            baseline[path] = known


def copy_one(
    name: bytes,
    found: os.stat_result,
    kind: str,
    source_fd: int,
    target_fd: int,
    owner: int | None,
) -> Known | None:
    """Copy what is no folder; None: there is no copying a thing of this `kind`.

    PermissionError: it can't be read, or is another one by now.
    """
    digest = None
    if kind == "file":
        digest = _copy_file(name, found, source_fd, target_fd)
    elif kind == "symlink":
        target = os.readlink(name, dir_fd=source_fd)
        os.symlink(target, name, dir_fd=target_fd)
        digest = hashlib.sha256(target).hexdigest()
    elif kind == "fifo":
        os.mkfifo(name, 0o600, dir_fd=target_fd)
    else:
        return None
    return finish(name, found, kind, target_fd, owner, digest)


def finish(
    name: bytes,
    found: os.stat_result,
    kind: str,
    target_fd: int,
    owner: int | None,
    digest: str | None = None,
) -> Known:
    """Give a copy its owner, mode and times, of what was `found`; it is complete then."""
    # Set-uid means nothing in there; a folder's set-gid is handed on to what is made in it.
    mode = stat.S_IMODE(found.st_mode) & (0o3777 if kind == "directory" else 0o1777)
    if owner is not None:
        os.chown(name, owner, owner, dir_fd=target_fd, follow_symlinks=False)
    if kind != "symlink":
        os.chmod(name, mode, dir_fd=target_fd)
    os.utime(
        name,
        ns=(found.st_atime_ns, found.st_mtime_ns),
        dir_fd=target_fd,
        follow_symlinks=False,
    )
    made = os.stat(name, dir_fd=target_fd, follow_symlinks=False)
    return Known(kind, mode, identity(made), digest)


def identity(found: os.stat_result) -> tuple[int, int, int]:
    """Inode, change time in nanoseconds, size: what a program can't set back (inode(7))."""
    return found.st_ino, found.st_ctime_ns, found.st_size


def _copy_file(name: bytes, found: os.stat_result, source_fd: int, target_fd: int) -> str:
    digest = hashlib.sha256()
    with opened(name, OPEN_FILE, source_fd, found) as source:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=target_fd)
        try:
            while chunk := os.read(source, CHUNK_BYTES):
                digest.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(target, view) :]
        finally:
            os.close(target)
    return digest.hexdigest()


class opened:  # noqa: N801  (reads like a function where it is used)
    """An open descriptor for a `with` block.

    With `found` PermissionError if what is there now is not what was looked at before.
    """

    def __init__(
        self, name: bytes, flags: int, dir_fd: int, found: os.stat_result | None = None
    ) -> None:
        self._fd = os.open(name, flags, dir_fd=dir_fd)
        if found is not None and not os.path.samestat(os.fstat(self._fd), found):
            os.close(self._fd)
            raise PermissionError(errno.EACCES, "replaced while it was copied", os.fsdecode(name))

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def names(folder_fd: int) -> list[bytes]:
    """What is in an open folder, sorted."""
    # os.listdir of a descriptor yields str; the bytes are what the file system holds.
    return sorted(os.fsencode(name) for name in os.listdir(folder_fd))
