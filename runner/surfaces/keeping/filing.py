"""Reads and writes a session's files for who is outside, by the rules on paths.

What is decided about is the path as it is written and, where that goes through links, the one that
it leads to: who works in the sandbox could make a link to what a rule denies to read from outside,
or to change. In the sandbox no link is followed (`launcher/files.py`): it tells where one leads,
that is decided about, and done then by a path without links, or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from dataclasses import replace

from runner.app import Runner
from runner.compile import HOME
from runner.deciding import decide_path
from runner.errors import RequestError
from runner.model.event import EventDraft, EventKind
from runner.model.intent import Access
from runner.model.limits import UNLIMITED
from runner.model.profile import WorkspaceMode
from runner.model.request import Argv, ExecRequest
from runner.model.session import FileDeed, FileTask
from runner.ports import SessionLease, Streams
from runner.records import decision_data
from runner.schema.outcome import decision_document
from runner.sessions import wire
from runner.streams import Cancellation, FdSink, Gate
from runner.surfaces.keeping.gone import Gone

SAID_BYTES = 1 << 20
"""Of what there is to say about a file; a listing goes another way."""
MOST_LINKS = 8
"""So often a path may lead to another one, of which each is free of links when it is told: more
there are only where something goes on making links."""
_CHANGING = frozenset({FileDeed.WRITE, FileDeed.REMOVE})
_LOOPS: wire.Document = {"errno": errno.ELOOP, "why": os.strerror(errno.ELOOP)}


class Files:
    """Those of one session."""

    def __init__(
        self, runner: Runner, request: ExecRequest, session_id: str, ending: Cancellation
    ) -> None:
        """`request`: of the session; `ending`: set when it is over."""
        self._runner = runner
        self._request = request
        self._id = session_id
        self._ending = ending

    def do(
        self,
        document: wire.Document,
        fds: list[int],
        channel: socket.socket,
        lease: SessionLease,
    ) -> wire.Document:
        """What is asked for; recorded. `fds`: where content comes from, and where it goes.

        RequestError: it can't be asked for so.
        """
        task = FileTask(**{**document, "do": FileDeed(document["do"])})
        if not task.path or "\0" in task.path:
            raise RequestError("a file is named by its path")
        if task.do is FileDeed.WRITE and task.size_bytes is None:
            raise RequestError("what is written needs its size, or a part would pass for the whole")
        request = replace(self._request, program=Argv(("file",)), within=self._id)
        policy, facts = self._runner.held_against(request)
        base = HOME if policy.profile.workspace is WorkspaceMode.NONE else request.directory
        task = replace(task, path=os.path.join(base, task.path))  # noqa: PTH118  (keeps `..`)
        through: str | None = None
        for _ in range(MOST_LINKS):
            path = os.path.normpath(task.path)
            access = Access.WRITE if task.do in _CHANGING else Access.READ
            decision = decide_path(request, path, access, policy, facts)
            data = {
                "do": task.do.value,
                "path": path,
                "through": through,
                "size_bytes": task.size_bytes,
                "decision": decision_data(decision),
            }
            with self._runner.store.transaction() as tx:
                whose = self._request.principal
                tx.append(EventDraft(EventKind.SESSION_FILE, data, whose, self._id))
            answer: wire.Document = {"decision": decision_document(decision), "told": {}}
            if not decision.permits:
                return {**answer, "problem": None, "errno": None}
            found, leads = self._tried(task, fds, channel, lease)
            if leads in (None, task.path):  # the latter: a link to itself
                break
            through, task = path, replace(task, path=leads)
        if "errno" in found:
            return {**answer, "problem": found["why"], "errno": found["errno"]}
        return {**answer, "told": found, "problem": None, "errno": None}

    def _tried(
        self, task: FileTask, fds: list[int], channel: socket.socket, lease: SessionLease
    ) -> tuple[wire.Document, str | None]:
        """What is told of it; or the path to be decided about before anything is done.

        Before content goes in, the way to it is looked at: what went in does not come again.
        """
        if task.do is FileDeed.WRITE and (folder := task.path.rpartition("/")[0]):
            look = FileTask(FileDeed.STAT, f"{folder}/.")
            leads = _leads(self._worked(look, (None, fds[1]), channel, lease))
            if leads is not None:
                return _LOOPS, os.path.join(leads, task.path.rpartition("/")[2])  # noqa: PTH118
        found = self._worked(task, (fds[0], fds[1]), channel, lease)
        leads = None if task.do is FileDeed.WRITE else _leads(found)
        return found, leads

    def _worked(
        self,
        task: FileTask,
        fds: tuple[int | None, int],
        channel: socket.socket,
        session: SessionLease,
    ) -> wire.Document:
        lease = session.work(task)
        gate = Gate(UNLIMITED, SAID_BYTES)
        said = _Kept()
        try:
            with Cancellation() as never, Gone(channel, self._ending) as gone:
                # Who goes away while it writes sends no more, and less than was said: then what
                # there is of it is removed, which one that is killed can't do.
                cancel = never if task.do is FileDeed.WRITE else gone
                streams = Streams(fds[0], FdSink(fds[1]), said, gate)
                lease.run(streams, cancel)
        finally:
            lease.release()
        try:
            found = json.loads(said.text)
        except ValueError:
            return {"errno": 5, "why": "it was ended before it was done"}
        return found if isinstance(found, dict) else {"errno": 5, "why": "it said nothing"}


def _leads(found: wire.Document) -> str | None:
    """Another path that the one of a task leads to; the sandbox's word, and decided about."""
    leads = found.get("leads")
    return leads if isinstance(leads, str) and leads.startswith("/") and "\0" not in leads else None


class _Kept:
    """`ports.OutputSink` that keeps what comes."""

    def __init__(self) -> None:
        self.text = b""

    def fileno(self) -> int | None:
        return None

    def write(self, data: bytes) -> int:
        if len(self.text) < SAID_BYTES:
            self.text += data
        return len(data)
