"""Reading what a run changed in its workspace.

What is read here was made by the program, so nothing in it is trusted: every step is relative to
an open folder, no link is followed, nothing but regular files is opened, and counts and depths
are bounded. All processes of the run are dead by then, and the reader's rights in the user
namespace open what the program closed to itself.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from runner.backends.native.launcher.copying import (
    CHUNK_BYTES,
    MOST_DEPTH,
    OPEN_FILE,
    OPEN_FOLDER,
    Baseline,
    Known,
    identity,
    names,
    opened,
    type_of,
)

MOST_HOLE_BYTES = 64 << 20
"""Of holes in sparse files this much is read, over all files; then they go without a digest. What
is really there is bounded by the scratch, but a file of a page can claim to be exabytes long."""

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
        with opened(name, OPEN_FILE, folder_fd) as fd:
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
    for name in names(folder_fd):
        path = prefix + name
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        kind = type_of(found.st_mode)
        before = baseline.get(path)
        if before is not None:
            seen.add(path)
        if kind in _READING and found.st_uid == os.geteuid():
            _open_to_owner(name, folder_fd, found, _READING[kind])
        if before is None or before.identity != identity(found):
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
            with opened(name, OPEN_FOLDER, folder_fd) as inner:
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
    laid: Baseline

    def untouched(self, path: bytes, found: os.stat_result) -> bool:
        """Whether what the upper layer has at a path is as it was laid there before the run."""
        known = self.laid.get(path)
        return known is not None and known.identity == identity(found)

    def of(self, path: bytes, name: bytes, folder_fd: int, found: os.stat_result) -> Record:
        if (known := self.laid.get(path)) is not None:
            return _known_original(known)
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


def changed_in_overlay(
    upper_fd: int, merged_fd: int, lower_fd: int, since_ns: int, laid: Baseline
) -> Found:
    """What an overlay's upper layer holds that differs from the lower one.

    The upper layer tells where to look, the merged view what is there now: so nothing depends on
    how this kernel marks what was deleted (Documentation/filesystems/overlayfs.rst). `since_ns`:
    when the program started (`tick_ns`). An original that was changed after it may not be what
    the program saw, and goes without a digest. `laid`: what was put into the upper layer before
    (`foreign.lay`); of that the program saw exactly this.
    """
    originals = _Originals(since_ns, Digester(MOST_ORIGINAL_BYTES), laid)
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
    merged = names(merged_fd)
    for name in sorted(set(names(upper_fd)).intersection(merged)):
        path = prefix + name
        found = os.stat(name, dir_fd=upper_fd, follow_symlinks=False)
        before = _stat_or_none(name, lower_fd)
        kind = type_of(found.st_mode)
        untouched = originals.untouched(path, found)
        digest, size = (None, None) if untouched else digester.content(name, upper_fd, found)
        if untouched:
            pass
        elif before is None or lower_fd is None:
            yield Finding(_record(path, "created", kind, digest, size, found), name, upper_fd)
        elif _differs(name, lower_fd, before, found, digest, digester):
            original = originals.of(path, name, lower_fd, before)
            record = _record(path, "modified", kind, digest, size, found, original)
            yield Finding(record, name, upper_fd)
        if kind == "directory" and depth >= MOST_DEPTH:
            yield None
        elif kind == "directory":
            with (
                opened(name, OPEN_FOLDER, upper_fd) as inner_upper,
                opened(name, OPEN_FOLDER, merged_fd) as inner_merged,
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
        for name in sorted(set(names(lower_fd)).difference(merged)):
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
    original = originals.of(path, name, lower_fd, before)
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
        for below in names(inner) if inner is not None else ():
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
        folder = opened(name, OPEN_FOLDER, folder_fd)
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
