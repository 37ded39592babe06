"""Holds the process that evaluates Rego policies: started when needed, ended when it is late."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runner.policy_points import rego_worker
from runner.policy_points.rego_worker import HEAD_BYTES, MESSAGE_LIMIT_BYTES, framed

INSTALL = "install runner-sandbox[rego]"
WALL_LIMIT_S = 10.0
"""For one decision, its turn included: enough on a busy machine, and it ends."""


class EvaluationError(Exception):
    """There is no answer; the message says why, as a clause."""


class RegoProcess:
    """Evaluates one set of policies; safe to use from several threads, which take turns."""

    def __init__(self, files: Sequence[tuple[str, str]]) -> None:
        """Start it and load the policies. EvaluationError: they don't compile. ImportError."""
        spec = find_spec("regopy")
        if spec is None or spec.origin is None:
            raise ImportError(INSTALL)
        self._library = str(Path(spec.origin).parent.parent)
        self._files = [list(each) for each in files]
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        with self._turn:
            self._start(time.monotonic() + WALL_LIMIT_S)

    def ask(self, documents: Sequence[str]) -> list[Any]:
        """An answer for each document, as the worker gives it; EvaluationError: there is none."""
        deadline = time.monotonic() + WALL_LIMIT_S
        if not self._turn.acquire(timeout=WALL_LIMIT_S):
            raise EvaluationError("other decisions take too long")
        try:
            if self._process is None:
                self._start(deadline)
            answer = self._exchange({"ask": list(documents)}, deadline)
        finally:
            self._turn.release()
        answers = answer.get("answers")
        if not isinstance(answers, list) or len(answers) != len(documents):
            raise EvaluationError("its process gave no answer")
        return answers

    def close(self) -> None:
        """End the process; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _start(self, deadline: float) -> None:
        # Nothing of this process goes with it: no environment, no descriptor, no user's Python.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(Path(rego_worker.__file__)), self._library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            bufsize=0,
        )
        self._process = process
        weakref.finalize(self, _end, process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
        answer = self._exchange({"load": self._files}, deadline)
        if "error" in answer:
            self.close()
            raise EvaluationError(str(answer["error"]))

    def _exchange(self, message: object, deadline: float) -> dict[str, Any]:
        """One message and its answer; whatever goes wrong ends the process."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EvaluationError("its process has ended")
        data = framed(message)
        try:
            if len(data) > MESSAGE_LIMIT_BYTES:
                raise EvaluationError("the request is too large")
            _send(process.stdin.fileno(), data, deadline)
            head = _receive(process.stdout.fileno(), HEAD_BYTES, deadline)
            size = int.from_bytes(head, "big")
            if size > MESSAGE_LIMIT_BYTES:
                raise EvaluationError("the answer is too large")
            answer = json.loads(_receive(process.stdout.fileno(), size, deadline))
        except (OSError, ValueError, RecursionError):
            self.close()
            raise EvaluationError("its process gave no answer") from None
        except BaseException:
            self.close()
            raise
        return answer if isinstance(answer, dict) else {}


def _send(descriptor: int, data: bytes, deadline: float) -> None:
    left = memoryview(data)
    while left:
        _wait(descriptor, select.POLLOUT, deadline)
        left = left[os.write(descriptor, left[: select.PIPE_BUF]) :]


def _receive(descriptor: int, size: int, deadline: float) -> bytes:
    parts = []
    while size:
        _wait(descriptor, select.POLLIN, deadline)
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EvaluationError("its process ended: it took too much time or memory")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise EvaluationError("it took too long")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()
