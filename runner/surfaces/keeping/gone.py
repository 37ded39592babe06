"""Whether anybody waits still for what a session's keeper does."""

from __future__ import annotations

import select
import socket

from runner.streams import Cancellation


class Gone:
    """`ports.CancelToken`: set when whoever asked says something more, or has gone away, or the
    session is over. A context manager.
    """

    def __init__(self, channel: socket.socket, ending: Cancellation) -> None:
        """`channel`: to whoever asked; `ending`: set when the session is over."""
        self._either = select.epoll()  # its descriptor can be waited for like any other
        for each in (channel.fileno(), ending.fileno()):
            self._either.register(each, select.EPOLLIN)

    def fileno(self) -> int:
        """To be waited for."""
        return self._either.fileno()

    @property
    def is_set(self) -> bool:
        """Whether nobody does."""
        return bool(self._either.poll(0))

    def __enter__(self) -> Gone:
        return self

    def __exit__(self, *_: object) -> None:
        self._either.close()
