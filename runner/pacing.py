"""Lets who takes a run's output hold it back, without anybody having to wait in `write`."""

from __future__ import annotations

import os
import threading

_FULL = 2**64 - 2
"""An eventfd(2) that counts so far can't be written to, which poll(2) tells."""


class Pace:
    """A descriptor that can be written to as long as output may come; any thread may say which."""

    def __init__(self) -> None:
        """Output may come."""
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._held = False
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """What an `OutputSink` is waited for by."""
        return self._fd

    def hold(self) -> None:
        """No more for now: the program waits, as it would for a full pipe."""
        with self._lock:
            if not self._held and self._fd >= 0:
                self._held = True
                os.eventfd_write(self._fd, _FULL)

    def go_on(self) -> None:
        """Output may come again."""
        with self._lock:
            if self._held and self._fd >= 0:
                self._held = False
                os.eventfd_read(self._fd)

    def close(self) -> None:
        """Nobody waits any more; may be called twice."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
