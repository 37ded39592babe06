"""A folder that a container works on itself: whether it can, and what is guarded in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from runner.backends.docker.plan import Bound
from runner.backends.guards import PATH_FLAGS, UnguardedError, find, mount_point_below, open_below
from runner.errors import BackendError
from runner.model.guarded import GUARDED_PATHS

_MAPPED = ("name=userns", "name=rootless")
"""What an engine says (SystemInfo, SecurityOptions) whose containers have users of their own."""

_INSTEAD = "use a profile with workspace: cow"


def look(folder: str, info: Mapping[str, Any]) -> Bound:
    """What to mount of this folder, and as whom; `info` is the engine's own (SystemInfo).

    BackendError: no container of this engine can have it, or not as its owner.
    """
    for option in info.get("SecurityOptions") or ():
        if option.startswith(_MAPPED):
            raise BackendError(
                f"this engine maps users ({option}), so no container of it can be the owner of the "
                f"workspace {folder!r}; {_INSTEAD}, or an engine without"
            )
    try:
        fd = os.open(folder, PATH_FLAGS | os.O_DIRECTORY)
        try:
            return _look(folder, fd)
        finally:
            os.close(fd)
    except UnguardedError as error:
        raise BackendError(f"workspace {folder!r} can't be bound: {error}") from error
    except OSError as error:
        raise BackendError(
            f"workspace {folder!r} can't be looked into ({error}); {_INSTEAD}"
        ) from error


def _look(folder: str, fd: int) -> Bound:
    owner = os.fstat(fd)
    if owner.st_uid == 0 or owner.st_gid == 0:
        raise UnguardedError(
            "it belongs to root, or to root's group, and no run writes as root: give it to an "
            f"ordinary user with chown, or {_INSTEAD}"
        )
    # The engine would let anybody who may talk to it be anybody.
    caller = os.geteuid()
    if caller not in (0, owner.st_uid):
        raise UnguardedError(f"it belongs to user {owner.st_uid}, not to you; {_INSTEAD}")
    if caller != 0 and owner.st_gid not in (os.getegid(), *os.getgroups()):
        raise UnguardedError(f"it belongs to group {owner.st_gid}, not to yours; {_INSTEAD}")
    if below := mount_point_below(folder):
        raise UnguardedError(f"something is mounted at {below}: unmount it, or {_INSTEAD}")
    guards = find(fd, GUARDED_PATHS)
    identities = [(folder, owner.st_dev, owner.st_ino)]
    for path in (*guards.pinned, *guards.read_only):
        identities.append((f"{folder}/{path}", *_identity(fd, path)))
    return Bound(owner.st_uid, owner.st_gid, guards, tuple(identities))


def _identity(folder_fd: int, path: str) -> tuple[int, int]:
    fd = open_below(folder_fd, path)
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if stat.S_ISLNK(found.st_mode):
        raise UnguardedError(f"{path} in it became a symbolic link meanwhile; {_INSTEAD}")
    return found.st_dev, found.st_ino
