"""Guards in a folder that is bound: what others take commands from is read-only for the run.

A guarded path is mounted over itself, read-only. Its folders are mounted over themselves too, as
they are, because what is a mount point can't be renamed or removed (rename(2), EBUSY), while a
folder that only holds one can: a run would put another in its place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from runner.backends.native.launcher import kernel
from runner.backends.native.launcher.workspace import WorkspaceError

MOST_GUARDS = 1000
"""More mounts than a folder of work gives reason for; the kernel's own bound is fs.mount-max."""

_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def lay(folder_fd: int, patterns: Sequence[str]) -> None:
    """Guard what is there of `patterns` below an attached mount; `*` stands for one name.

    OSError; WorkspaceError: a link stands in the way, which can't be guarded, or there is too much.
    """
    guarded: set[str] = set()
    for pattern in patterns:
        guarded.update(_found(folder_fd, pattern.split("/"), ""))
        if len(guarded) > MOST_GUARDS:
            raise WorkspaceError(
                f"the workspace holds more than {MOST_GUARDS} paths that a run may not write in a "
                "folder that is bound; use a profile with workspace: cow"
            )
    pinned = {path[:end] for path in guarded for end, char in enumerate(path) if char == "/"}
    for path in sorted(pinned - guarded):  # outer ones first
        _mount_over_itself(folder_fd, path, read_only=False)
    for path in sorted(guarded):
        _mount_over_itself(folder_fd, path, read_only=True)


def _found(at: int, parts: Sequence[str], prefix: str) -> Iterator[str]:
    """Paths that are there; what is no folder where one should be stands for all below it."""
    name, rest = parts[0], parts[1:]
    if name == "*":
        for one in _names(at):
            yield from _found(at, (one, *rest), prefix)
        return
    try:
        fd = os.open(name, _PATH, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        raise WorkspaceError(
            f"{prefix or '.'} in the workspace is closed to its owner, so what it holds can't be "
            "guarded: open it with chmod, or use a profile with workspace: cow"
        ) from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            raise WorkspaceError(
                f"{prefix}{name} in the workspace is a symbolic link, and a run could put another "
                "in its place: put what it points to there, or use a profile with workspace: cow"
            )
        if rest and stat.S_ISDIR(mode):
            yield from _found(fd, rest, f"{prefix}{name}/")
        else:
            yield prefix + name
    finally:
        os.close(fd)


def _names(at: int) -> list[str]:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def _mount_over_itself(folder_fd: int, path: str, *, read_only: bool) -> None:
    here = os.dup(folder_fd)
    try:
        for name in path.split("/"):
            following = os.open(name, _PATH, dir_fd=here)
            os.close(here)
            here = following
        tree = kernel.open_tree(here, "", recursive=False)
        try:
            if read_only:
                kernel.mount_setattr(tree, "", _READ_ONLY, recursive=False)
            kernel.move_mount(tree, here, "")
        finally:
            os.close(tree)
    finally:
        os.close(here)
