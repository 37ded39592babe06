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
        self._waiter: _Waiter | None = None

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
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.end()

    def _wait(self, fd: int) -> None:
        """Block in a thread: `flock` has no time limit, and polling would lose our place."""
        if self._waiter is None:
            self._waiter = _Waiter()
        try:
            if self._waiter.came_within(fd, self._timeout_s):
                return
        except BaseException:  # an interrupt while waiting
            self._give_up(fd)
            raise
        self._give_up(fd)
        raise RecordError(
            f"the log could not be written: another process has held {self._path} for "
            f"{self._timeout_s:g} s; end it (`fuser {self._path}` tells which) and try again"
        )

    def _give_up(self, fd: int) -> None:
        self._fd = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.abandon(fd)


class _Waiter:
    """A thread that blocks in `flock` for a queue, one wait after the other.

    It can be walked away from, even while the kernel does not let it return: it closes then what it
    waits on. Starting one for each wait would take as long as a commit.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # Locks that one thread takes and the other releases: the fastest way to wake each other.
        self._asked = threading.Lock()
        self._came = threading.Lock()
        self._asked.acquire()
        self._came.acquire()
        self._fd: int | None = None
        self._error: OSError | None = None
        self._arrived = self._abandoned = False
        threading.Thread(target=self._serve, daemon=True, name="runner-queue").start()

    def came_within(self, fd: int, timeout_s: float) -> bool:
        """Wait for the lock on `fd`; False: not in time. OSError: it can't be had."""
        self._fd, self._arrived = fd, False
        self._asked.release()
        came = self._came.acquire(timeout=timeout_s)
        if self._error is not None:
            raise self._error
        return came

    def abandon(self, fd: int) -> None:
        """Leave `fd` to the thread, which closes it when it returns."""
        with self._guard:
            self._abandoned = True
            if self._arrived:
                os.close(fd)
                self._fd = None
        self._wake()

    def end(self) -> None:
        """Let the thread end; nobody waits."""
        self._fd = None
        self._wake()

    def _wake(self) -> None:
        if self._asked.locked():
            self._asked.release()

    def _serve(self) -> None:
        while True:
            self._asked.acquire()
            fd = self._fd
            if fd is None:
                return
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as error:
                self._error = error
            with self._guard:
                if self._abandoned:
                    os.close(fd)
                    return
                self._arrived = True
            self._came.release()
