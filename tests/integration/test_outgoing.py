"""What runner sends and fetches over the network ends in time, whatever the other end does."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from runner.model.checkpoints import Destination, DestinationKind
from runner.stores.delivery import NotDeliveredError, deliver
from runner.surfaces.http import issuer_keys

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_listening import make_tls

DRIPS = 400
"""Pieces, a twentieth of a second apart: longer than anything here is let take."""


@contextmanager
def answering(answer: Callable[[socket.socket], None], made: list[bool]) -> Iterator[int]:
    """A port where each connection is answered so; `made`: whether each could say all it had."""

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    try:
                        answer(connection)
                        made.append(True)
                    except OSError:  # the other end has gone
                        made.append(False)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(60)


def drip_handshake(connection: socket.socket) -> None:
    """A record of TLS that is as long as one may be, byte by byte."""
    connection.sendall(b"\x16\x03\x03\x40\x00\x02")
    for _ in range(DRIPS):
        time.sleep(0.05)
        connection.sendall(b"\0")


def drip_answer(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(DRIPS):
        time.sleep(0.05)
        connection.sendall(b"x")


def url(scheme: str, port: int) -> str:
    return f"{scheme}://127.0.0.1:{port}/"


@pytest.mark.parametrize(
    ("scheme", "answer"), [("https", drip_handshake), ("http", drip_answer)], ids=("tls", "answer")
)
def test_who_drips_is_ended(scheme, answer, monkeypatch):
    said_all: list[bool] = []
    with answering(answer, said_all) as port:
        place = url(scheme, port)
        with pytest.raises(NotDeliveredError):
            deliver(Destination(DestinationKind.URL, (place,)), "text", timeout_s=0.5)
        monkeypatch.setattr(issuer_keys, "FETCH_S", 0.5)
        with pytest.raises((OSError, ValueError, issuer_keys.http.client.HTTPException)):
            issuer_keys.fetched(place)
    assert said_all == [False, False]


def test_a_name_with_many_addresses_takes_no_longer_than_one(monkeypatch):
    """Each of them would be waited for."""
    tried: list[object] = []
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # its queue is full then: who connects is not answered
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(full.getsockname())
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())] * 50

        def looked_up(*asked: object, **more: object) -> list:
            tried.append(asked)
            return found

        monkeypatch.setattr(socket, "getaddrinfo", looked_up)
        connects = _counted(monkeypatch)
        with pytest.raises(NotDeliveredError):
            deliver(
                Destination(DestinationKind.URL, ("http://many.example/",)), "text", timeout_s=0.5
            )
        for each in waiting:
            each.close()
    assert tried
    assert len(connects) < 5


def _counted(monkeypatch) -> list[object]:
    connects: list[object] = []

    class Counted(socket.socket):
        def connect(self, address: object) -> None:
            connects.append(address)
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Counted)
    return connects


def test_tls_is_spoken_and_its_name_checked(tmp_path, monkeypatch):
    """The allowed twin; and a certificate that nobody vouches for."""
    tls = make_tls(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    got: list[bytes] = []

    def take(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            data = secure.recv(65536)
            while b"the text" not in data:
                data += secure.recv(65536)
            got.append(data)
            secure.sendall(b"HTTP/1.1 204 taken\r\nContent-Length: 0\r\n\r\n")

    with answering(take, []) as port:
        destination = Destination(DestinationKind.URL, (url("https", port),))
        with pytest.raises(NotDeliveredError, match=r"(?i)certificate"):
            deliver(destination, "the text")
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.cert))
        deliver(destination, "the text")
    assert len(got) == 1
