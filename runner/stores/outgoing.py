"""Connections to other machines that end in time, whatever these do.

`http.client` bounds each read and each address of a name, and not all of them together.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from urllib.parse import SplitResult


@contextlib.contextmanager
def connecting(place: SplitResult, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
    """A connection to where a URL is, which is shut after so long, in the middle of anything.

    It connects with the first request. No proxy is used. Looking up the name is bounded by the
    system. What is shut fails with an OSError or HTTPException; TimeoutError: the time was over.
    """
    kind = _Tls if place.scheme == "https" else _Plain
    connection = kind(place.hostname or "", place.port, timeout=timeout_s)
    connection.deadline_s = time.monotonic() + timeout_s
    ended = threading.Timer(timeout_s, connection.shut)
    ended.daemon = True
    ended.start()
    try:
        yield connection
        if time.monotonic() >= connection.deadline_s:
            raise TimeoutError  # a cut off answer may look like a whole one
    finally:
        ended.cancel()
        connection.close()


class _Plain(http.client.HTTPConnection):
    deadline_s = 0.0
    """On the monotonic clock."""

    def connect(self) -> None:
        self.sock = _dialled(self.host, self.port, self.deadline_s)

    def shut(self) -> None:
        """From another thread: whoever reads or writes it now fails."""
        if isinstance(self.sock, socket.socket):
            with contextlib.suppress(OSError):
                # Not SSLSocket's, which takes the session away from who is using it.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _Tls(_Plain):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        secure = context.wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = secure  # from here on `shut` finds it
        if time.monotonic() >= self.deadline_s:
            raise TimeoutError
        secure.do_handshake()


def _dialled(host: str, port: int, deadline_s: float) -> socket.socket:
    """Connected to the first address of a name that takes it; OSError: none does in time."""
    failed: OSError = TimeoutError()
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left_s)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failed = error
            continue
        return sock
    raise failed
