"""The queue of writers: who wants to write waits for locks, which the kernel hands on.

SQLite's own locking is by polling: under load some writer waits for a second or longer. Behind
this they take turns. It orders writers and guards nothing; SQLite's lock does that.

A turn is a `flock` of the file. That alone is no queue: who lets go and comes back is sooner there
than the one that was woken, which then goes back behind all others and wakes each of them. So who
comes takes a number, which the file counts, locks the byte of that number, and waits until nobody
has locked the byte before: just the one behind it is woken, and the kernel lets go of what
somebody killed had locked. Who has had a turn may come back without a number for `SLICE_S`, since
to hand it on costs time: another process has to be woken, and to read the log's end anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from pathlib import Path

from runner.errors import RecordError

SLICE_S = 0.003
"""So long a writer may take one turn after the other; 32 that wait do so for about 0.1 s."""
NAP_S = 0.00005
"""Who is next looks so often, within a slice of the one before, whether that one is done."""
STUCK_S = 1.0
"""Longest wait for those before; one may have been stopped (SIGSTOP), and is then passed over."""

# struct flock of fcntl(2); locks of an open file description, so of no other use of the file.
_RANGE = struct.Struct("@hhqqi4x")
_COUNTER = struct.Struct("<Q")
_FIRST_PLACE = _COUNTER.size  # the bytes before it are the counter, and byte 0 its lock
_MOST_PLACES = 1 << 62
_TRIES = 64  # for the counter, which is locked for some microseconds


class WriterQueue:
    """A writer in the queue; `enter` and `leave` by one thread at a time."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """`path`: the file that is locked. `timeout_s`: longest wait for a turn."""
        self._path = path
        self._timeout_s = timeout_s
        self._fd: int | None = None
        self._waiter: _Waiter | None = None
        self._lined_up = False
        """Whether a place is locked."""
        self._slice_end_s = 0.0

    def enter(self, *, in_line: bool = True) -> None:
        """Wait for this writer's turn. RecordError: it did not come in time.

        `in_line`: if not, it waits beside the others, and nothing is written to the file.
        """
        if self._fd is not None and time.monotonic() < self._slice_end_s and _take(self._fd):
            return
        end_s = time.monotonic() + self._timeout_s
        fd = self._opened()
        place = _line_up(fd) if in_line else None
        self._lined_up = place is not None
        if not ((place is None or _free(fd, place - 1)) and _take(fd)):
            first_s = self._timeout_s if place is None else min(STUCK_S, self._timeout_s)
            if not self._came(fd, first_s, None if place is None else place - 1):
                self._give_up(fd)
                self._pass_over(end_s)
        self._slice_end_s = time.monotonic() + SLICE_S

    def leave(self) -> None:
        """Let the next one write."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                if self._lined_up:
                    self._lined_up = False
                    _unlock(self._fd)

    def close(self) -> None:
        """Let go of the file; may be called twice. In a forked child the parent keeps its turn."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.end()

    def _opened(self) -> int:
        if self._fd is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
        return self._fd

    def _pass_over(self, end_s: float) -> None:
        """Wait for the turn alone, whoever else is before."""
        fd = self._opened()
        if self._came(fd, max(0.0, end_s - time.monotonic()), None):
            return
        self._give_up(fd)
        raise RecordError(
            f"the log could not be written: another process has held {self._path} for "
            f"{self._timeout_s:g} s; end it (`fuser {self._path}` tells which) and try again"
        )

    def _came(self, fd: int, timeout_s: float, behind: int | None) -> bool:
        """Block in a thread: locks have no time limit, and polling would lose our place."""
        if self._waiter is None:
            self._waiter = _Waiter()
        try:
            return self._waiter.came_within(fd, timeout_s, behind)
        except BaseException:  # an interrupt while waiting
            self._give_up(fd)
            raise

    def _give_up(self, fd: int) -> None:
        self._fd = None
        self._lined_up = False
        with contextlib.suppress(OSError):
            _unlock(fd)  # who is behind us need not wait until the thread returns
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.abandon(fd)


class _Waiter:
    """A thread that blocks in locks for a queue, one wait after the other.

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
        self._behind: int | None = None
        self._error: OSError | None = None
        self._arrived = self._abandoned = False
        threading.Thread(target=self._serve, daemon=True, name="runner-queue").start()

    def came_within(self, fd: int, timeout_s: float, behind: int | None) -> bool:
        """Wait for the lock on `fd`; False: not in time. OSError: it can't be had.

        `behind`: the place that is waited for before.
        """
        self._fd, self._behind, self._arrived = fd, behind, False
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
                if not (self._behind is not None and self._taken_behind(fd, self._behind)):
                    fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as error:
                self._error = error
            with self._guard:
                if self._abandoned:
                    os.close(fd)
                    return
                self._arrived = True
            self._came.release()

    def _taken_behind(self, fd: int, place: int) -> bool:
        """Wait until nobody has a place; whether the turn was taken within the slice of who had it.

        To be woken each time that one lets go, and to come too late, would cost it half its speed.
        """
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, _place(fcntl.F_RDLCK, place))
        end_s = time.monotonic() + SLICE_S
        while not self._abandoned and time.monotonic() < end_s:
            if _take(fd):
                return True
            time.sleep(NAP_S)
        return self._abandoned


def _take(fd: int) -> bool:
    """Take the turn, if nobody has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _line_up(fd: int) -> int | None:
    """Take the next number and lock its place; None: the counter can't be had.

    What it counts from does not matter, so a counter that was cut or is new begins at 0.
    """
    for _ in range(_TRIES):
        if _locked(fd, fcntl.F_WRLCK, 0):
            break
        os.sched_yield()
    else:
        return None
    try:
        told = os.pread(fd, _COUNTER.size, 0)
        number = _COUNTER.unpack(told)[0] if len(told) == _COUNTER.size else 0
        place = _FIRST_PLACE + 1 + number % _MOST_PLACES
        os.pwrite(fd, _COUNTER.pack((number + 1) % _MOST_PLACES), 0)
        if _locked(fd, fcntl.F_WRLCK, place):
            return place
    except OSError:  # a full disk: whatever the queue needs it for can't be written either
        pass
    finally:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _place(fcntl.F_UNLCK, 0))
    return None


def _free(fd: int, place: int) -> bool:
    """Whether nobody has locked a place."""
    return _locked(fd, fcntl.F_RDLCK, place)


def _locked(fd: int, kind: int, place: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _place(kind, place))
    except BlockingIOError:
        return False
    return True


def _place(kind: int, place: int) -> bytes:
    return _RANGE.pack(kind, os.SEEK_SET, place, 1, 0)


def _unlock(fd: int) -> None:
    """Let go of every place."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _RANGE.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
