"""`RemoteRunner`: the methods of `Runner`, of a server."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack
from urllib.parse import quote

from runner.client.bodies import content, program_body, stdin_body
from runner.client.channel import Answer, Channel
from runner.client.following import RemoteFollowing, ended_by, outcome_of_run
from runner.client.outcomes import decision_of, outcome_of
from runner.client.parsing import Fields
from runner.client.parts import RemoteApprovals, RemoteAudit, RemoteBudgets, RemoteKills
from runner.client.place import place_of
from runner.errors import RequestError, RunnerError
from runner.model.decision import Decision
from runner.model.following import Over, Written
from runner.model.outcome import Outcome
from runner.proposed import Proposed

if TYPE_CHECKING:
    from runner.changes.diff import FileDiff
    from runner.changes.results import Applied, RunChanges
    from runner.ports import CancelToken, OutputSink

WAIT_S = 10.0
"""A run that has ended by then is one request; of others it is asked how they go on."""


def connect(
    where: str,
    *,
    key: str | None = None,
    ca: str | os.PathLike[str] | None = None,
) -> RemoteRunner:
    """To the server at `unix:PATH`, `https://HOST:PORT`, or on this machine `http://HOST:PORT`.

    `key`: a key (`runner keys create`) or an issuer's token; over a unix socket the kernel tells
    who calls. `ca`: certificates (PEM) that the server's has to come from. RequestError: it is no
    such place; UnreachableError: nobody answers there.
    """
    place = place_of(where, ca)
    channel = Channel(place, key)
    channel.call("GET", "/healthz")
    return RemoteRunner(channel, is_here=place.path is not None)


class RemoteRunner:
    """What `Runner` does, done by a server; results and errors are the same.

    A context manager; safe to use from several threads. A call whose connection is cut is made
    again where that can't do anything twice; a run is begun once.
    """

    def __init__(self, channel: Channel, *, is_here: bool) -> None:
        """See `connect`. `is_here`: the server is on this machine."""
        self._channel = channel
        self._is_here = is_here
        self.budgets = RemoteBudgets(channel)
        """How budgets stand."""
        self.approvals = RemoteApprovals(channel)
        """What rules ask, and answering it."""
        self.kills = RemoteKills(channel)
        """Ending runs, and keeping agents from beginning more."""
        self.audit = RemoteAudit(channel)
        """The log: searched, checkpointed, and runs proved to be in it."""

    def run(
        self,
        argv: Sequence[str] | None = None,
        *,
        files: Mapping[str, bytes | str] | None = None,
        stdin: int | bytes | str | None = None,
        stdout: OutputSink | None = None,
        stderr: OutputSink | None = None,
        cancel: CancelToken | None = None,
        ask_wait: str | float | None = None,
        **program: Unpack[Proposed],
    ) -> Outcome:
        """Run one of `argv`, `shell` text, a `script` (path here) or `code` in a `language`.

        The arguments are those of `Runner.run`. Without `cwd` the run has a fresh folder of its
        own on the server, which holds `files` (relative path to content); with it, a folder on the
        server's machine. A `stdin` descriptor is read to its end first. Where a sink says that
        nobody reads, the run is cancelled.
        """
        body = self._run_body(argv, files, stdin, ask_wait, program)
        key = os.urandom(16).hex()
        if stdout is None and stderr is None and cancel is None:
            return self._waited(body, key)
        sinks = {"stdout": stdout, "stderr": stderr}
        with RemoteFollowing(self._channel, body, key) as events, ended_by(cancel, events.cancel):
            for event in events:
                if isinstance(event, Over):
                    return event.outcome
                if isinstance(event, Written) and (sink := sinks[event.stream]) is not None:
                    try:
                        _pour(sink, event.data)
                    except BrokenPipeError:
                        sinks[event.stream] = None
                        events.cancel()
        raise RunnerError(f"the run {events.run_id} was not followed to its end")

    def stream(
        self,
        argv: Sequence[str] | None = None,
        *,
        files: Mapping[str, bytes | str] | None = None,
        stdin: int | bytes | str | None = None,
        ask_wait: str | float | None = None,
        **program: Unpack[Proposed],
    ) -> RemoteFollowing:
        """Run it and follow what happens, event by event (`runner.model.following`).

        The arguments are those of `run`. The program waits while its output is not taken. When the
        connection was cut, `Missed` says that output is not to be had any more.
        """
        body = self._run_body(argv, files, stdin, ask_wait, program)
        return RemoteFollowing(self._channel, body, os.urandom(16).hex())

    def check(self, argv: Sequence[str] | None = None, **program: Unpack[Proposed]) -> Decision:
        """Only the decision, recorded as one that was asked for; see `Runner.check`."""
        body = program_body(argv, is_here=self._is_here, **program)
        f = Fields(self._channel.call("POST", "/v1/decisions", body).document(), "the decision")
        found = f.inner("decision", decision_of)
        f.done()
        return found

    def outcome(self, run_id: str) -> Outcome | None:
        """Of a run that has ended, also before this connection; None: it goes on."""
        return outcome_of_run(self._channel.call("GET", _run(run_id)).document())

    def changes(self, run_id: str) -> RunChanges:
        """What a run changed in its workspace, and what is left of it to apply."""
        from runner.client.changed import changes_of  # noqa: PLC0415  (rarely needed)

        return changes_of(self._channel.call("GET", _run(run_id, "/changes")).document())

    def diff(self, run_id: str, paths: Sequence[str] = ()) -> tuple[FileDiff, ...]:
        """What is left of a run's changes (at these paths, else all) against the originals."""
        from runner.client.changed import diffs_of  # noqa: PLC0415

        query = {"path": list(paths)} if paths else None
        return diffs_of(self._channel.call("GET", _run(run_id, "/diff"), query=query).document())

    def apply(self, run_id: str, paths: Sequence[str] = (), *, dry_run: bool = False) -> Applied:
        """Write what a run changed (at these paths, else all) into its workspace folder.

        In the name of who calls; see `Runner.apply`.
        """
        from runner.client.changed import applied_of  # noqa: PLC0415

        body = {"paths": list(paths), "dry_run": dry_run}
        return applied_of(self._channel.call("POST", _run(run_id, "/apply"), body).document())

    def discard(self, run_id: str) -> bool:
        """Throw away what is kept of a run's changes; False: nothing was."""
        f = Fields(self._channel.call("DELETE", _run(run_id, "/changes")).document(), "the answer")
        f.text("run_id")
        found = f.flag("discarded")
        f.done()
        return found

    def close(self) -> None:
        """Let go of all connections; may be called twice. Runs go on."""
        self._channel.close()

    def __enter__(self) -> RemoteRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_body(
        self,
        argv: Sequence[str] | None,
        files: Mapping[str, bytes | str] | None,
        stdin: int | bytes | str | None,
        ask_wait: str | float | None,
        program: Proposed,
    ) -> dict[str, object]:
        body = program_body(argv, is_here=self._is_here, **program)
        if files:
            body["files"] = {path: content(data) for path, data in files.items()}
        if (read := stdin_body(stdin)) is not None:
            body["stdin"] = read
        if ask_wait is not None:
            body["ask_wait"] = ask_wait
        return body

    def _waited(self, body: dict[str, object], key: str) -> Outcome:
        """One request if it ends soon; whoever interrupts this ends the run."""
        headers = {"Idempotency-Key": key}
        try:
            answer = self._channel.call(
                "POST", "/v1/runs", {**body, "wait": WAIT_S}, headers=headers, again=True
            )
            if answer.status != 202:
                return outcome_of(answer.document())
            run_id = _accepted(answer)
            with RemoteFollowing(self._channel, None, key, run_id=run_id) as events:
                for event in events:
                    if isinstance(event, Over):
                        return event.outcome
            raise RunnerError(f"the run {run_id} was not followed to its end")
        except RunnerError as error:
            self._with_outcome(error)
            raise
        except BaseException:
            # The same key: the same run, or one that is ended before it does anything.
            with contextlib.suppress(RunnerError):
                again = self._channel.call(
                    "POST", "/v1/runs", {**body, "wait": False}, headers=headers
                )
                if again.status == 202:
                    self._channel.call("DELETE", _run(_accepted(again)))
            raise

    def _with_outcome(self, error: RunnerError) -> None:
        """What was recorded of a run that runner failed in."""
        if error.outcome is None and error.run_id is not None:
            with contextlib.suppress(RunnerError):
                error.outcome = self.outcome(error.run_id)


def _accepted(answer: Answer) -> str:
    f = Fields(answer.document(), "the answer")
    run_id = f.text("id")
    f.text("status")
    f.done()
    return run_id


def _run(run_id: str, what: str = "") -> str:
    if not run_id:
        raise RequestError("name a run by its id")
    return f"/v1/runs/{quote(run_id, safe='')}{what}"


def _pour(sink: OutputSink, data: bytes) -> None:
    """All of it, waiting where the sink does. BrokenPipeError."""
    while data:
        fd = sink.fileno()
        if fd is not None:
            select.select([], [fd], [])
        try:
            data = data[sink.write(data) :]
        except BlockingIOError:
            continue
