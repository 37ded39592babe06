"""Copying a workspace in, and reading what a run changed in it.

What is read here was made by the program, so nothing in it is trusted: every step is relative to
an open folder, no link is followed, nothing but regular files is opened, and counts and depths
are bounded. All processes of the run are dead by then, and the reader's rights in the user
namespace open what the program closed to itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

CHUNK_BYTES = 1 << 20
MOST_HOLE_BYTES = 64 << 20
"""Of holes in sparse files this much is read, over all files; then they go without a digest. What
is really there is bounded by the scratch, but a file of a page can claim to be exabytes long."""
MOST_DEPTH = 256
"""Deeper folders are listed, not entered: recursion and descriptors (three a level) are bounded."""

MOST_ORIGINAL_BYTES = 1 << 30
"""Of originals this much is read for their digests; what is beyond it can't be applied over."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """A change, and where its content can be opened until the next one is asked for."""

    record: Record
    name: bytes = b""
    folder_fd: int = -1
    """-1: there is no content to keep."""


Found = Iterator[Finding | None]
"""Changes in order; None: here something was left out."""


_CLOCK_REALTIME_COARSE = 5
"""clock_gettime(2), linux/time.h; Python has no name for it."""
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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


def _may_read(found: os.stat_result, workspace: os.stat_result) -> bool:
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
    for name in _names(source_fd):
        path = prefix + name
        found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if owner is not None and not _may_read(found, workspace):
            continue
        kind = type_of(found.st_mode)
        mode = stat.S_IMODE(found.st_mode) & 0o1777  # set-uid means nothing in there
        digest = None
        try:
            if kind == "directory" and depth < MOST_DEPTH:
                with _opened(name, _OPEN_FOLDER, source_fd, found) as inner_source:
                    os.mkdir(name, 0o700, dir_fd=target_fd)
                    with _opened(name, _OPEN_FOLDER, target_fd) as inner_target:
                        _copy_folder(
                            inner_source, inner_target, path + b"/", workspace, owner, baseline,
                            depth + 1,
                        )  # fmt: skip
            elif kind == "file":
                digest = _copy_file(name, found, source_fd, target_fd)
            elif kind == "symlink":
                target = os.readlink(name, dir_fd=source_fd)
                os.symlink(target, name, dir_fd=target_fd)
                digest = hashlib.sha256(target).hexdigest()
            elif kind == "fifo":
                os.mkfifo(name, 0o600, dir_fd=target_fd)
            else:
                continue
        except PermissionError:
            continue
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
        baseline[path] = Known(kind, mode, (made.st_ino, made.st_ctime_ns, made.st_size), digest)


def _copy_file(name: bytes, found: os.stat_result, source_fd: int, target_fd: int) -> str:
    digest = hashlib.sha256()
    with _opened(name, OPEN_FILE, source_fd, found) as source:
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


class _opened:  # noqa: N801  (reads like a function where it is used)
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


def _names(folder_fd: int) -> list[bytes]:
    # os.listdir of a descriptor yields str; the bytes are what the file system holds.
    return sorted(os.fsencode(name) for name in os.listdir(folder_fd))


class Digester:
    """Reads contents for their digests, as long as they are worth it."""

    def __init__(self, most_bytes: int | None = None) -> None:
        """`most_bytes`: what all contents together may have; None: what the scratch can hold."""
        self._holes_left_bytes = MOST_HOLE_BYTES
        self._left_bytes = most_bytes

    def content(
        self, name: bytes, folder_fd: int, found: os.stat_result
    ) -> tuple[str | None, int | None]:
        """Digest and size of a regular file or of a link's target; None for what has none.

        A file that is mostly a hole has a size and no digest.
        """
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=folder_fd))
            return hashlib.sha256(target).hexdigest(), len(target)
        if not stat.S_ISREG(found.st_mode):
            return None, None
        hole_bytes = max(0, found.st_size - found.st_blocks * 512)
        if hole_bytes > self._holes_left_bytes:
            return None, found.st_size
        self._holes_left_bytes -= hole_bytes
        if self._left_bytes is not None:
            if found.st_size > self._left_bytes:
                return None, found.st_size
            self._left_bytes -= found.st_size
        digest = hashlib.sha256()
        with _opened(name, OPEN_FILE, folder_fd) as fd:
            while chunk := os.read(fd, CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest(), found.st_size


def changed_in_copy(folder_fd: int, baseline: Baseline) -> Found:
    """What differs between the copy now and as it was made, sorted by path."""
    seen: set[bytes] = set()
    yield from _walk_copy(folder_fd, b"", baseline, seen, Digester(), 0)
    for path in sorted(baseline.keys() - seen):
        known = baseline[path]
        yield Finding(_record(path, "deleted", known.type, original=_known_original(known)))


def _walk_copy(
    folder_fd: int,
    prefix: bytes,
    baseline: Baseline,
    seen: set[bytes],
    digester: Digester,
    depth: int,
) -> Found:
    for name in _names(folder_fd):
        path = prefix + name
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        kind = type_of(found.st_mode)
        before = baseline.get(path)
        if before is not None:
            seen.add(path)
        identity = (found.st_ino, found.st_ctime_ns, found.st_size)
        if kind in _READING and found.st_uid == os.geteuid():
            _open_to_owner(name, folder_fd, found, _READING[kind])
        if before is None or before.identity != identity:
            digest, size = digester.content(name, folder_fd, found)
            now = (kind, stat.S_IMODE(found.st_mode), digest)
            if before is None or (before.type, before.mode, before.sha256) != now:
                word = "created" if before is None else "modified"
                original = None if before is None else _known_original(before)
                record = _record(path, word, kind, digest, size, found, original)
                yield Finding(record, name, folder_fd)
        if kind == "directory" and depth >= MOST_DEPTH:
            yield None
        elif kind == "directory":
            with _opened(name, _OPEN_FOLDER, folder_fd) as inner:
                yield from _walk_copy(inner, path + b"/", baseline, seen, digester, depth + 1)


_READING = {"file": stat.S_IRUSR, "directory": stat.S_IRUSR | stat.S_IXUSR}
"""What the owner needs to read one."""


def _open_to_owner(name: bytes, folder_fd: int, found: os.stat_result, needed: int) -> None:
    """So that nothing hides behind what a run closed to itself, where it has the caller's user.

    It is the run's own copy, and nothing runs in it any more that could put a link there.
    """
    if found.st_mode & needed != needed:
        os.chmod(name, stat.S_IMODE(found.st_mode) | needed, dir_fd=folder_fd)


def _known_original(known: Known) -> Record:
    return _original_record(known.type, known.sha256, known.mode)


@dataclass(frozen=True, slots=True)
class _Originals:
    """Tells what stood in the lower layer, which is the host's own folder and may change."""

    since_ns: int
    digester: Digester

    def of(self, name: bytes, folder_fd: int, found: os.stat_result) -> Record:
        digest = None
        if found.st_ctime_ns <= self.since_ns:
            try:
                digest, _ = self.digester.content(name, folder_fd, found)
            except OSError:
                digest = None  # not ours to read, or gone this moment: nobody can compare it
        return _original_record(type_of(found.st_mode), digest, found.st_mode)


def tick_ns() -> int:
    """The time that a change of a file would be marked with now (CLOCK_REALTIME_COARSE)."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def changed_in_overlay(upper_fd: int, merged_fd: int, lower_fd: int, since_ns: int) -> Found:
    """What an overlay's upper layer holds that differs from the lower one.

    The upper layer tells where to look, the merged view what is there now: so nothing depends on
    how this kernel marks what was deleted (Documentation/filesystems/overlayfs.rst). `since_ns`:
    when the program started (`tick_ns`). An original that was changed after it may not be what
    the program saw, and goes without a digest.
    """
    originals = _Originals(since_ns, Digester(MOST_ORIGINAL_BYTES))
    return _walk_overlay(upper_fd, merged_fd, lower_fd, b"", Digester(), originals, 0)


def _walk_overlay(
    upper_fd: int,
    merged_fd: int,
    lower_fd: int | None,
    prefix: bytes,
    digester: Digester,
    originals: _Originals,
    depth: int,
) -> Found:
    merged = _names(merged_fd)
    for name in sorted(set(_names(upper_fd)).intersection(merged)):
        path = prefix + name
        found = os.stat(name, dir_fd=upper_fd, follow_symlinks=False)
        before = _stat_or_none(name, lower_fd)
        kind = type_of(found.st_mode)
        digest, size = digester.content(name, upper_fd, found)
        if before is None or lower_fd is None:
            yield Finding(_record(path, "created", kind, digest, size, found), name, upper_fd)
        elif _differs(name, lower_fd, before, found, digest, digester):
            original = originals.of(name, lower_fd, before)
            record = _record(path, "modified", kind, digest, size, found, original)
            yield Finding(record, name, upper_fd)
        if kind == "directory" and depth >= MOST_DEPTH:
            yield None
        elif kind == "directory":
            with (
                _opened(name, _OPEN_FOLDER, upper_fd) as inner_upper,
                _opened(name, _OPEN_FOLDER, merged_fd) as inner_merged,
                _folder_or_none(name, lower_fd, before) as inner_lower,
            ):
                yield from _walk_overlay(
                    inner_upper, inner_merged, inner_lower, path + b"/", digester, originals,
                    depth + 1,
                )  # fmt: skip
        elif before is not None and lower_fd is not None and stat.S_ISDIR(before.st_mode):
            # Something else stands where a folder was: what was in it is gone.
            yield from _emptied(name, lower_fd, path, before, originals, depth)
    if lower_fd is not None:
        for name in sorted(set(_names(lower_fd)).difference(merged)):
            gone = os.stat(name, dir_fd=lower_fd, follow_symlinks=False)
            yield from _deleted(name, lower_fd, prefix + name, gone, originals, depth)


def _deleted(
    name: bytes,
    lower_fd: int,
    path: bytes,
    before: os.stat_result,
    originals: _Originals,
    depth: int,
) -> Found:
    """A path that is gone, and with a folder all that was in it."""
    original = originals.of(name, lower_fd, before)
    yield Finding(_record(path, "deleted", original["type"], original=original))
    yield from _emptied(name, lower_fd, path, before, originals, depth)


def _emptied(
    name: bytes,
    lower_fd: int,
    path: bytes,
    before: os.stat_result,
    originals: _Originals,
    depth: int,
) -> Found:
    if depth >= MOST_DEPTH:
        if stat.S_ISDIR(before.st_mode):
            yield None
        return
    with _folder_or_none(name, lower_fd, before) as inner:
        for below in _names(inner) if inner is not None else ():
            found = os.stat(below, dir_fd=inner, follow_symlinks=False)
            yield from _deleted(
                below, cast("int", inner), path + b"/" + below, found, originals, depth + 1
            )


def _differs(
    name: bytes,
    lower_fd: int,
    before: os.stat_result,
    found: os.stat_result,
    digest: str | None,
    digester: Digester,
) -> bool:
    if before.st_mode != found.st_mode:
        return True
    if stat.S_ISDIR(found.st_mode):
        return False
    if before.st_size != found.st_size or (digest is None and stat.S_ISREG(found.st_mode)):
        return True
    try:
        return digester.content(name, lower_fd, before)[0] != digest
    except PermissionError:
        return True


def _stat_or_none(name: bytes, folder_fd: int | None) -> os.stat_result | None:
    if folder_fd is None:
        return None
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextmanager
def _folder_or_none(
    name: bytes, folder_fd: int | None, found: os.stat_result | None
) -> Iterator[int | None]:
    """The folder, opened; None where there is none or it can't be read."""
    if folder_fd is None or found is None or not stat.S_ISDIR(found.st_mode):
        yield None
        return
    try:
        folder = _opened(name, _OPEN_FOLDER, folder_fd)
    except PermissionError:
        yield None
        return
    with folder as fd:
        yield fd


def _record(
    path: bytes,
    kind: str,
    type_: str,
    sha256: str | None = None,
    size_bytes: int | None = None,
    found: os.stat_result | None = None,
    original: Record | None = None,
) -> Record:
    return {
        "path": os.fsdecode(path),
        "kind": kind,
        "type": type_,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "executable": found is not None and _is_executable(type_, found.st_mode),
        "original": original,
    }


def _original_record(type_: str, sha256: str | None, mode: int) -> Record:
    return {"type": type_, "sha256": sha256, "executable": _is_executable(type_, mode)}


def _is_executable(type_: str, mode: int) -> bool:
    return type_ == "file" and bool(mode & stat.S_IXUSR)
