"""Stands between a client and a server's socket, and cuts connections where a test says."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path


class Cutter:
    """Passes bytes on. Of each connection that is in `cuts`, by its number from 0, only so many of
    the server's bytes reach the client; then both ends are closed."""

    def __init__(self, target: Path, path: Path, cuts: dict[int, int]) -> None:
        self.path = path
        self._target = target
        self._cuts = cuts
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join(timeout=30)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            left = self._cuts.get(self.connections)
            self.connections += 1
            for source, target, most in ((client, server, None), (server, client, left)):
                thread = threading.Thread(target=_pass, args=(source, target, most), daemon=True)
                self._threads.append(thread)
                thread.start()


def _pass(source: socket.socket, target: socket.socket, most: int | None) -> None:
    left = most
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if left is not None:
                data = data[:left]
                left -= len(data)
            if data:
                target.sendall(data)
            if left == 0:
                break
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting(target: Path, cuts: dict[int, int]) -> Iterator[Cutter]:
    with tempfile.TemporaryDirectory() as folder:
        cutter = Cutter(target, Path(folder, "cut.sock"), cuts)
        try:
            yield cutter
        finally:
            cutter.close()
            os.unlink(cutter.path)
