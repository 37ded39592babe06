"""The runs of a server: so many at once, so many waiting, each in a thread, through one `Runner`.

What is decided and recorded is `Runner.execute`'s alone; here is only who waits for what. Of runs
that have ended the latest are remembered; the log has all.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from runner.app import Runner
from runner.audit.event import rfc3339
from runner.caller import Caller
from runner.errors import (
    BusyError,
    NotFoundError,
    RunnerError,
    StoppingError,
    UnreachableError,
)
from runner.model.approval import Approval
from runner.model.decision import Decision
from runner.model.outcome import Outcome
from runner.model.request import ExecRequest
from runner.model.usage import Usage
from runner.pacing import Pace
from runner.ports import CancelToken, OutputSink
from runner.schema.api_answers import RunStatus
from runner.schema.outcome import decision_document, outcome_document
from runner.settings import DEFAULT_SERVER_SESSIONS
from runner.streams import CallbackSink, Cancellation
from runner.surfaces.http.attached import Attached
from runner.surfaces.http.feed import Feed
from runner.surfaces.http.input import Input

USAGE_EVERY_S = 1.0
"""So often a reader is told what a run uses."""
REMEMBERED = 256
REMEMBERED_BYTES = 64 << 20
REMEMBERED_DISK_BYTES = 256 << 20
"""Of runs that have ended: how many, their outcomes and events, and their fresh workspaces."""
_JOB_BYTES = 8192
ENDING_S = 60.0
"""Cancelled runs are waited for this long at a stop; what is left then dies with its backend."""
WAITING_BYTES = 256 << 20
"""Programs, input and files of runs that have not ended, together."""


Execute = Callable[[ExecRequest, Caller, CancelToken], Outcome]


@dataclass(frozen=True, slots=True)
class How:
    """What else a request says of its run."""

    pace: Pace | None = None
    """Of who began it and follows it; None: nobody is waited for."""
    attached: Attached | None = None
    """The caller's own streams, in the place of events of output."""
    input: Input | None = None
    """What it reads as that comes, in the place of a whole."""
    environment: Mapping[str, str] | None = None
    """The caller's, which profiles inherit from; None: the server's."""
    ask_wait_s: float | None = None
    """None: as the server's setting says."""
    execute: Execute | None = None
    """What runs it in the place of the server's `Runner`: a session."""


class FeedSink(CallbackSink):
    """Tells a feed of output, at the pace of its owner."""

    def __init__(self, function: Callable[[bytes], object], pace: Pace | None) -> None:
        """`function`: takes all; `pace`: None: at once."""
        super().__init__(function)
        self._pace = pace

    def fileno(self) -> int | None:
        """The pace's."""
        return None if self._pace is None else self._pace.fileno()


class Job:
    """One run of this server. It is the run's observer, and keeps what is told of it."""

    def __init__(
        self,
        run_id: str,
        request: ExecRequest,
        stdin: bytes | None,
        feed: Feed,
        *,
        size_bytes: int,
        disk_bytes: int,
        how: How = How(),
        caller: str | None = None,
    ) -> None:
        """`size_bytes`: what it takes until it has ended; `disk_bytes`: of its fresh folder;
        `caller`: who calls, for the record.
        """
        self.id = run_id
        self.principal = request.principal
        self.profile = request.profile
        self.feed = feed
        self.size_bytes = size_bytes
        self.disk_bytes = disk_bytes
        self.caller = caller
        self.status = RunStatus.QUEUED
        self.began_s: float | None = None
        self.usage: Usage | None = None
        self.outcome: dict[str, object] | None = None
        self.error: RunnerError | None = None
        self.done: Future[None] = Future()
        # Or whoever waits for it and gives up would cancel it.
        self.done.set_running_or_notify_cancel()
        self._asked: tuple[ExecRequest, bytes | None] | None = (request, stdin)
        self._how = how
        self._told_s = 0.0
        self._cancel = Cancellation()

    @property
    def never_began(self) -> bool:
        """Whether it was refused before the log had it."""
        return self.status is RunStatus.REFUSED and self.began_s is None

    @property
    def is_lost(self) -> bool:
        """Whether it began and its end could not be recorded: the log, or recovery, will tell."""
        return self.status is RunStatus.REFUSED and self.began_s is not None

    def cancel(self) -> None:
        """Ask for its end; one that waits is decided and recorded all the same, and ends then."""
        self._cancel.set()

    def close(self) -> None:
        """It is over, or was not taken: let go of what only a run needs."""
        self._asked = None
        self._cancel.close()
        if self._how.pace is not None:
            self.feed.disown()
            self._how.pace.close()
        if self._how.attached is not None:
            self._how.attached.close()
        if self._how.input is not None:
            self._how.input.close()

    def carry(self, runner: Runner) -> Outcome | None:
        """Run it once, in the thread of the caller. Never raises."""
        if self._asked is None:
            return None
        request, stdin = self._asked
        attached, given, wait_s = self._how.attached, self._how.input, self._how.ask_wait_s
        if given is not None:
            reads: int | bytes | None = given.stdin
        else:
            reads = stdin if attached is None else attached.stdin
        caller = Caller(
            reads,
            self._sink("stdout") if attached is None else attached.stdout,
            self._sink("stderr") if attached is None else attached.stderr,
            terminal=None if given is None else given.terminal,
            ask_wait_s=runner.settings.ask_wait.value if wait_s is None else wait_s,
            observer=self,
            run_id=self.id,
            identity=self.caller,
        )
        self.status = RunStatus.RUNNING
        try:
            if self._how.execute is not None:
                outcome = self._how.execute(request, caller, self._cancel)
            else:
                outcome = runner.execute(
                    request, caller, self._cancel, environment=self._how.environment
                )
        except UnreachableError as error:
            self._failed(error if self.began_s else NotFoundError(str(error)))
            return None
        except RunnerError as error:
            self._failed(error)
            return error.outcome if isinstance(error.outcome, Outcome) else None
        except Exception as error:  # a defect of ours, told as what it is
            traceback.print_exc(file=sys.stderr)
            what = f"a defect of runner: {type(error).__name__}; the server's stderr tells more"
            self._failed(RunnerError(what))
            return None
        finally:
            self.close()
        self._ended(outcome)
        return outcome

    def _sink(self, stream: str) -> OutputSink:
        return FeedSink(partial(self.feed.output, stream), self._how.pace)

    def asked(self, approval: Approval) -> None:
        """See `ports.Observer`."""
        told = {"id": approval.id, "reason": approval.reason, "rules": list(approval.rules)}
        self.feed.tell("asked", {**told, "expires": rfc3339(approval.expires_s)})

    def decided(self, run_id: str, decision: Decision) -> None:
        """See `ports.Observer`."""
        self.began_s = time.time()
        self.feed.tell("decision", {"run_id": run_id, "decision": decision_document(decision)})

    def used(self, usage: Usage) -> None:
        """See `ports.Observer`."""
        self.usage = usage
        now_s = time.monotonic()
        if now_s - self._told_s >= USAGE_EVERY_S:
            self._told_s = now_s
            self.feed.tell("usage", asdict(usage))

    def held_bytes(self) -> int:
        """What is remembered of one that has ended, about; always the same."""
        outputs = [self.outcome.get(name) for name in ("stdout", "stderr")] if self.outcome else []
        texts = sum(len(text) for text in outputs if isinstance(text, str))
        return self.feed.held_bytes + texts + _JOB_BYTES

    def _ended(self, outcome: Outcome) -> None:
        self.usage = outcome.usage
        self.outcome = outcome_document(outcome, with_output=True)
        self.status = RunStatus.ENDED
        self.feed.end("outcome", without_output(self.outcome))

    def _failed(self, error: RunnerError) -> None:
        self.error = error
        if isinstance(error.outcome, Outcome):
            self._ended(error.outcome)
        else:
            self.status = RunStatus.REFUSED
            self.feed.end("error", {"code": error.code, "message": str(error)})


def without_output(document: dict[str, object]) -> dict[str, object]:
    """An outcome without what was kept: a reader had the output as it came."""
    left = {"stdout", "stderr", "stdout_encoding", "stderr_encoding"}
    return {name: value for name, value in document.items() if name not in left}


@dataclass(frozen=True, slots=True)
class Room:
    """How much a server takes."""

    at_once: int
    queue: int
    """How many may wait for their turn."""
    sessions: int = DEFAULT_SERVER_SESSIONS
    """How many of this state folder there may be, whoever began them, when another begins here."""


class Jobs:
    """All of a server. Threads: `submit` and what looks up from the loop's; the rest from any."""

    def __init__(
        self,
        runner: Runner,
        room: Room,
        *,
        forget: Callable[[str], None],
        told: Callable[[Outcome | None, float], None],
    ) -> None:
        """`forget`: hears which run is not remembered any more; `told`: of each that ends."""
        self._runner = runner
        self._room = room
        self._forget = forget
        self._told = told
        self._lock = threading.Lock()
        self._open: dict[str, Job] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._sizes = [0, 0]
        self._waiting_bytes = 0
        self._threads = ThreadPoolExecutor(room.at_once, "run")
        self.stopping = False

    def check_room(self, size_bytes: int = 0) -> None:
        """BusyError, StoppingError: no other run is taken now."""
        with self._lock:
            self._check_room(size_bytes)

    def submit(self, job: Job) -> None:
        """Take a run. BusyError, StoppingError: it is not taken."""
        with self._lock:
            self._check_room(job.size_bytes)
            self._open[job.id] = job
            self._waiting_bytes += job.size_bytes
        self._threads.submit(self._carry, job)

    def get(self, run_id: str) -> Job | None:
        """One that is remembered."""
        with self._lock:
            return self._open.get(run_id) or self._ended.get(run_id)

    def never_began(self, run_id: str) -> bool:
        """Whether a run that is remembered was refused before the log had it."""
        job = self.get(run_id)
        return job is not None and job.never_began

    def queued(self) -> Sequence[Job]:
        """Those that wait for their turn, the latest first."""
        with self._lock:
            return [j for j in reversed(self._open.values()) if j.status is RunStatus.QUEUED]

    @property
    def counts(self) -> tuple[int, int]:
        """How many run, and how many wait."""
        with self._lock:
            return min(len(self._open), self._room.at_once), self._waiting()

    async def stop(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Begin no run any more; let those that run end within `grace_s`, then cancel them.

        `hurry`: ends the grace. Returns when all have ended and are recorded.
        """
        with self._lock:
            self.stopping = True
            left = [asyncio.wrap_future(job.done) for job in self._open.values()]
        if left:
            hurried = asyncio.ensure_future(hurry.wait())
            ended = asyncio.ensure_future(asyncio.wait(left))
            await asyncio.wait(
                {hurried, ended}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            hurried.cancel()
            with self._lock:
                for job in self._open.values():
                    job.cancel()
            await asyncio.wait({ended}, timeout=ENDING_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _carry(self, job: Job) -> None:
        began_s = time.monotonic()
        outcome = job.carry(self._runner)
        with self._lock:
            del self._open[job.id]
            self._waiting_bytes -= job.size_bytes
            self._ended[job.id] = job
            self._sizes[0] += job.held_bytes()
            self._sizes[1] += job.disk_bytes
            forgotten = self._too_many()
        self._told(outcome, time.monotonic() - began_s)
        for each in forgotten:
            self._forget(each.id)
        job.done.set_result(None)

    def _too_many(self) -> list[Job]:
        found = []
        most = (REMEMBERED_BYTES, REMEMBERED_DISK_BYTES)
        while len(self._ended) > REMEMBERED or any(
            size > bound for size, bound in zip(self._sizes, most, strict=True)
        ):
            _, job = self._ended.popitem(last=False)
            self._sizes[0] -= job.held_bytes()
            self._sizes[1] -= job.disk_bytes
            found.append(job)
        return found

    def _check_room(self, size_bytes: int) -> None:
        if self.stopping:
            raise StoppingError("this server is about to end and begins no run; try the next one")
        if len(self._open) >= self._room.at_once + self._room.queue:
            raise BusyError(
                f"{self._room.at_once} runs at once and {self._room.queue} waiting are all that "
                "this server takes; try again in a moment"
            )
        if self._waiting_bytes + size_bytes > WAITING_BYTES:
            raise BusyError(
                "the runs that wait hold as much as this server takes; try again in a moment"
            )

    def _waiting(self) -> int:
        return max(0, len(self._open) - self._room.at_once)
