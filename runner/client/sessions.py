"""Sessions of a server: sandboxes whose files and processes live on between commands."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from runner.client.bodies import content, program_body, stdin_body
from runner.client.channel import Channel, with_query
from runner.client.outcomes import moment_of, outcome_of
from runner.client.parsing import Fields, decoded
from runner.client.running import run_to_end
from runner.errors import NotFoundError, RequestError
from runner.model.limits import LimitOverrides
from runner.model.outcome import Outcome
from runner.model.principal import Principal
from runner.model.session import FileDeed, FileTask, SessionProcess, SessionState

if TYPE_CHECKING:
    from runner.ports import CancelToken, OutputSink

_WHOLE_FILE_BYTES = 256 << 20
"""What `read` takes into memory at most."""


class RemoteSessions:
    """The sessions of a server that are in the caller's reach."""

    def __init__(self, channel: Channel, *, is_here: bool) -> None:
        """`is_here`: the server is on this machine."""
        self._channel = channel
        self._is_here = is_here

    def start(
        self,
        *,
        profile: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        files: Mapping[str, bytes | str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, object] | LimitOverrides | None = None,
        labels: Mapping[str, str] | None = None,
        lifetime: str | float | None = None,
        idle: str | float | None = None,
    ) -> RemoteSession:
        """Begin one; see `Sessions.start`.

        Without `cwd` it has a fresh folder of its own on the server, which holds `files` (relative
        path to content).
        """
        body = program_body(
            None, is_here=self._is_here, profile=profile, agent=agent, parent=parent,
            session=session, tenant=tenant, cwd=cwd, env=env, limits=limits, labels=labels,
        )  # fmt: skip
        if files:
            body["files"] = {path: content(data) for path, data in files.items()}
        body |= {
            name: value
            for name, value in (("lifetime", lifetime), ("idle", idle))
            if value is not None
        }
        headers = {"Idempotency-Key": os.urandom(16).hex()}
        answer = self._channel.call("POST", "/v1/sessions", body, headers=headers, again=True)
        return RemoteSession(self._channel, _state_of(answer.document(), "the session"))

    def get(self, session_id: str) -> RemoteSession:
        """One that goes on. NotFoundError: there is none of that id."""
        answer = self._channel.call("GET", _path(session_id))
        return RemoteSession(self._channel, _state_of(answer.document(), "the session"))

    def all(self) -> tuple[RemoteSession, ...]:
        """Those that go on, the oldest first."""
        found: list[RemoteSession] = []
        cursor: str | None = None
        while True:
            answer = self._channel.call("GET", "/v1/sessions", query={"cursor": cursor})
            f = Fields(answer.document(), "the sessions")
            states = f.each("sessions", _state_of)
            cursor = f.maybe("next", f.text)
            f.done()
            found += [RemoteSession(self._channel, state) for state in states]
            if cursor is None:
                return tuple(reversed(found))


class RemoteSession:
    """One that goes on; safe to use from several threads.

    A context manager: its end stops the session. What is asked of one that has ended is
    NotFoundError.
    """

    def __init__(self, channel: Channel, state: SessionState) -> None:
        """As it stood when it was asked for."""
        self._channel = channel
        self.id = state.id
        self.principal = state.principal
        """Whose it is, and so whose the commands in it are."""
        self.profile = state.profile
        """What its commands are held against."""

    def state(self) -> SessionState:
        """How it stands now."""
        return _state_of(self._channel.call("GET", self._path()).document(), "the session")

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
        """Run a command in it; see `Session.run`, and `RemoteRunner.run` for its streams."""
        body = program_body(
            argv, is_here=False, shell=shell, script=script, code=code, language=language,
            args=args, env=env, limits=limits, labels=labels,
        )  # fmt: skip
        if (read := stdin_body(stdin)) is not None:
            body["stdin"] = read
        if ask_wait is not None:
            body["ask_wait"] = ask_wait
        return run_to_end(self._channel, self._path("/runs"), body, stdout, stderr, cancel)

    def do(
        self, task: FileTask, source: BinaryIO | None = None, target: BinaryIO | None = None
    ) -> Mapping[str, Any]:
        """Something with its files; decided by the rules on paths, and recorded.

        `source`: what is written, whose size the task has to say, or it is read into memory first;
        `target`: where what is read, or listed as a JSON object a line, goes. Returns what
        `FileDone.told` has. Unlike `Session.do` it raises what a server refuses: ForbiddenError
        (the rules deny it), NotFoundError (there is no such file), RequestError.
        """
        query: dict[str, object] = {"path": task.path}
        match task.do:
            case FileDeed.READ:
                return self._read(task, target)
            case FileDeed.WRITE:
                return self._write(task, source)
            case FileDeed.LIST:
                answer = self._channel.call("GET", self._path("/files/list"), query=query)
                return _listed(answer.document(), target)
            case FileDeed.STAT:
                answer = self._channel.call("GET", self._path("/files/stat"), query=query)
                return _row_of(answer.document(), "the file")
            case FileDeed.REMOVE:
                self._channel.call("DELETE", with_query(self._path("/files"), query))
                return {}

    def read(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file's content. ForbiddenError: the rules deny it; RequestError: it can't be."""
        target = io.BytesIO()
        most = _WHOLE_FILE_BYTES + 1
        task = FileTask(FileDeed.READ, path, offset, most if length is None else min(length, most))
        try:
            self.do(task, target=target)
        except NotFoundError as error:
            raise RequestError(str(error)) from error  # as the library has it
        found = target.getvalue()
        if len(found) > _WHOLE_FILE_BYTES:
            raise RequestError(f"{path!r} is larger than {_WHOLE_FILE_BYTES >> 20} MiB: use `do`")
        return found

    def write(self, path: str, content: bytes | str, *, executable: bool = False) -> None:
        """Put a file there, in the place of what stood there, and folders on the way.

        ForbiddenError: the rules deny it; RequestError: it can't be. TooLargeError: the server
        takes no file of that size.
        """
        raw = content.encode() if isinstance(content, str) else content
        task = FileTask(FileDeed.WRITE, path, size_bytes=len(raw), executable=executable)
        self.do(task, source=io.BytesIO(raw))

    def processes(self) -> tuple[SessionProcess, ...]:
        """What runs in it, of all commands."""
        answer = self._channel.call("GET", self._path("/processes"))
        f = Fields(answer.document(), "the processes")
        found = f.each("processes", _process_of)
        f.done()
        return found

    def end_process(self, number: int, signal: int = 15) -> bool:
        """Send it a signal (by its number inside); False: there is none. Recorded."""
        path = with_query(self._path(f"/processes/{number}"), {"signal": signal})
        try:
            self._channel.call("DELETE", path)
        except NotFoundError:
            self.state()  # or it is the session that there is none of
            return False
        return True

    def stop(self) -> Outcome:
        """End it and all that runs in it; its outcome tells what it changed in the workspace."""
        return outcome_of(self._channel.call("DELETE", self._path()).document())

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(NotFoundError):
            self.stop()

    def _path(self, what: str = "") -> str:
        return _path(self.id, what)

    def _read(self, task: FileTask, target: BinaryIO | None) -> Mapping[str, Any]:
        query = {"path": task.path, "offset": task.offset, "length": task.length}
        count = 0
        with self._channel.contents("GET", self._path("/files"), query) as pieces:
            for data in pieces:
                count += len(data)
                if target is not None:
                    target.write(data)
        return {"bytes": count}

    def _write(self, task: FileTask, source: BinaryIO | None) -> Mapping[str, Any]:
        size = task.size_bytes
        if source is None or size is None:
            raw = b"" if source is None else source.read()
            source, size = io.BytesIO(raw), len(raw)
        query = {"path": task.path, "executable": "true" if task.executable else None}
        with self._channel.contents("PUT", self._path("/files"), query, (source, size)) as pieces:
            f = Fields(decoded(b"".join(pieces), "what was written"), "what was written")
        f.text("path")
        found = {"bytes": f.integer("size_bytes")}
        f.done()
        return found


def _path(session_id: str, what: str = "") -> str:
    if not session_id:
        raise RequestError("name a session by its id")
    return f"/v1/sessions/{quote(session_id, safe='')}{what}"


def _state_of(value: object, where: str) -> SessionState:
    f = Fields(value, where)
    found = SessionState(
        id=f.text("id"),
        principal=Principal(
            uid=f.integer("uid"),
            agent=f.text("agent"),
            parent=f.maybe("parent", f.text),
            session=f.maybe("session", f.text),
            tenant=f.maybe("tenant", f.text),
        ),
        profile=f.text("profile"),
        backend=f.text("backend"),
        directory=f.text("directory"),
        began_s=f.inner("began", moment_of),
        ends_s=f.inner("ends", moment_of),
        idle_limit_s=f.number("idle_limit_s"),
        idle_s=f.number("idle_s"),
        runs=f.texts("runs"),
        processes=f.integer("processes"),
    )
    f.done()
    return found


def _process_of(value: object, where: str) -> SessionProcess:
    f = Fields(value, where)
    found = SessionProcess(
        number=f.integer("number"),
        name=f.text("name"),
        argv=f.texts("argv"),
        cpu_s=f.number("cpu_s"),
        memory_bytes=f.integer("memory_bytes"),
        started_s=f.inner("started", moment_of),
    )
    f.done()
    return found


def _row_of(value: object, where: str) -> dict[str, Any]:
    """As `FileDone.told` has it, with the name."""
    f = Fields(value, where)
    found: dict[str, Any] = {
        "name": f.text("name"),
        "type": f.text("type"),
        "size_bytes": f.integer("size_bytes"),
        "mode": f.integer("mode"),
        "modified_s": f.maybe_inner("modified", moment_of),
    }
    if (target := f.maybe("target", f.text)) is not None:
        found["target"] = target
    f.done()
    return found


def _listed(value: object, target: BinaryIO | None) -> dict[str, Any]:
    f = Fields(value, "the folder")
    f.text("path")
    rows = f.each("entries", _row_of)
    found = {"entries": len(rows), "truncated": f.flag("truncated")}
    f.done()
    if target is not None:
        for row in rows:
            target.write(json.dumps(row).encode("ascii") + b"\n")
    return found
