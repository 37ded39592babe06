"""What a server tells the service manager that started it (sd_notify(3)): one datagram each."""

from __future__ import annotations

import socket

from runner.errors import RunnerError

READY = "READY=1"
"""Requests are answered."""
STOPPING = "STOPPING=1"
"""The server is about to end; what runs has its grace."""


def notify(where: str | None, state: str) -> None:
    """Tell it; `where`: `settings.notify_socket()`, None: nobody wants to know.

    A path, or behind `@` a name of the abstract namespace (unix(7)). RunnerError: nobody listens
    there; better than to be killed later on for having been silent.
    """
    if where is None:
        return
    address = "\0" + where[1:] if where.startswith("@") else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.connect(address)
            sending.sendall(state.encode())
    except (OSError, ValueError) as error:
        raise RunnerError(
            f"the service manager can't be told at NOTIFY_SOCKET={where}: {error}"
        ) from error
