"""The process that keeps one session: holds its sandbox, and carries out what comes for it.

It is started by whoever begins a session and outlives them. It has a `Runner` of its own, so what
it decides, meters and records is what every other one would; the session itself is a run, with the
lifetime for its limit of wall time, so that it is killed, recovered and listed like any other. What
ends it: `stop`, its lifetime, its idle limit, a budget, a kill, SIGTERM; and if this process dies,
the sandbox dies with it, and the next start of any runner closes its record.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from runner.app import Runner
from runner.caller import Caller
from runner.errors import RequestError, RunnerError, UnreachableError
from runner.model.approval import Approval
from runner.model.decision import Decision
from runner.model.event import EventDraft, EventKind
from runner.model.limits import LIMIT_KEYS, LimitOverrides
from runner.model.outcome import Outcome
from runner.model.request import ExecRequest, Hold
from runner.model.usage import Usage
from runner.ports import SessionLease
from runner.schema.outcome import decision_document, outcome_document
from runner.sessions import wire
from runner.streams import Cancellation, FdSink, NullSink
from runner.surfaces.http.peers import peer_of
from runner.surfaces.keeping.filing import Files
from runner.surfaces.keeping.gone import Gone
from runner.surfaces.keeping.holding import Holding
from runner.surfaces.standing import approval_document

AT_ONCE = 64
"""Connections; each has a thread."""
HEAR_WITHIN_S = 30.0
"""Who connects says what it wants within this."""
ENDED = "the session has ended; begin a new one"
FINISH_WITHIN_S = 60.0
"""Its sandbox is gone: what is under way has only its end to record."""
LEAVE_WITHIN_S = 5.0
"""And goes within this once it has its answer."""
_OF_A_COMMAND = frozenset({"wall_s", "cpu_time_s", "output_bytes", "open_files"})
"""Limits that a command can have for itself."""


class Keeper:
    """One session, from its start to its end."""

    def __init__(
        self, runner: Runner, request: ExecRequest, session_id: str, identity: str | None = None
    ) -> None:
        """`request`: of the session; its program is a `Hold`. `identity`: as `Caller` has it."""
        if not isinstance(request.program, Hold):
            raise RequestError("a session is begun with a hold")
        self._runner = runner
        self._request = request
        self._hold = request.program
        self._id = session_id
        self._identity = identity
        self._holding = Holding(runner.backend())
        self._cancel = Cancellation()
        self._decided = threading.Event()
        self._over = threading.Event()
        self._result: wire.Document = {}
        self._began_s = time.time()
        self._guard = threading.Lock()
        self._runs: set[str] = set()
        self._room = threading.Semaphore(AT_ONCE)
        self._ending = Cancellation()
        """Set when the session is over: who waits for an answer waits no more."""
        self._files = Files(runner, request, session_id, self._ending)
        self._none = threading.Condition()
        self._carried = 0
        """What is under way that may have something to record."""
        self._closed = False

    def begin(self) -> threading.Thread:
        """Let the session begin; see `await_begun`."""
        thread = threading.Thread(target=self._carry, name="session")
        thread.start()
        return thread

    def await_begun(self) -> wire.Document:
        """Wait until commands can come: `id`, or what came of it instead."""
        while not self._over.is_set():
            if self._decided.is_set() and self._holding.lease is not None:
                return {"id": self._id}
            self._over.wait(0.002)
        return self._result

    def end(self) -> None:
        """Whoever began it, or an operator, wants it no more."""
        if self._holding.lease is not None:
            self._holding.lease.stop()
        else:
            self._cancel.set()

    def serve(self, listener: socket.socket) -> None:
        """Take what comes until the session is over."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while not self._over.is_set():
            if not poll.poll(50):
                continue
            with contextlib.suppress(BlockingIOError):
                channel, _ = listener.accept()
                if not self._room.acquire(blocking=False):
                    channel.close()
                    continue
                threading.Thread(
                    target=self._answer, args=(channel,), name="session call", daemon=True
                ).start()

    def finish(self) -> None:
        """Take nothing more, and wait until all that was under way is recorded."""
        self._ending.set()
        with self._none:
            self._closed = True
            self._none.wait_for(lambda: not self._carried, FINISH_WITHIN_S)

    @contextlib.contextmanager
    def _carrying(self) -> Iterator[None]:
        """What has to be over before the log is let go of. UnreachableError: it is too late."""
        with self._none:
            if self._closed:
                raise UnreachableError(ENDED)
            self._carried += 1
        try:
            yield
        finally:
            with self._none:
                self._carried -= 1
                self._none.notify_all()

    # What the session's own run tells (`ports.Observer`).

    def asked(self, approval: Approval) -> None:
        """Nothing asks about a session that holds no program."""

    def decided(self, run_id: str, decision: Decision) -> None:
        """It stands in the log."""
        del run_id, decision
        self._decided.set()

    def used(self, usage: Usage) -> None:
        """Whoever asks looks it up."""

    def _carry(self) -> None:
        caller = Caller(
            None,
            NullSink(),
            NullSink(),
            observer=self,
            run_id=self._id,
            identity=self._identity,
        )
        try:
            outcome = self._runner.execute(
                self._request, caller, self._cancel, backend=self._holding
            )
            self._result = {"outcome": _document(outcome)}
        except RunnerError as error:
            self._result = told(error)
        finally:
            self._over.set()

    def _answer(self, channel: socket.socket) -> None:
        try:
            with contextlib.closing(channel):
                peer = peer_of(channel)
                if peer is None or peer.confined or peer.uid not in (0, os.geteuid()):
                    return
                channel.settimeout(HEAR_WITHIN_S)
                what, document, fds = wire.hear(channel)
                channel.settimeout(None)
                try:
                    self._do(what, document, fds, channel)
                except RunnerError as error:
                    if self._over.is_set() and error.outcome is None:
                        error = UnreachableError(ENDED)
                    wire.say(channel, "over", told(error))
                except (KeyError, TypeError, ValueError, IndexError) as error:
                    wrong = RequestError(f"that is no message of this version: {error}")
                    wire.say(channel, "over", told(wrong))
                finally:
                    for fd in fds:
                        os.close(fd)
                _let_read(channel)
        except (RunnerError, OSError):
            return  # whoever asked has gone away
        finally:
            self._room.release()

    def _do(
        self, what: str, document: wire.Document, fds: list[int], channel: socket.socket
    ) -> None:
        match what:
            case "run":
                with self._carrying():
                    answer = self._run(document, fds, channel)
                wire.say(channel, "over", answer)
            case "file":
                with self._carrying():
                    answer = self._files.do(document, fds, channel, self._lease)
                wire.say(channel, "over", answer)
            case "show":
                wire.say(channel, "over", self._state())
            case "processes":
                found = [asdict(each) for each in self._lease.processes()]
                wire.say(channel, "over", {"processes": found})
            case "end":
                with self._carrying():
                    answer = self._end_process(document)
                wire.say(channel, "over", answer)
            case "stop":
                self.end()
                self._over.wait()
                wire.say(channel, "over", dict(self._result))
            case _:
                raise RequestError(f"a session knows no {what!r}")

    @property
    def _lease(self) -> SessionLease:
        lease = self._holding.lease
        if lease is None:
            raise RequestError("the session has not begun")
        return lease

    def _run(
        self, document: wire.Document, fds: list[int], channel: socket.socket
    ) -> wire.Document:
        request = self._command(document)
        wait_s = document["ask_wait_s"]
        telling = _Telling(channel, self)
        caller = Caller(
            fds[0],
            FdSink(fds[1]),
            FdSink(fds[2]),
            terminal=fds[3] if len(fds) > 3 else None,
            ask_wait_s=self._runner.settings.ask_wait.value if wait_s is None else wait_s,
            observer=telling,
            run_id=document["run_id"],
            identity=document["identity"],
        )
        try:
            with Gone(channel, self._ending) as gone:
                outcome = self._runner.execute(request, caller, gone, backend=self._lease.commands)
        finally:
            with self._guard:
                self._runs.discard(telling.run_id)
        return {"outcome": _document(outcome)}

    def _command(self, document: wire.Document) -> ExecRequest:
        own = wire.limits_of(document["limits"])
        words = [key for key, name in LIMIT_KEYS.items() if name not in _OF_A_COMMAND
                 and getattr(own, name) is not None]  # fmt: skip
        if words:
            raise RequestError(
                f"{', '.join(words)}: holds for the session as a whole; state it where that begins"
            )
        mine = self._request.limits
        whole = {name: getattr(mine, name) for name in LIMIT_KEYS.values()}
        stated = {name: getattr(own, name) for name in _OF_A_COMMAND}
        for name, bound in stated.items():
            if bound is not None:
                whole[name] = bound
        return replace(
            self._request,
            program=wire.program_of(document["program"], document["blobs"]),
            environment=(*self._request.environment, *map(tuple, document["environment"])),
            limits=LimitOverrides(**whole),
            labels=tuple(dict((*self._request.labels, *map(tuple, document["labels"]))).items()),
            terminal=bool(document["terminal"]),
            within=self._id,
        )

    def _end_process(self, document: wire.Document) -> wire.Document:
        number, sent = int(document["number"]), int(document["signal"])
        if sent not in set(signal.Signals):
            raise RequestError(f"there is no signal {sent}")
        known = {each.number: each.name for each in self._lease.processes()}
        if number not in known:
            return {"found": False}
        data = {"number": number, "name": known[number], "signal": sent}
        self._record(EventKind.SESSION_SIGNAL, data)
        return {"found": self._lease.end_process(number, sent)}

    def _record(self, kind: EventKind, data: Mapping[str, object]) -> None:
        with self._runner.store.transaction() as tx:
            tx.append(EventDraft(kind, data, self._request.principal, self._id))

    def _state(self) -> wire.Document:
        with self._guard:
            runs = sorted(self._runs)
        lease = self._lease
        return {
            "id": self._id,
            "principal": asdict(self._request.principal),
            "profile": self._request.profile,
            "backend": self._holding.name,
            "directory": self._request.directory,
            "began_s": self._began_s,
            "ends_s": self._began_s + self._hold.lifetime_s,
            "idle_limit_s": self._hold.idle_s,
            "idle_s": lease.idle_s,
            "runs": runs,
            "processes": len(lease.processes()),
        }

    def running(self, run_id: str) -> None:
        """A command has begun."""
        with self._guard:
            self._runs.add(run_id)


class _Telling:
    """`ports.Observer` of a command: tells whoever asked for it."""

    def __init__(self, channel: socket.socket, keeper: Keeper) -> None:
        self._channel = channel
        self._keeper = keeper
        self.run_id = ""

    def asked(self, approval: Approval) -> None:
        self._say("asked", {"approval": approval_document(approval)})

    def decided(self, run_id: str, decision: Decision) -> None:
        self.run_id = run_id
        self._keeper.running(run_id)
        self._say("decided", {"run_id": run_id, "decision": decision_document(decision)})

    def used(self, usage: Usage) -> None:
        self._say("used", {"usage": asdict(usage)})

    def _say(self, what: str, document: wire.Document) -> None:
        """Where nobody takes it, it is not said: the outcome has it all."""
        poll = select.poll()  # not select(): descriptors may be above 1023
        poll.register(self._channel, select.POLLOUT)
        if poll.poll(0):
            with contextlib.suppress(RunnerError):
                wire.say(self._channel, what, document)


def _let_read(channel: socket.socket) -> None:
    """Wait until the other side has gone: what it said last, unread, would undo what it was told.

    Closing a socket with something in it resets the connection (unix(7)).
    """
    channel.settimeout(LEAVE_WITHIN_S)
    with contextlib.suppress(OSError):
        while channel.recv(1):
            pass


def _document(outcome: Outcome) -> dict[str, object]:
    return outcome_document(outcome, with_output=True)


def told(error: RunnerError) -> wire.Document:
    """An error as whoever asked hears of it."""
    document: wire.Document = {"error": {"code": error.code, "message": str(error)}}
    if isinstance(error.outcome, Outcome):
        document["outcome"] = _document(error.outcome)
    return document
