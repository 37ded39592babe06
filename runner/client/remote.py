"""`RemoteRunner`: the methods of `Runner`, of a server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from runner.client.bodies import content, program_body, stdin_body
from runner.client.channel import Channel
from runner.client.following import RemoteFollowing, outcome_of_run
from runner.client.outcomes import decision_of
from runner.client.parsing import Fields
from runner.client.parts import RemoteApprovals, RemoteAudit, RemoteBudgets, RemoteKills
from runner.client.place import place_of
from runner.client.running import run_path, run_to_end
from runner.client.sessions import RemoteSessions
from runner.model.decision import Decision
from runner.model.outcome import Outcome
from runner.proposed import Proposed

if TYPE_CHECKING:
    from runner.changes.diff import FileDiff
    from runner.changes.results import Applied, RunChanges
    from runner.ports import CancelToken, OutputSink


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
        self.sessions = RemoteSessions(channel, is_here=is_here)
        """Sandboxes whose files and processes live on between commands."""

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
        return run_to_end(self._channel, "/v1/runs", body, stdout, stderr, cancel)

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
        return outcome_of_run(self._channel.call("GET", run_path(run_id)).document())

    def changes(self, run_id: str) -> RunChanges:
        """What a run changed in its workspace, and what is left of it to apply."""
        from runner.client.changed import changes_of  # noqa: PLC0415  (rarely needed)

        return changes_of(self._channel.call("GET", run_path(run_id, "/changes")).document())

    def diff(self, run_id: str, paths: Sequence[str] = ()) -> tuple[FileDiff, ...]:
        """What is left of a run's changes (at these paths, else all) against the originals."""
        from runner.client.changed import diffs_of  # noqa: PLC0415

        query = {"path": list(paths)} if paths else None
        return diffs_of(
            self._channel.call("GET", run_path(run_id, "/diff"), query=query).document()
        )

    def apply(self, run_id: str, paths: Sequence[str] = (), *, dry_run: bool = False) -> Applied:
        """Write what a run changed (at these paths, else all) into its workspace folder.

        In the name of who calls; see `Runner.apply`.
        """
        from runner.client.changed import applied_of  # noqa: PLC0415

        body = {"paths": list(paths), "dry_run": dry_run}
        return applied_of(self._channel.call("POST", run_path(run_id, "/apply"), body).document())

    def discard(self, run_id: str) -> bool:
        """Throw away what is kept of a run's changes; False: nothing was."""
        f = Fields(
            self._channel.call("DELETE", run_path(run_id, "/changes")).document(), "the answer"
        )
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
