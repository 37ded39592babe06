"""A program's terminal follows the size of its caller's."""

from __future__ import annotations

import fcntl
import struct
import termios


class Window:
    """The size of one terminal, as it was set last."""

    def __init__(self, master: int | None) -> None:
        """`master`: of the program's terminal; None: it has none."""
        self._master = master
        self._size: bytes | None = None

    def follow(self, terminal: int | None) -> None:
        """Give it the size of the caller's, where that has another than it had."""
        if self._master is None or terminal is None:
            return
        try:
            size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
            if size != self._size and any(struct.unpack("4H", size)):
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
                self._size = size
        except OSError:
            return  # either side hung up: nothing to follow any more
