"""How a text gets somewhere else: into a file, to a command, to a URL; each bounded in time.

What counts as arrived is said in `model.checkpoints`. Failures are OSErrors with a clause.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from runner.model.checkpoints import Destination, DestinationKind

TIMEOUT_S = 10.0
"""For one delivery: more than a far-away server needs, less than anybody waits for."""

_LOOK_S = 0.2  # how often a command that still runs is asked whether it has to end

_POST_TYPE = "text/plain; charset=utf-8"


class NotDeliveredError(Exception):
    """A destination did not take it; the message is a clause."""


def deliver(
    destination: Destination,
    note: str,
    timeout_s: float = TIMEOUT_S,
    over: threading.Event | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Send one text, such as a checkpoint's note. NotDeliveredError: it may not have arrived.

    `over`: ends a command when it is set. `headers`: beside those that a POST has.

    A file is not bounded in time: the kernel decides. Everything else ends within `timeout_s`, but
    for looking up a host's name, which the system bounds.
    """
    data = note.encode()
    try:
        if destination.kind is DestinationKind.FILE:
            _append(destination.words[0], data)
        elif destination.kind is DestinationKind.COMMAND:
            _run(destination.words, data, timeout_s, over or threading.Event())
        else:
            _post(destination.words[0], data, timeout_s, headers)
    except OSError as error:
        raise NotDeliveredError(error.strerror or str(error)) from error


def _append(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe: refused
    fd = os.open(path, flags, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotDeliveredError("it is not a file")
        with open(fd, "ab", buffering=0, closefd=False) as file:
            if file.write(data + b"\n") != len(data) + 1:  # the empty line parts it from the next
                raise NotDeliveredError("it took only a part; is the disk full?")
        os.fsync(fd)
    finally:
        os.close(fd)


def _run(words: tuple[str, ...], data: bytes, timeout_s: float, over: threading.Event) -> None:
    # Nobody reads what it says, and so nothing that it leaves running can hold us up.
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    deadline_s = time.monotonic() + timeout_s
    given: bytes | None = data
    try:
        while True:
            try:
                process.communicate(given, _LOOK_S)
                break
            except subprocess.TimeoutExpired:
                given = None  # the rest of it is remembered
                if over.is_set() or time.monotonic() >= deadline_s:
                    raise NotDeliveredError(f"it did not end within {timeout_s:g} s") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise NotDeliveredError(f"it ended with exit code {process.returncode}")


def _post(url: str, data: bytes, timeout_s: float, more: Mapping[str, str]) -> None:
    """POST, without following redirects, which would turn it into a GET that delivers nothing."""
    import http.client  # noqa: PLC0415  (late: speed)

    from runner.stores.outgoing import connecting  # noqa: PLC0415

    parts = urlsplit(url)
    headers = {"Content-Type": _POST_TYPE, "User-Agent": "runner", "Connection": "close", **more}
    if parts.username is not None:
        headers["Authorization"] = _basic(parts.username, parts.password or "")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with connecting(parts, timeout_s) as connection:
            connection.request("POST", target, data, headers)
            status = connection.getresponse().status
    except TimeoutError:
        raise NotDeliveredError(f"it did not answer within {timeout_s:g} s") from None
    except OSError:
        raise  # of TLS too, whose errors are ValueErrors as well
    except (http.client.HTTPException, ValueError) as error:
        raise NotDeliveredError(f"it does not speak HTTP: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise NotDeliveredError(f"it answered with status {status}")


def _basic(name: str, password: str) -> str:
    import base64  # noqa: PLC0415
    from urllib.parse import unquote  # noqa: PLC0415

    pair = f"{unquote(name)}:{unquote(password)}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
