"""A session, as whoever uses it has it: commands, files and processes in a sandbox that stays."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from runner.caller import Caller
from runner.client.outcomes import approval_of, decision_of, outcome_of, usage_of
from runner.errors import ForbiddenError, RequestError, UnreachableError, error_of
from runner.intake import ask_wait_s, build_request, checked_stdin
from runner.model.limits import LimitOverrides
from runner.model.outcome import Outcome
from runner.model.principal import Principal
from runner.model.request import ExecRequest, Hold
from runner.model.session import FileDeed, FileDone, FileTask, SessionProcess, SessionState
from runner.ports import CancelToken, OutputSink
from runner.sessions import wire
from runner.streams import FdSink, NullSink

_CHUNK_BYTES = 1 << 18
ANSWER_S = 30.0
"""A keeper answers a question about its session within this."""
_WHOLE_FILE_BYTES = 256 << 20
"""What `read` takes into memory at most."""


class Session:
    """One that goes on; safe to use from several threads.

    A context manager: its end stops the session.
    """

    def __init__(self, home: Path, session_id: str) -> None:
        """`home`: the state folder. UnreachableError: there is no such session."""
        self._home = home
        self.id = session_id
        self._first = self.state()

    @property
    def principal(self) -> Principal:
        """Whose it is, and so whose the commands in it are."""
        return self._first.principal

    @property
    def profile(self) -> str:
        """What its commands are held against."""
        return self._first.profile

    def state(self) -> SessionState:
        """How it stands now."""
        document = self._ask("show")
        return SessionState(
            **{**document, "principal": Principal(**document["principal"]),
               "runs": tuple(document["runs"])}
        )  # fmt: skip

    def run(
        self,
        argv: Sequence[str] | None = None,
        *,
        shell: str | None = None,
        script: str | os.PathLike[str] | None = None,
        code: str | bytes | None = None,
        language: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        stdin: int | bytes | str | None = None,
        limits: Mapping[str, object] | LimitOverrides | None = None,
        labels: Mapping[str, str] | None = None,
        stdout: OutputSink | None = None,
        stderr: OutputSink | None = None,
        cancel: CancelToken | None = None,
        ask_wait: str | float | None = None,
    ) -> Outcome:
        """Run a command in it, decided, metered and recorded by itself; see `Runner.run`.

        It starts in the workspace. What it leaves running goes on with the session. `limits`: of
        `wall`, `cpu_time`, `output` and `open_files`; the others hold for the session as a whole.
        """
        source = checked_stdin(stdin)
        request = build_request(
            argv=argv, shell=shell, script=script, code=code, language=language, args=args,
            env=env, limits=limits, labels=labels,
        )  # fmt: skip
        caller = Caller(
            source,
            stdout or NullSink(),
            stderr or NullSink(),
            ask_wait_s=-1.0 if ask_wait is None else ask_wait_s(ask_wait),
        )
        return self.execute(request, caller, cancel)

    def execute(
        self, request: ExecRequest, caller: Caller, cancel: CancelToken | None = None
    ) -> Outcome:
        """Run a request that was built already: its program, environment, limits and labels.

        Whose it is, its profile and its folder are the session's. A caller's `ask_wait_s` below 0:
        as the session's settings say.
        """
        if isinstance(request.program, Hold):
            raise RequestError("a session holds no other session")
        document: wire.Document = {
            "program": wire.program_document(request.program),
            "blobs": [getattr(request.program, "content", b"")],
            "environment": [list(each) for each in request.environment],
            "limits": wire.limits_document(request.limits),
            "labels": [list(each) for each in request.labels],
            "terminal": request.terminal,
            "ask_wait_s": None if caller.ask_wait_s < 0 else caller.ask_wait_s,
            "run_id": caller.run_id,
            "identity": caller.identity,
        }
        with (
            contextlib.closing(wire.connect(self._home, self.id)) as channel,
            _Streams(caller) as streams,
        ):
            wire.say(channel, "run", document, streams.given)
            streams.given_away()
            return _followed(channel, caller, cancel)

    def do(
        self, task: FileTask, source: BinaryIO | None = None, target: BinaryIO | None = None
    ) -> FileDone:
        """Something with its files; decided by the rules on paths, and recorded.

        `source`: what is written; `target`: where what is read, or listed as a JSON object a line,
        goes. What is written is there whole or not at all; of unknown size it is taken in first.
        """
        if task.do is FileDeed.WRITE and task.size_bytes is None:
            with tempfile.TemporaryFile() as spooled:
                if source is not None:
                    shutil.copyfileobj(source, spooled, _CHUNK_BYTES)
                size_bytes = spooled.tell()
                spooled.seek(0)
                return self.do(replace(task, size_bytes=size_bytes), spooled, target)
        document = {
            "do": task.do.value, "path": task.path, "offset": task.offset, "length": task.length,
            "size_bytes": task.size_bytes, "executable": task.executable,
        }  # fmt: skip
        with contextlib.closing(wire.connect(self._home, self.id)) as channel:
            in_r, in_w = os.pipe2(os.O_CLOEXEC)
            out_r, out_w = os.pipe2(os.O_CLOEXEC)
            try:
                wire.say(channel, "file", document, (in_r, out_w))
            finally:
                os.close(in_r)
                os.close(out_w)
            feeding = threading.Thread(target=_feed, args=(source, in_w), name="session file")
            feeding.start()
            with os.fdopen(out_r, "rb") as coming:
                while data := coming.read1(_CHUNK_BYTES):
                    if target is not None:
                        target.write(data)
            feeding.join()
            told = _answer(channel)
        return FileDone(decision_of(told["decision"]), told["told"], told["problem"], told["errno"])

    def read(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file's content. ForbiddenError: the rules deny it; RequestError: it can't be."""
        target = io.BytesIO()
        most = _WHOLE_FILE_BYTES + 1
        task = FileTask(FileDeed.READ, path, offset, most if length is None else min(length, most))
        _checked(self.do(task, target=target), path)
        content = target.getvalue()
        if len(content) > _WHOLE_FILE_BYTES:
            raise RequestError(f"{path!r} is larger than {_WHOLE_FILE_BYTES >> 20} MiB: use `do`")
        return content

    def write(self, path: str, content: bytes | str, *, executable: bool = False) -> None:
        """Put a file there, in the place of what stood there, and folders on the way.

        ForbiddenError: the rules deny it; RequestError: it can't be.
        """
        raw = content.encode() if isinstance(content, str) else content
        task = FileTask(FileDeed.WRITE, path, size_bytes=len(raw), executable=executable)
        _checked(self.do(task, source=io.BytesIO(raw)), path)

    def processes(self) -> tuple[SessionProcess, ...]:
        """What runs in it, of all commands."""
        found = self._ask("processes")["processes"]
        return tuple(SessionProcess(**{**each, "argv": tuple(each["argv"])}) for each in found)

    def end_process(self, number: int, signal: int = 15) -> bool:
        """Send it a signal (by its number inside); False: there is none. Recorded."""
        return bool(self._ask("end", {"number": number, "signal": signal})["found"])

    def stop(self) -> Outcome:
        """End it and all that runs in it; its outcome tells what it changed in the workspace."""
        with contextlib.closing(wire.connect(self._home, self.id)) as channel:
            wire.say(channel, "stop", {})
            return _outcome(_answer(channel))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(UnreachableError):
            self.stop()

    def _ask(self, what: str, document: wire.Document | None = None) -> wire.Document:
        with contextlib.closing(wire.connect(self._home, self.id)) as channel:
            channel.settimeout(ANSWER_S)
            wire.say(channel, what, document or {})
            return _answer(channel)


class _Streams:
    """A caller's streams as descriptors to give away; what is no descriptor is carried here."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._opened: list[int] = []
        self._threads: list[threading.Thread] = []
        self.given: tuple[int, ...] = ()

    def __enter__(self) -> _Streams:
        caller = self._caller
        given = [self._stdin(caller.stdin), self._sink(caller.stdout), self._sink(caller.stderr)]
        if caller.terminal is not None:
            given.append(caller.terminal)
        self.given = tuple(given)
        return self

    def given_away(self) -> None:
        """They were sent: what was made for that is closed here."""
        for fd in self._opened:
            os.close(fd)
        self._opened = []

    def __exit__(self, *_: object) -> None:
        self.given_away()
        for thread in self._threads:
            thread.join()

    def _stdin(self, stdin: int | bytes | None) -> int:
        if isinstance(stdin, int):
            return stdin
        fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
        self._opened.append(fd)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(stdin or b"")
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _sink(self, sink: OutputSink) -> int:
        # Of others a descriptor is only what is waited on before `write`.
        if isinstance(sink, FdSink) and (fd := sink.fileno()) is not None:
            return fd
        read, write = os.pipe2(os.O_CLOEXEC)
        self._opened.append(write)
        thread = threading.Thread(target=_carry, args=(read, sink), name="session output")
        self._threads.append(thread)
        thread.start()
        return write


def _carry(fd: int, sink: OutputSink) -> None:
    waited = select.poll()  # not select(): descriptors may be above 1023
    if (place := sink.fileno()) is not None:
        waited.register(place, select.POLLOUT)
    with os.fdopen(fd, "rb") as file, contextlib.suppress(OSError):
        while data := file.read1(_CHUNK_BYTES):
            while data:
                if place is not None:
                    waited.poll()
                data = data[sink.write(data) :]


def _feed(source: BinaryIO | None, fd: int) -> None:
    with os.fdopen(fd, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while source is not None and (data := source.read(_CHUNK_BYTES)):
            view = memoryview(data)
            while view:
                view = view[file.write(view) or 0 :]


def _followed(channel: socket.socket, caller: Caller, cancel: CancelToken | None) -> Outcome:
    """Until it is over; what is told meanwhile goes to the caller's observer."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if cancel is not None:
        poll.register(cancel.fileno(), select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if cancel is not None and cancel.fileno() in ready:
            poll.unregister(cancel.fileno())
            with contextlib.suppress(UnreachableError):
                wire.say(channel, "cancel", {})
        if channel.fileno() in ready:
            said, document, _ = wire.hear(channel)
            if said == "over":
                return _outcome(_without_error(document))
            _tell(caller, said, document)


def _tell(caller: Caller, said: str, document: wire.Document) -> None:
    observer = caller.observer
    if observer is None:
        return
    if said == "decided":
        observer.decided(document["run_id"], decision_of(document["decision"]))
    elif said == "used":
        observer.used(usage_of(document["usage"]))
    elif said == "asked":
        observer.asked(approval_of(document["approval"], "the question"))


def _answer(channel: socket.socket) -> wire.Document:
    _, document, _ = wire.hear(channel)
    return _without_error(document)


def _without_error(document: wire.Document) -> wire.Document:
    """Raise what the keeper failed in."""
    told = document.get("error")
    if told is None:
        return document
    error = error_of(told["code"], told["message"])
    if document.get("outcome") is not None:
        error.outcome = outcome_of(document["outcome"])
    raise error


def _outcome(document: wire.Document) -> Outcome:
    return outcome_of(document["outcome"])


def _checked(done: FileDone, path: str) -> None:
    if not done.decision.permits:
        raise ForbiddenError(f"{path!r}: {done.decision.effect.value}: {done.decision.reason}")
    if done.problem is not None:
        raise RequestError(f"{path!r}: {done.problem}")
