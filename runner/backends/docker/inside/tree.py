"""The workspace's copy: laid down before the run, compared with itself after it.

Both happen while no process of the program exists, so nothing can be swapped in between. Names
are bytes here; only the wire has them as text with surrogate escapes (PEP 383).
"""

# Paths are bytes here, of names that nobody promises to be text.
# ruff: noqa: PTH101, PTH103, PTH115, PTH116, PTH118, PTH208, PTH211

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CHUNK_BYTES = 1 << 20
CHANGES_MAX = 10_000
"""More than anyone reads; the list says that it was cut."""
CHANGES_MAX_BYTES = 4 << 20
"""Of all paths in the list together: a deep tree's are long."""
PATH_MAX_BYTES = 16 * 1024
"""Four times PATH_MAX; what is deeper than that is left out, and the list says so."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was laid down at one path."""

    type: str
    mode: int
    sha256: str | None
    """Hex, of a file's content or a link's target."""


def type_of(mode: int) -> str:
    """The word of `model.outcome.Change.type` for a `st_mode`."""
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


class Unpacker:
    """Lays down entries as they arrive. The folder exists and is empty but for mount points."""

    def __init__(self, root: bytes, uid: int, gid: int, mounted: frozenset[bytes]) -> None:
        """`mounted` are paths relative to `root` where an injected file is mounted."""
        self._root = root
        self._owner = (uid, gid)
        self._mounted = mounted
        self.known: dict[bytes, Known] = {}
        self._folders: list[tuple[bytes, int]] = []
        self._file: int | None = None
        self._hash = hashlib.sha256()
        self._open_entry: dict[str, Any] = {}

    def entry(self, entry: dict[str, Any]) -> None:
        """`path`, `type`, `mode`, `mtime_ns`, and `target` for a link, as sent."""
        self.finish_file()
        name = _bytes(entry["path"])
        path = os.path.join(self._root, name)
        mode, kind = int(entry["mode"]), str(entry["type"])
        if name in self._mounted:
            return
        sha256 = None
        if kind == "directory":
            os.makedirs(path, exist_ok=True)
            self._folders.append((path, int(entry["mtime_ns"])))
        elif kind == "symlink":
            target = _bytes(entry["target"])
            os.symlink(target, path)
            sha256 = hashlib.sha256(target).hexdigest()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            self._hash = hashlib.sha256()
            self._open_entry = entry
        self.known[name] = Known(kind, mode, sha256)
        self._own(path, entry)

    def content(self, data: bytes) -> None:
        """More bytes of the file whose entry came last."""
        if self._file is None:
            return
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def finish_file(self) -> None:
        """The file that is being written is complete."""
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        entry = self._open_entry
        name = _bytes(entry["path"])
        self.known[name] = Known("file", int(entry["mode"]), self._hash.hexdigest())
        mtime_ns = int(entry["mtime_ns"])
        os.utime(os.path.join(self._root, name), ns=(mtime_ns, mtime_ns))

    def finish(self) -> dict[bytes, Known]:
        """All entries came: what stands there now."""
        self.finish_file()
        for path, mtime_ns in reversed(self._folders):
            os.utime(path, ns=(mtime_ns, mtime_ns))
        return self.known

    def _own(self, path: bytes, entry: dict[str, Any]) -> None:
        # What its reader on the host could not read stays closed: root's, without any mode bits.
        if entry.get("closed"):
            os.chmod(path, 0)
            return
        os.chown(path, *self._owner, follow_symlinks=False)
        if entry["type"] != "symlink":
            os.chmod(path, int(entry["mode"]))


def changes(
    root: bytes, known: dict[bytes, Known], mounted: frozenset[bytes], budget_bytes: int
) -> tuple[list[dict[str, Any]], bool]:
    """What differs between `known` and what stands below `root`, by path; and whether it was cut.

    No more than `budget_bytes` are read: holes in sparse files count as well, so an absurd size
    costs nothing and gets no digest.
    """
    found: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    cut = False
    left_bytes = budget_bytes
    told_bytes = 0
    for name, path, status in _walk(root):
        if status is None or len(found) >= CHANGES_MAX or told_bytes > CHANGES_MAX_BYTES:
            cut = True
            continue
        if name in mounted:
            continue
        seen.add(name)
        before = known.get(name)
        kind = type_of(status.st_mode)
        sha256 = size_bytes = target = None
        if kind == "file":
            size_bytes = status.st_size
            if size_bytes <= left_bytes:
                left_bytes -= size_bytes
                sha256 = _digest(path)
        elif kind == "symlink":
            target = os.readlink(path)
            size_bytes = len(target)
            sha256 = hashlib.sha256(target).hexdigest()
        unread = kind == "file" and sha256 is None
        if not unread and before == Known(kind, stat.S_IMODE(status.st_mode), sha256):
            continue
        told_bytes += len(name)
        found.append(
            {
                "path": _text(name),
                "kind": "created" if before is None else "modified",
                "type": kind,
                "sha256": sha256,
                "size_bytes": size_bytes,
                "executable": _is_executable(kind, status.st_mode),
                "original": None if before is None else _original(before),
                "target": None if target is None else _text(target),
            }
        )
    if not cut:
        for name in known.keys() - seen:
            before = known[name]
            found.append(
                {
                    "path": _text(name),
                    "kind": "deleted",
                    "type": before.type,
                    "original": _original(before),
                }
            )
    found.sort(key=lambda change: _bytes(change["path"]))
    return found[:CHANGES_MAX], cut or len(found) > CHANGES_MAX


def opened(root: bytes, name: bytes) -> int | None:
    """A regular file below `root`, open for reading; None: no such file stands there.

    Step by step, so that no link is followed and no path is too long.
    """
    *folders, last = name.split(b"/")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        found = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    if stat.S_ISREG(os.fstat(found).st_mode):
        return found
    os.close(found)
    return None


def _original(known: Known) -> dict[str, Any]:
    executable = _is_executable(known.type, known.mode)
    return {"type": known.type, "sha256": known.sha256, "executable": executable}


def _is_executable(kind: str, mode: int) -> bool:
    return kind == "file" and bool(mode & stat.S_IXUSR)


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result | None]]:
    """Every path below `root` once: relative path, name valid in the current folder, status.

    Walks with the current directory, so that no depth exceeds what a path may be long; nothing
    else is alive to move folders about. A status of None: what lies deeper was left out.
    """
    os.chdir(root)
    device = os.stat(b".").st_dev
    levels = [iter(sorted(os.listdir(b".")))]
    prefix = b""
    prefixes = [prefix]
    while levels:
        name = next(levels[-1], None)
        if name is None:
            levels.pop()
            prefixes.pop()
            if levels:
                os.chdir(b"..")
            continue
        status = os.lstat(name)
        if status.st_dev != device:  # an injected file's mount, wherever it was moved
            continue
        prefix = prefixes[-1]
        path = prefix + name
        yield path, name, status
        if stat.S_ISDIR(status.st_mode):
            if len(path) > PATH_MAX_BYTES:
                yield path, name, None
                continue
            os.chdir(name)
            levels.append(iter(sorted(os.listdir(b"."))))
            prefixes.append(path + b"/")


def _digest(path: bytes) -> str:
    sha256 = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        while data := os.read(fd, CHUNK_BYTES):
            sha256.update(data)
    finally:
        os.close(fd)
    return sha256.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
