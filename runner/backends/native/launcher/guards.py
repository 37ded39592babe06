"""Puts up the guards in a folder that is bound; `runner.backends.guards` says what and why."""

from __future__ import annotations

import os
from collections.abc import Sequence

from runner.backends import guards
from runner.backends.native.launcher import kernel
from runner.backends.native.launcher.workspace import WorkspaceError

_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV


def lay(folder_fd: int, patterns: Sequence[str]) -> None:
    """Guard what is there of `patterns` below an attached mount. OSError, WorkspaceError."""
    try:
        found = guards.find(folder_fd, patterns)
    except guards.UnguardedError as error:
        raise WorkspaceError(str(error)) from error
    for path in found.pinned:
        _mount_over_itself(folder_fd, path, read_only=False)
    for path in found.read_only:
        _mount_over_itself(folder_fd, path, read_only=True)


def _mount_over_itself(folder_fd: int, path: str, *, read_only: bool) -> None:
    here = guards.open_below(folder_fd, path)
    try:
        tree = kernel.open_tree(here, "", recursive=False)
        try:
            if read_only:
                kernel.mount_setattr(tree, "", _READ_ONLY, recursive=False)
            kernel.move_mount(tree, here, "")
        finally:
            os.close(tree)
    finally:
        os.close(here)
