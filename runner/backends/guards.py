"""What is to be guarded in a folder that is bound, and whether it can be; for any backend.

What others take commands from is made read-only for the run by mounting it over itself. Its folders
are mounted over themselves too, as they are, because what is a mount point can't be renamed or
removed (rename(2), EBUSY), while a folder that only holds one can: a run would put another in its
place. Standard library only: the native backend's launcher uses it.
"""

# Descriptors, which pathlib does not know.
# ruff: noqa: PTH208

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_GUARDS = 1000
"""More mounts than a folder of work gives reason for; the kernel's own bound is fs.mount-max."""

PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class UnguardedError(Exception):
    """A folder can't be bound; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Paths relative to the folder, outer ones first."""

    pinned: tuple[str, ...]
    """Folders to be mounted over themselves as they are."""
    read_only: tuple[str, ...]
    """What is to be mounted over itself read-only, after these."""


def find(folder_fd: int, patterns: Sequence[str]) -> Guards:
    """What is there of `patterns` below an open folder, no link followed; `*` stands for one name.

    OSError; UnguardedError: a link or a closed folder stands in the way, or there is too much.
    """
    guarded: set[str] = set()
    for pattern in patterns:
        for path in _found(folder_fd, pattern.split("/"), ""):
            guarded.add(path)
            if len(guarded) > MOST_GUARDS:
                raise UnguardedError(
                    f"the workspace holds more than {MOST_GUARDS} paths that a run may not write "
                    "in a folder that is bound; use a profile with workspace: cow"
                )
    pinned = {path[:end] for path in guarded for end, char in enumerate(path) if char == "/"}
    return Guards(tuple(sorted(pinned - guarded)), tuple(sorted(guarded)))


def open_below(folder_fd: int, path: str) -> int:
    """A descriptor (O_PATH) of what stands at a relative path, no link followed; OSError."""
    here = os.dup(folder_fd)
    for name in path.split("/"):
        try:
            following = os.open(name, PATH_FLAGS, dir_fd=here)
        finally:
            os.close(here)
        here = following
    return here


def mount_point_below(folder: str) -> str | None:
    """The first mount point in the folder, as proc_pid_mountinfo(5) spells it."""
    escaped = folder.translate({ord(char): f"\\{ord(char):03o}" for char in " \t\n\\"})
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            mount_point = line.split(" ")[4]
            if mount_point.startswith(f"{escaped}/"):
                return mount_point
    return None


def _found(at: int, parts: Sequence[str], prefix: str, *, any_name: bool = False) -> Iterator[str]:
    """Paths that are there; what is no folder where a named one should be stands for all below."""
    name, rest = parts[0], parts[1:]
    if name == "*":
        for one in _names(at):
            yield from _found(at, (one, *rest), prefix, any_name=True)
        return
    try:
        fd = os.open(name, PATH_FLAGS, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        raise UnguardedError(
            f"{prefix or '.'} in the workspace is closed to its owner, so what it holds can't be "
            "guarded: open it with chmod, or use a profile with workspace: cow"
        ) from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            raise UnguardedError(
                f"{prefix}{name} in the workspace is a symbolic link, and a run could put another "
                "in its place: put what it points to there, or use a profile with workspace: cow"
            )
        if rest and stat.S_ISDIR(mode):
            yield from _found(fd, rest, f"{prefix}{name}/")
        elif not (rest and any_name):
            yield prefix + name
    finally:
        os.close(fd)


def _names(at: int) -> list[str]:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)
