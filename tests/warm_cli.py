"""The command line, started many times from a process that has imported it already.

Each call is a process of its own with its own environment, folder and streams, forked from one
that has done nothing but import; so what a test sees is what it would see of a new interpreter,
which takes half a second and more to come that far. What a new interpreter itself reads (`PYTHON*`,
the locale) it read before: calls that set those are started cold (`conftest.run_cli`), and so are
those of tests/e2e/test_docs.py and tests/e2e/test_packaging.py.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NoReturn

MODULES = ("runner.surfaces.cli.main", "runner.app", "runner.schema.profiles", "runner.adapters")
MESSAGE_BYTES = 1 << 20
COLD = ("PYTHON", "LC_", "LANG")
"""Variables that an interpreter looks at when it starts."""


def cold_part(environment: dict[str, str]) -> dict[str, str]:
    """What of an environment only a new interpreter would take in."""
    return {name: text for name, text in environment.items() if name.startswith(COLD)}


class WarmCommandLine:
    """A process that forks one for each call; ended by `close`."""

    def __init__(self) -> None:
        """It takes in the environment as it is now."""
        self.cold = cold_part(dict(os.environ))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        self._socket = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait(timeout=60)

    def run(
        self, words: list[str], text: str | None, folder: str, environment: dict[str, str],
        timeout_s: float,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """One call; subprocess.TimeoutExpired: it was killed."""
        told: list[str] = ["", ""]
        ends = [os.pipe(), os.pipe()]
        readers = [
            threading.Thread(target=_read, args=(end, told, at)) for at, (end, _) in enumerate(ends)
        ]
        with tempfile.TemporaryFile() as given:
            given.write((text or "").encode())
            given.seek(0)
            named = [os.fspath(word) for word in words]
            call = json.dumps([named, folder, environment]).encode()
            socket.send_fds(self._socket, [call], [given.fileno(), *(end for _, end in ends)])
        for _, end in ends:
            os.close(end)
        pid = int(self._socket.recv(64))
        for reader in readers:
            reader.start()
        self._socket.settimeout(timeout_s)
        try:
            status = int(self._socket.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._socket.settimeout(60)
            self._socket.recv(64)
            raise subprocess.TimeoutExpired(words, timeout_s) from None
        finally:
            self._socket.settimeout(None)
        for reader in readers:  # as subprocess.run: until nobody has it open any more
            reader.join()
        said, complained = told
        return subprocess.CompletedProcess(words, status, said, complained)


def _read(end: int, told: list[str], at: int) -> None:
    with os.fdopen(end, encoding="utf-8") as stream:
        told[at] = stream.read()


def _serve(fd: int) -> None:
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=fd) as calls:
        while True:
            call, fds, _, _ = socket.recv_fds(calls, MESSAGE_BYTES, 3)
            if not call:
                return
            pid = os.fork()
            if pid == 0:
                calls.close()
                _call(*json.loads(call), fds)
            for each in fds:
                os.close(each)
            calls.send(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(BrokenPipeError):
                calls.send(str(os.waitstatus_to_exitcode(status)).encode())


def _call(
    words: list[str], folder: str, environment: dict[str, str], fds: list[int]
) -> NoReturn:  # fmt: skip
    """As `python -c 'sys.exit(main())' WORD...` ends it."""
    code = 1
    try:
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        for fd in fds:
            os.close(fd)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["-c", *words]
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        main = importlib.import_module("runner.surfaces.cli.main").main
        try:
            code = main() or 0
        except SystemExit as error:
            if isinstance(error.code, str):
                sys.stderr.write(f"{error.code}\n")
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    _serve(int(sys.argv[1]))
