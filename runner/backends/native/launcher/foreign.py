"""What of a workspace belongs to other users or groups, laid into an overlay's upper layer.

A sandbox knows one user and one group. What belongs to another shows in it as nobody's, and an
overlay can't copy such a thing up: the upper layer's copy would have to be nobody's too, and so
every write, `chmod`, rename or new name in such a folder fails with EOVERFLOW (ovl_copy_up_one in
fs/overlayfs/copy_up.c). A repository that a group shares is like that throughout. So what the
program could change of it is copied before the overlay is mounted, as its own, as a copy of the
whole folder would have it. What it could not change stays beneath, and is refused to it as
outside.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field

from runner.backends.native.launcher import kernel
from runner.backends.native.launcher.copying import (
    MOST_DEPTH,
    OPEN_FOLDER,
    Baseline,
    copy_one,
    finish,
    may_read,
    type_of,
)

PATIENCE = 5000
"""Paths in a row that are looked at without one to lay; then no more are. Some 4 µs each, as long
as the folder is in the kernel's cache: a run in a large tree must not wait for all of it."""


@dataclass(slots=True)
class _Layer:
    """A workspace's folder and the upper layer that is laid over it."""

    source_fd: int
    upper_fd: int
    owner: int | None
    folder: os.stat_result
    """The workspace itself."""
    ids: tuple[int, int]
    """User and group that are the program's, as `source_fd` shows them."""
    baseline: Baseline = field(default_factory=dict)
    made: list[tuple[bytes, os.stat_result]] = field(default_factory=list)
    """Folders made in the upper layer; not finished before all is in them."""

    def may_write(self, name: str, found: os.stat_result, folder_fd: int) -> bool:
        """Whether the program could, as owner, by its group, as anybody or by a further group."""
        uid, gid = self.ids
        if found.st_uid == uid:
            return bool(found.st_mode & stat.S_IWUSR)
        if found.st_gid == gid:
            return bool(found.st_mode & stat.S_IWGRP)
        if found.st_mode & stat.S_IWOTH:
            return True
        # Of further groups only the kernel knows which one this is: all show as nobody's. As root
        # the program has none.
        return (
            self.owner is None
            and bool(found.st_mode & stat.S_IWGRP)
            and os.access(name, os.W_OK, dir_fd=folder_fd, effective_ids=True)
        )

    def must_lay(self, found: os.stat_result, *, may_write: bool, in_writable: bool) -> bool:
        """Whether it is foreign, and the program could do something with it that copies it up."""
        if (found.st_uid, found.st_gid) == self.ids:
            return False
        if found.st_uid == self.ids[0]:
            return True  # its mode and times can be set, whatever they are
        if stat.S_ISDIR(found.st_mode):
            return may_write  # renaming one is refused by an overlay anyhow (EXDEV)
        # In a folder that can be written all can be renamed. A link's own mode says nothing.
        return in_writable or (stat.S_ISREG(found.st_mode) and may_write)

    def may_read(self, found: os.stat_result) -> bool:
        return self.owner is None or may_read(found, self.folder)

    def open_upper(self, path: bytes) -> int:
        """The upper layer's folder of this path; it and those above it are made where need be."""
        source, upper = os.dup(self.source_fd), os.dup(self.upper_fd)
        try:
            at = b""
            for name in path.split(b"/") if path else ():
                at = at + b"/" + name if at else name
                found = os.stat(name, dir_fd=source, follow_symlinks=False)
                inner = os.open(name, OPEN_FOLDER, dir_fd=source)
                os.close(source)
                source = inner
                try:
                    os.mkdir(name, 0o700, dir_fd=upper)
                    self.made.append((at, found))
                except FileExistsError:
                    pass
                inner = os.open(name, OPEN_FOLDER, dir_fd=upper)
                os.close(upper)
                upper = inner
            return os.dup(upper)
        finally:
            os.close(source)
            os.close(upper)


def lay(source_fd: int, upper_fd: int, owner: int | None) -> Baseline:
    """Lay it, before the overlay is mounted; what stands in the upper layer then.

    `source_fd`: the folder with its own owners, not id-mapped. `owner`: as root, the user and
    group outside that stand for the program's; None: this process's own are the program's. An
    OSError of ENOSPC: it does not fit into the scratch.
    """
    folder = os.fstat(source_fd)
    ids = (os.geteuid(), os.getegid()) if owner is None else (folder.st_uid, folder.st_gid)
    layer = _Layer(source_fd, upper_fd, owner, folder, ids)
    # Level by level: what is looked at first is nearest, and not all in one large `.git/objects`.
    waiting: deque[tuple[bytes, bool]] = deque([(b"", True)])
    missed = 0
    while waiting and missed < PATIENCE:
        path, writable = waiting.popleft()
        missed = _lay_folder(layer, path, waiting, missed, writable=writable)
    for path, found in reversed(layer.made):  # what is in a folder before the folder's times
        parent, _, name = path.rpartition(b"/")
        with _Held(layer.open_upper(parent)) as parent_fd:
            layer.baseline[path] = finish(name, found, "directory", parent_fd, owner)
    return layer.baseline


def _lay_folder(
    layer: _Layer,
    path: bytes,
    waiting: deque[tuple[bytes, bool]],
    missed: int,
    *,
    writable: bool,
) -> int:
    """One folder's own entries; how many in a row were looked at in vain by then."""
    resolve = kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_XDEV
    try:
        fd = kernel.open_at(layer.source_fd, path or b".", OPEN_FOLDER, resolve)
    except OSError:
        return missed + 1  # closed to the program too, or gone this moment
    with _Held(fd) as folder_fd, os.scandir(folder_fd) as entries:
        for entry in entries:
            if missed >= PATIENCE:
                break
            missed += 1
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if not layer.may_read(found):
                continue  # what is beneath it is not shown by a copy either
            at = b"/".join(filter(None, (path, os.fsencode(entry.name))))
            may_write = layer.may_write(entry.name, found, folder_fd)
            if stat.S_ISDIR(found.st_mode) and at.count(b"/") < MOST_DEPTH:
                waiting.append((at, may_write))
            if layer.must_lay(found, may_write=may_write, in_writable=writable) and _lay_one(
                layer, at, found, folder_fd
            ):
                missed = 0
    return missed


def _lay_one(layer: _Layer, path: bytes, found: os.stat_result, folder_fd: int) -> bool:
    """Whether it was laid: it may be closed to the program, or gone."""
    kind = type_of(found.st_mode)
    parent, _, name = path.rpartition(b"/")
    try:
        if kind == "directory":
            os.close(layer.open_upper(path))
            return True
        with _Held(layer.open_upper(parent)) as upper_fd:
            known = copy_one(name, found, kind, folder_fd, upper_fd, layer.owner)
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return False
    if known is not None:
        layer.baseline[path] = known
    return known is not None


class _Held:
    """A descriptor for a `with` block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
