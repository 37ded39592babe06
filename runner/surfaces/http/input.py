"""What a run reads while it goes on: a pipe into it, and the size of its caller's terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios

from runner.errors import BusyError

UNREAD_BYTES = 1 << 20
"""Of input that the program has not read, beside the pipe; then no more is taken of the client."""


class Input:
    """A run's ends are `stdin` and `terminal`, which `close` closes; the rest is `Writing`'s."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        """`size`: rows and columns of the caller's terminal; None: it has none. BusyError."""
        self.window: int | None = None
        self.terminal: int | None = None
        try:
            if size is not None:
                self.window, self.terminal = os.openpty()
                resize(self.window, *size)
            self.stdin, self.writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            for fd in (self.window, self.terminal):
                if fd is not None:
                    os.close(fd)
            raise BusyError(f"no input can be made for a run: {error.strerror}") from error
        os.set_blocking(self.writing, False)

    def close(self) -> None:
        """The run reads no more; may be called twice."""
        for fd in (self.stdin, self.terminal):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.stdin, self.terminal = -1, None


class Writing:
    """Writes what a client sends into a run's `Input`; of the loop's thread. `close` it."""

    def __init__(self, given: Input) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = given.writing
        self._window = given.window
        self._unread = bytearray()
        self._is_whole = False
        self._room = asyncio.Event()
        self._room.set()

    async def write(self, data: bytes) -> None:
        """Take it, and wait where too much of it is unread. When the run is over it is dropped."""
        if self._fd < 0 or self._is_whole:
            return
        self._unread += data
        self._go_on()
        await self._room.wait()

    def end(self) -> None:
        """No more will come: the program sees the end of its input."""
        self._is_whole = True
        self._go_on()

    def resize(self, rows: int, columns: int) -> None:
        """Of the caller's terminal; without one nothing changes."""
        if self._window is not None:
            resize(self._window, rows, columns)

    def close(self) -> None:
        """Nothing more is written; may be called twice."""
        self._end_pipe()
        if self._window is not None:
            os.close(self._window)
            self._window = None

    def _go_on(self) -> None:
        if self._fd < 0:
            return
        try:
            while self._unread:
                del self._unread[: os.write(self._fd, self._unread)]
        except BlockingIOError:
            self._loop.add_writer(self._fd, self._go_on)
        except OSError:  # EPIPE: the run is over
            self._end_pipe()
            return
        else:
            self._loop.remove_writer(self._fd)
            if self._is_whole:
                self._end_pipe()
                return
        if len(self._unread) > UNREAD_BYTES:
            self._room.clear()
        else:
            self._room.set()

    def _end_pipe(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._unread.clear()
            self._room.set()


def resize(terminal: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ, ioctl_tty(2)."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
