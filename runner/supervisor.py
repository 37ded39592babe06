"""The one path: every run of every surface goes through `Supervisor.run`, top to bottom.

It knows the ports and no adapter. What it does is written down before it is done.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from runner import charging, linked, records
from runner.audit.redacting_run import RunRedaction
from runner.audit.redaction import Redactor, is_secret_name
from runner.changes.manifest import Manifest, digest, encode, withheld_from
from runner.compile import check_obligations, compile_spec
from runner.deciding import Asked, Decided, Policy, decide
from runner.errors import RunnerError
from runner.facts import count
from runner.model.action import Facts
from runner.model.budget import Charge
from runner.model.decision import Decision
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.intent import Intent
from runner.model.limits import LimitName
from runner.model.outcome import AuditRange, Ending, Failure, Outcome, Termination
from runner.model.request import ExecRequest
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.model.usage import Usage
from runner.ports import (
    Backend,
    CancelToken,
    ChangeArchive,
    ChangeKeeper,
    Clock,
    Lease,
    OutputSink,
    Store,
    Streams,
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


@dataclass(frozen=True, slots=True)
class Caller:
    """The streams of whoever wants the run."""

    stdin: int | bytes | None
    stdout: OutputSink
    stderr: OutputSink
    terminal: int | None = None


Owed = deque[tuple[str, Callable[[], None]]]
"""Ends of runs that could not be recorded: of which run, and what records it."""


class Supervisor:
    """Decides, contains, meters and records runs; one for each state folder and process."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keep_output_bytes: int,
        keep_program_bytes: int = 0,
        archive: ChangeArchive | None = None,
        *,
        redactor: Redactor | None = None,
    ) -> None:
        """`keep_output_bytes`: how much of each stream of a run is kept for `runner logs`.

        `keep_program_bytes`: the largest text that is kept of a program that the log does not hold.
        `archive`: where the contents of what runs changed are kept; None: nowhere.
        `redactor`: what records and kept output pass; None: events pass the store's alone.
        """
        self._redactor = redactor
        self._archive = archive
        self._store = store
        self._clock = clock
        self._keep_output_bytes = keep_output_bytes
        self._keep_program_bytes = keep_program_bytes
        self._owed: Owed = deque()

    def record_owed(self) -> None:
        """Write the ends of runs that could not be written when they came, if that is possible now.

        Called before a run begins and at the close; if it never is, recovery closes those runs.
        """
        while self._owed:
            with suppress(IndexError):  # another thread was faster
                run_id, record = self._owed.popleft()
                try:
                    if not _has_ended(self._store, run_id):
                        record()
                except RunnerError:
                    self._owed.appendleft((run_id, record))
                    return

    def plan(
        self, request: ExecRequest, policy: Policy, inherited: Mapping[str, str] | None = None
    ) -> Plan:
        """Read and decide; compile the sandbox if it may run. Touches nothing.

        RequestError or BackendError when what is asked can't be built under this profile.
        """
        return _planned(self._decide(request, policy), policy, inherited)

    def check(self, request: ExecRequest, policy: Policy) -> Decision:
        """Only the decision, recorded as such; BackendError where a run could not be held to it."""
        decided = self._decide(request, policy)
        if decided.permitted:
            check_obligations(decided.decision.obligations)
        redactor = self._redacting(policy)
        with self._store.transaction() as tx:
            tx.append(
                records.checked(
                    request,
                    decided.intent,
                    decided.decision,
                    links=decided.facts.links,
                    redactor=redactor,
                )
            )
        return decided.decision

    def facts(self, request: ExecRequest, policy: Policy) -> Facts:
        """What the policy may depend on beside the request: the time, earlier runs.

        Good for a decision that begins no run; see `_begin`.
        """
        return count(self._store, request, policy, self._clock.now())

    def _decide(self, request: ExecRequest, policy: Policy) -> Decided:
        return decide(request, policy, self.facts(request, policy), linked.find)

    def _begin(
        self,
        request: ExecRequest,
        policy: Policy,
        backend: str,
        inherited: Mapping[str, str] | None,
    ) -> _Run:
        """Decide, and open the run with the decision's event, before anything is built.

        Where the decision depends on how many runs there were, or on what is left of a budget, that
        is counted in the very transaction that adds this one, and takes its part: of runs that
        begin at the same moment, in other threads and processes too, each sees those before it.
        Reading is done before that, with nobody waiting.
        """
        asked = Asked(request, policy, linked.find)
        charged = charging.charges(policy.budgets, request, policy.profile)
        redactor = self._redacting(policy, inherited)
        # Before anybody waits for the log, because it may be long.
        program = records.program_data(request.program, redactor)

        def opened(tx: Transaction, decided: Decided) -> _Run:
            plan = _planned(decided, policy, inherited)
            return _Run(
                self._store,
                self._clock,
                tx,
                request,
                profile=policy.profile.name,
                backend=backend,
                plan=plan,
                charged=charged,
                redactor=redactor,
                program=program,
                owed=self._owed,
            )

        if not policy.counted and not charged:
            decided = asked.decide(Facts(self._clock.now()))
            with self._store.transaction() as tx:
                return opened(tx, decided)
        while True:
            with self._store.transaction() as tx:
                found = asked.attempt(count(tx, request, policy, self._clock.now()))
                if isinstance(found, Decided):
                    return opened(tx, found)
            asked.read(found)

    def _redacting(
        self, policy: Policy, inherited: Mapping[str, str] | None = None
    ) -> Redactor | None:
        """One that knows what the profile gives to the run.

        Not what the request sets: an agent could hide its deeds by calling their words a secret.
        """
        if self._redactor is None:
            return None
        given = {**(inherited or {}), **dict(policy.profile.environment.set)}
        return self._redactor.knowing([v for name, v in given.items() if is_secret_name(name)])

    def run(
        self,
        request: ExecRequest,
        policy: Policy,
        *,
        backend: Backend,
        caller: Caller,
        cancel: CancelToken,
        inherited: Mapping[str, str] | None = None,
    ) -> Outcome:
        """One run from request to outcome.

        A denial, a crossed limit and a cancelled run are outcomes. RunnerError when runner could
        not do its work: then, if the run had begun, its end is recorded as `runner_failed` and
        the error carries that outcome.
        """
        self.record_owed()
        run = self._begin(request, policy, backend.name, inherited)
        plan = run.plan
        if plan.spec is None:
            outcome = run.denied()
            try:
                run.keep_program(self._keep_program_bytes)
            except RunnerError as error:
                error.outcome = outcome
                raise
            return outcome
        contents = self._archive.keeper(run.id) if self._archive is not None else None
        ending: Ending | None = None
        try:
            run.keep_program(self._keep_program_bytes)
            lease = backend.acquire(plan.spec, run.id)
            try:
                run.started(lease)
                gate = Gate(plan.spec.limits.output_bytes, self._keep_output_bytes, run.keep)
                streams = Streams(
                    caller.stdin,
                    caller.stdout,
                    caller.stderr,
                    gate,
                    caller.terminal,
                    contents,
                    run.meter if run.meter.asked else None,
                )
                try:
                    ending = lease.run(streams, cancel)
                finally:
                    run.keep_rest()
            finally:
                run.released(lease.release(), backend.take_swept())
        except RunnerError as error:
            run.released((), backend.take_swept())  # what a build that failed left
            error.outcome = run.failed(error.code, str(error))
            raise
        except Exception as error:
            run.failed(RunnerError.code, f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            run.interrupted()
            raise
        finally:
            if ending is None and contents is not None:
                contents.abandon()
        return run.ended(*run.kept(ending, contents), gate)


def _planned(decided: Decided, policy: Policy, inherited: Mapping[str, str] | None = None) -> Plan:
    """Pure. What `compile_spec` raises, when it is permitted and can't be built."""
    spec = None
    if decided.permitted:
        spec = compile_spec(
            decided.request, policy.profile, decided.decision.obligations, inherited
        )
    return Plan(decided.intent, decided.decision, spec, decided.facts.links)


def _has_ended(store: Store, run_id: str) -> bool:
    """Whether its end stands in the log: a commit that failed may be on the disk all the same."""
    ends = (EventKind.RUN_ENDED, EventKind.RUN_RECOVERED)
    return any(event.kind in ends for event in store.events(run_id))


class _Run:
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
        redactor: Redactor | None,
        program: Mapping[str, object],
        owed: Owed,
    ) -> None:
        """Open it: the intent and the decision; of a denial the outcome, too.

        Nothing lies between those two. Of a run that may start, its part of the budgets is taken.
        `program`: as `records.program_data` has it.
        """
        self._redaction = RunRedaction(redactor, (STDOUT, STDERR))
        self._program = program
        self.id = f"run-{secrets.token_hex(10)}"
        self._store = store
        self._request = request
        self._profile = profile
        self._backend = backend
        self._owed = owed
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
            data = records.outcome_data(termination=Termination.DENIED.value)
            self._last = self._append(tx, records.ended(self.id, request, data))
            tx.close_run(self.id, Usage())
        else:
            self.meter.begin(tx, charged)

    def denied(self) -> Outcome:
        """The outcome that is written down already."""
        return self._outcome(Ending(Termination.DENIED, Usage()))

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
        )
        if ending.limit is LimitName.BUDGET and self.meter.crossed is not None:
            data["budget"] = charging.data(self.meter.crossed)
        self._close(data, ending.usage)
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

    def _close(self, data: Mapping[str, object], usage: Usage) -> None:
        try:
            self._record_end(data, usage)
        except RunnerError:
            self._owed.append((self.id, partial(self._record_end, data, usage)))
            raise

    def _record_end(self, data: Mapping[str, object], usage: Usage) -> None:
        with self._store.transaction() as tx:
            if self._swept:
                self._append(tx, records.swept(self._backend, self._swept))
            last = self._append(tx, records.ended(self.id, self._request, data))
            # What is not known of a run that started is charged as far as it was held.
            self.meter.settle(tx, usage if self._started else UNUSED)
            tx.close_run(self.id, usage)
        self._last = last

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
            redactor=self._redaction.redactor,
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
            budget=self.meter.crossed if ending.limit is LimitName.BUDGET else None,
            **streams,
        )
