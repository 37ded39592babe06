"""How much a run without a file system of its own has written: looked at, not held by the kernel.

The tree is the program's and changes meanwhile: every step is relative to an open folder, no link
is followed, and what can't be counted counts as too much.
"""

from __future__ import annotations

import os
import stat
import time

BLOCK_BYTES = 512
"""st_blocks counts in these (stat(2)), whatever the file system's own are."""
LEAST_PAUSE_S = 0.2
PAUSE_TIMES = 10
"""A look that took long is not repeated before ten times as long has gone by: a tenth of one
processor at most is spent on looking."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Measure:
    """Compares what lies in some folders with two bounds."""

    def __init__(
        self, folders: tuple[int, ...], most_bytes: float | None, most_inodes: float | None
    ) -> None:
        """`folders`: descriptors, which stay the caller's. A bound None: unlimited."""
        self._folders = folders
        self._most_bytes = float("inf") if most_bytes is None else most_bytes
        self._most_inodes = float("inf") if most_inodes is None else most_inodes
        self._next_s = 0.0
        self._last = False

    def is_full(self, *, now: bool = False) -> bool:
        """Whether a bound is reached; what the last look told, unless it is time for another."""
        started_s = time.monotonic()
        if now or started_s >= self._next_s:
            self._last = any(self._look())
            took_s = time.monotonic() - started_s
            self._next_s = started_s + max(LEAST_PAUSE_S, PAUSE_TIMES * took_s)
        return self._last

    def _look(self) -> tuple[bool, bool]:
        size_bytes = inodes = 0
        for folder in self._folders:
            try:
                more_bytes, more_inodes = count(
                    folder, self._most_bytes - size_bytes, self._most_inodes - inodes
                )
            except OSError:
                return True, True  # deeper than descriptors go
            size_bytes += more_bytes
            inodes += more_inodes
        return size_bytes >= self._most_bytes, inodes >= self._most_inodes


def count(folder: int, most_bytes: float, most_inodes: float) -> tuple[int, int]:
    """Bytes on disk and entries beneath an open folder; no further than one of the bounds.

    A file with several names counts as often. What vanishes meanwhile, or is closed to us, is
    passed over. OSError (EMFILE): the tree is deeper than this process may have descriptors.
    """
    size_bytes = inodes = 0
    levels = [(os.open(".", _FOLDER, dir_fd=folder), iter(os.listdir(folder)))]
    try:
        while levels and size_bytes < most_bytes and inodes < most_inodes:
            fd, names = levels[-1]
            name = next(names, None)
            if name is None:
                os.close(levels.pop()[0])
                continue
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                inodes += 1
                size_bytes += found.st_blocks * BLOCK_BYTES
                if stat.S_ISDIR(found.st_mode):
                    inner = os.open(name, _FOLDER, dir_fd=fd)
                    levels.append((inner, iter(os.listdir(inner))))
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
    finally:
        for fd, _ in levels:
            os.close(fd)
    return size_bytes, inodes
