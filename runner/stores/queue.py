"""The queue of writers: who wants to write waits for a `flock`, which the kernel hands on.

SQLite's own locking is by polling: under load some writer waits for a second or longer. Behind
this lock they take turns. It orders writers and guards nothing; SQLite's lock does that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

from runner.errors import RecordError


class WriterQueue:
    """One place in the queue per object; `enter` and `leave` by one thread at a time."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """`path`: the file that is locked. `timeout_s`: longest wait for a turn."""
        self._path = path
        self._timeout_s = timeout_s
        self._fd: int | None = None

    def enter(self) -> None:
        """Wait for this writer's turn. RecordError: it did not come in time."""
        if self._fd is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait(self._fd)

    def leave(self) -> None:
        """Let the next one write."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file; may be called twice. In a forked child the parent keeps its turn."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _wait(self, fd: int) -> None:
        """Block in a thread: `flock` has no time limit, and polling would lose our place."""
        turn = _Turn(fd)
        try:
            if turn.came_within(self._timeout_s):
                return
        except BaseException:  # an interrupt while waiting
            self._give_up(turn)
            raise
        self._give_up(turn)
        raise RecordError(
            f"the log could not be written: another process has held {self._path} for "
            f"{self._timeout_s:g} s; end it (`fuser {self._path}` tells which) and try again"
        )

    def _give_up(self, turn: _Turn) -> None:
        self._fd = None
        turn.abandon()


class _Turn:
    """A blocking `flock` that can be walked away from; who walks away leaves the descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._came = threading.Event()
        self._abandoned = False
        self._error: OSError | None = None
        threading.Thread(target=self._block, daemon=True, name="runner-queue").start()

    def came_within(self, timeout_s: float) -> bool:
        came = self._came.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return came

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._came.is_set():
                os.close(self._fd)

    def _block(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        with self._lock:
            self._came.set()
            if self._abandoned:
                os.close(self._fd)
