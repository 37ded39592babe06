"""A real server on a unix socket in a folder of the test's own, and real clients."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from runner.surfaces.cli.main import main; sys.exit(main())",
)


class Server:
    """A running `runner serve`."""

    def __init__(self, home: Path, *options: str) -> None:
        self.path = home.parent / "serve.sock"
        self.environment = {**os.environ, "RUNNER_HOME": str(home)}
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--listen", f"unix:{self.path}", *options],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        assert first == f"runner: listening at unix:{self.path}\n", first

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.path))
        return httpx.Client(transport=transport, base_url="http://runner", timeout=120)

    def raw(self) -> socket.socket:
        """A connection to say anything over."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(60)
        made.connect(str(self.path))
        return made

    def signalled(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> str:
        """What it said on stderr until its end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=120)
        return said

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@contextlib.contextmanager
def serving(home: Path, *options: str) -> Iterator[tuple[Server, httpx.Client]]:
    server = Server(home, *options)
    try:
        with server.client() as client:
            yield server, client
    finally:
        said = server.end()
    assert said == "", said
    assert server.process.returncode == 0
    assert not server.path.exists()


def events(response: httpx.Response) -> Iterator[tuple[str, str, Any]]:
    """Id, kind and data of each server-sent event."""
    told: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            told[name] = value
        elif "event" in told:
            yield told["id"], told["event"], json.loads(told["data"])
            told = {}
