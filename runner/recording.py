"""What one run writes down: a step of its own for each, durable before what it tells of is done."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from runner import charging, records
from runner.audit.redacting_run import RunRedaction
from runner.audit.redaction import Redactor
from runner.changes.manifest import Manifest, digest, encode, withheld_from
from runner.errors import RunnerError
from runner.looping import failure as failure_of
from runner.model.budget import Charge, Spent
from runner.model.decision import Decision
from runner.model.event import AuditEvent, EventDraft
from runner.model.intent import Intent
from runner.model.limits import LimitName
from runner.model.outcome import AuditRange, Ending, Failure, Outcome, Termination
from runner.model.request import ExecRequest
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.model.usage import Usage
from runner.pausing import Watch
from runner.ports import (
    ChangeKeeper,
    Clock,
    Lease,
    Store,
    Transaction,
)
from runner.spending import UNUSED, RunMeter
from runner.streams import STDERR, STDOUT, Gate


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen: the reading, the decision, and the sandbox if it is permitted."""

    intent: Intent
    decision: Decision
    spec: SandboxSpec | None
    links: Mapping[str, str] = field(default_factory=dict)
    """Links of the workspace that it was decided with."""


Owed = deque[tuple[str, Callable[[], None]]]
"""Ends of runs that could not be recorded: of which run, and what records it."""


def new_run_id() -> str:
    """An id that no run has: 80 bits of chance."""
    return f"run-{secrets.token_hex(10)}"


class RunRecord:
    """One run's way through the record; every method makes its step durable."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        tx: Transaction,
        request: ExecRequest,
        *,
        profile: str,
        backend: str,
        plan: Plan,
        charged: Sequence[Charge],
        watch: Watch | None,
        redactor: Redactor | None,
        program: Mapping[str, object],
        owed: Owed,
        run_id: str | None = None,
        unstarted: Termination = Termination.DENIED,
        caller: str | None = None,
    ) -> None:
        """Open it: the intent and the decision; of one that can't start the outcome, too.

        Nothing lies between those two. Of a run that may start, its part of the budgets is taken.
        `watch`: of the loop guard, told what comes of it; None: nobody asks.
        `program`: as `records.program_data` has it. `run_id`: None: a new one. `unstarted`: how one
        that can't start ends. `caller`: who called a server for it.
        """
        self._redaction = RunRedaction(redactor, (STDOUT, STDERR))
        self._program = program
        self._charged = charged
        self.id = new_run_id() if run_id is None else run_id
        self._store = store
        self._request = request
        self._profile = profile
        self._backend = backend
        self._owed = owed
        self._watch = watch
        self._clock = clock
        self._unstarted = unstarted
        self._caller = caller
        self.plan = plan
        self._protections: tuple[str, ...] = ()
        self._degraded: tuple[str, ...] = ()
        self._left: tuple[str, ...] = ()
        self._swept = Swept()
        self._started = False
        self.meter = RunMeter(store, clock, self.id, request.principal)
        tx.open_run(self.id, request.principal, profile, backend)
        self._first = self._last = self._append(tx, self._decided_event())
        if plan.spec is None:
            if watch is not None and unstarted is Termination.DENIED:
                watch.refused(tx, self.id, clock.now())
            data = records.outcome_data(termination=unstarted.value)
            self._last = self._append(tx, records.ended(self.id, request, data))
            tx.close_run(self.id, Usage())
        else:
            self.meter.begin(tx, charged)

    def denied(self) -> Outcome:
        """The outcome that is written down already."""
        return self._outcome(Ending(self._unstarted, Usage()))

    def started(self, lease: Lease) -> None:
        """What is in force, before the program runs."""
        self._protections, self._degraded = lease.protections, lease.degraded
        spec = self.plan.spec
        if spec is None:
            raise RunnerError("a denied run can't start")
        self._started = True
        with self._store.transaction() as tx:
            self._append(
                tx,
                records.started(self.id, self._request, spec, self._protections, self._degraded),
            )

    def released(self, left: tuple[str, ...], swept: Swept) -> None:
        """What the run's end could not remove, and what the backend cleaned up meanwhile."""
        self._left += left
        self._swept += swept

    def keep_program(self, limit_bytes: int) -> None:
        """What the log does not hold of the program, so that it can be decided about again."""
        text = records.program_to_keep(self._request.program, self._redaction.redactor)
        if text is not None and len(text) <= limit_bytes:
            self._store.keep_output(self.id, "program", text)

    def keep(self, stream: str, data: bytes) -> None:
        """A part of the output that is kept."""
        if told := self._redaction.feed(stream, data):
            self._store.keep_output(self.id, stream, told)

    def keep_rest(self) -> None:
        """The end of the output that is kept."""
        for stream, rest in self._redaction.rest():
            self._store.keep_output(self.id, stream, rest)

    def _append(self, tx: Transaction, draft: EventDraft) -> AuditEvent:
        return tx.append(self._redaction.draft(draft))

    def kept(
        self, ending: Ending, contents: ChangeKeeper | None
    ) -> tuple[Ending, tuple[str, int] | None]:
        """Make what the run changed durable, before the event that names its digest.

        The ending as it stands then, digest and bytes of what is kept (None: nothing is).
        """
        identity = ending.workspace_identity
        if contents is None or identity is None or not ending.changes:
            if contents is not None:
                contents.abandon()
            why = "contents are not kept (keep_changes_bytes is 0, or the backend can't)"
            return replace(ending, changes=withheld_from(ending.changes, why)), None
        manifest = encode(
            Manifest(
                self.id,
                self._request.directory,
                *identity,
                ending.changes,
                ending.changes_truncated,
                contents.kept_bytes,
            )
        )
        why_not = contents.finish(manifest)
        if why_not is not None:
            return replace(ending, changes=withheld_from(ending.changes, why_not)), None
        return ending, (digest(manifest), contents.kept_bytes)

    def ended(self, ending: Ending, kept: tuple[str, int] | None, gate: Gate) -> Outcome:
        """The outcome, whatever it was."""
        stdout, stderr = gate.output(STDOUT), gate.output(STDERR)
        failure = ending.failure
        crossed = self._crossed(ending)
        data = records.outcome_data(
            termination=ending.termination.value,
            limit=ending.limit.value if ending.limit is not None else None,
            exit_code=ending.exit_code,
            signal=ending.signal,
            failure=(failure.code, failure.message) if failure is not None else None,
            usage=asdict(ending.usage),
            stdout=self._redaction.output(STDOUT, stdout),
            stderr=self._redaction.output(STDERR, stderr),
            changes=ending.changes,
            changes_truncated=ending.changes_truncated,
            kept=kept,
            left=self._left,
            budget=None if crossed is None else charging.data(crossed),
            killed=None if ending.kill is None else records.kill_data(ending.kill),
        )
        self._close(data, ending.usage, failure_of(ending, stdout, stderr))
        return self._outcome(ending, gate)

    def failed(self, code: str, message: str) -> Outcome | None:
        """Runner's own failure; None if even that could not be recorded (recovery will)."""
        failure = Failure(code, message)
        data = records.outcome_data(
            termination=Termination.RUNNER_FAILED.value,
            failure=(failure.code, failure.message),
            left=self._left,
        )
        with suppress(RunnerError):
            self._close(data, Usage())
            return self._outcome(Ending(Termination.RUNNER_FAILED, Usage(), failure=failure))
        return None

    def interrupted(self) -> None:
        """An interrupt ended the run; it goes on its way."""
        data = records.outcome_data(termination=Termination.CANCELLED.value, left=self._left)
        with suppress(RunnerError):
            self._close(data, Usage())

    def _close(self, data: Mapping[str, object], usage: Usage, how: bytes | None = None) -> None:
        """`how`: as `looping.failure` has it."""
        try:
            self._record_end(data, usage, how)
        except RunnerError:
            self._owed.append((self.id, partial(self._record_end, data, usage, how)))
            raise

    def _record_end(self, data: Mapping[str, object], usage: Usage, how: bytes | None) -> None:
        with self._store.transaction() as tx:
            if self._watch is not None:
                self._watch.ended(tx, how, self.id, self._clock.now())
            if self._swept:
                self._append(tx, records.swept(self._backend, self._swept))
            spent = usage if self._started else UNUSED
            if charged := self.meter.unmeasured(spent):
                data = {**data, "charged": records.charged(charged)}
            last = self._append(tx, records.ended(self.id, self._request, data))
            # What is not known of a run that started is charged as far as it was held.
            self.meter.settle(tx, spent)
            tx.close_run(self.id, usage)
        self._last = last

    def _crossed(self, ending: Ending) -> Spent | None:
        return self.meter.crossed if ending.limit is LimitName.BUDGET else None

    def _decided_event(self) -> EventDraft:
        plan = self.plan
        return records.decided(
            self.id,
            self._request,
            intent=plan.intent,
            decision=plan.decision,
            spec=plan.spec,
            backend=self._backend,
            links=plan.links,
            program=self._program,
            charged=self._charged,
            redactor=self._redaction.redactor,
            caller=self._caller,
        )

    def _outcome(self, ending: Ending, gate: Gate | None = None) -> Outcome:
        spec = self.plan.spec
        streams = {}
        if gate is not None:
            streams = {"stdout": gate.output(STDOUT), "stderr": gate.output(STDERR)}
        return Outcome(
            run_id=self.id,
            decision=self.plan.decision,
            termination=ending.termination,
            usage=ending.usage,
            backend=self._backend,
            profile=self._profile,
            audit=AuditRange(self._first.seq, self._last.seq, self._last.leaf_hash.hex()),
            limit=ending.limit,
            exit_code=ending.exit_code,
            signal=ending.signal,
            failure=ending.failure,
            protections=self._protections,
            degraded=self._degraded,
            workspace=spec.workspace.mode if gate is not None and spec is not None else None,
            changes=ending.changes,
            changes_truncated=ending.changes_truncated,
            left=self._left,
            kill=ending.kill,
            budget=self._crossed(ending),
            **streams,
        )
