"""The one path: every run of every surface goes through `Supervisor.run`, top to bottom.

It knows the ports and no adapter. What it does is written down before it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from signal import SIGKILL

from runner import charging, linked, records
from runner.approving import Questions
from runner.audit.redaction import Redactor, is_secret_name
from runner.caller import Caller
from runner.compile import check_obligations, compile_spec
from runner.deciding import Asked, Decided, Policy, decide
from runner.errors import BackendError, RunnerError
from runner.facts import count
from runner.killswitch import Killable, KillWatch
from runner.model.action import Facts
from runner.model.decision import Decision
from runner.model.event import EventKind
from runner.model.outcome import Ending, Outcome, Termination
from runner.model.request import ExecRequest, Program
from runner.model.spec import SandboxSpec
from runner.model.usage import Usage
from runner.pausing import Watch
from runner.ports import (
    Backend,
    CancelToken,
    ChangeArchive,
    Clock,
    Lease,
    Meter,
    Observer,
    Store,
    Streams,
    Transaction,
)
from runner.recording import Owed, Plan, RunRecord
from runner.streams import Gate


@dataclass(frozen=True, slots=True)
class _Watched:
    """A run's meter, if it is asked, and its observer, as the one that a lease asks."""

    observer: Observer
    meter: Meter | None

    def look(self, usage: Usage) -> bool:
        """As `ports.Meter` has it."""
        self.observer.used(usage)
        return self.meter is None or self.meter.look(usage)


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
        tell: Callable[[str], object] | None = None,
    ) -> None:
        """`keep_output_bytes`: how much of each stream of a run is kept for `runner logs`.

        `keep_program_bytes`: the largest text that is kept of a program that the log does not hold.
        `archive`: where the contents of what runs changed are kept; None: nowhere.
        `redactor`: what records and kept output pass; None: events pass the store's alone.
        `tell`: hears of each question that a rule asks, by its id.
        """
        self._tell = tell
        self._redactor = redactor
        self._archive = archive
        self._store = store
        self._clock = clock
        self._keep_output_bytes = keep_output_bytes
        self._keep_program_bytes = keep_program_bytes
        self._owed: Owed = deque()
        self._kills = KillWatch(store)

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
        watch = _watch(request, policy)
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
            held = decided.facts.paused or decided.facts.killed
            if watch is not None and not decided.permitted and not held:
                watch.refused(tx, None, self._clock.now())
        return decided.decision

    def facts(self, request: ExecRequest, policy: Policy) -> Facts:
        """What the policy may depend on beside the request: the time, earlier runs.

        Good for a decision that begins no run; see `_begin`.
        """
        return count(self._store, request, policy, self._clock.now())

    def _decide(self, request: ExecRequest, policy: Policy) -> Decided:
        return decide(request, policy, self.facts(request, policy), linked.find)

    def _begin(  # noqa: PLR0917
        self,
        request: ExecRequest,
        policy: Policy,
        backend: str,
        inherited: Mapping[str, str] | None,
        caller: Caller,
        cancel: CancelToken,
        reload: Callable[[], Policy] | None,
    ) -> RunRecord:
        """Decide, and open the run with the decision's event, before anything is built.

        Where the decision depends on how many runs there were, or on what is left of a budget, that
        is counted in the very transaction that adds this one, and takes its part: of runs that
        begin at the same moment, in other threads and processes too, each sees those before it.
        Reading is done before that, with nobody waiting. Where a rule asks, it is waited for the
        answer before that, and then all of it is decided anew; if the policy is another by then
        (`reload`), nothing that was asked holds.
        """
        asked = Asked(request, policy, linked.find)
        charged = charging.charges(policy.budgets, request, policy.profile)
        redactor = self._redacting(policy, inherited)
        watch = _watch(request, policy)
        # Before anybody waits for the log, because it may be long.
        program = records.program_data(request.program, redactor)

        def opened(tx: Transaction, decided: Decided) -> RunRecord:
            plan = _planned(decided, policy, inherited)
            return RunRecord(
                self._store,
                self._clock,
                tx,
                request,
                profile=policy.profile.name,
                backend=backend,
                plan=plan,
                charged=charged,
                # Whatever is tried in a pause changes nothing, and an operator's stop is none.
                watch=None if decided.facts.paused or decided.facts.killed else watch,
                redactor=redactor,
                program=program,
                owed=self._owed,
                run_id=caller.run_id,
                caller=caller.identity,
                unstarted=Termination.CANCELLED if questions.cancelled else Termination.DENIED,
            )

        counting = bool(policy.counted or charged or watch is not None)
        questions = Questions(
            self._store, self._clock, policy, caller, inherited=inherited or {}, redactor=redactor
        )
        record: RunRecord | None
        found: Decided | Program | None
        while True:
            early = None if counting else asked.decide(Facts(self._clock.now()))
            with self._store.transaction() as tx:
                record, found = None, early
                if found is None or tx.killed(request.principal) is not None:
                    found = asked.attempt(count(tx, request, policy, self._clock.now()))
                if isinstance(found, Decided):
                    decided = questions.answered(tx, found)
                    if decided is not None:
                        record = opened(tx, decided)
                        questions.use(tx, record.id)
            for identity in questions.fresh():
                if self._tell is not None:
                    self._tell(identity)
            if record is not None:
                return record
            if isinstance(found, Decided):
                questions.wait(cancel)
                if reload is not None and _changed(policy, reload()):
                    questions.overtake()
                asked = Asked(request, policy, linked.find)  # the workspace may be another by now
            else:
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
        reload: Callable[[], Policy] | None = None,
    ) -> Outcome:
        """One run from request to outcome.

        `reload`: the policy as it stands then, asked after a rule's question was waited for.

        A denial, a crossed limit and a cancelled run are outcomes. RunnerError when runner could
        not do its work: then, if the run had begun, its end is recorded as `runner_failed` and
        the error carries that outcome.
        """
        self.record_owed()
        run = self._begin(request, policy, backend.name, inherited, caller, cancel, reload)
        plan = run.plan
        if caller.observer is not None:
            caller.observer.decided(run.id, plan.decision)
        if plan.spec is None:
            outcome = run.denied()
            try:
                run.keep_program(self._keep_program_bytes)
            except RunnerError as error:
                error.outcome = outcome
                raise
            return outcome
        with self._kills.over(run.id, cancel) as token:
            return self._contain(run, plan.spec, backend, caller, token)

    def _contain(
        self, run: RunRecord, spec: SandboxSpec, backend: Backend, caller: Caller, token: Killable
    ) -> Outcome:
        """Build what was permitted, let it run, and record what came of it."""
        contents = self._archive.keeper(run.id) if self._archive is not None else None
        ending: Ending | None = None
        try:
            run.keep_program(self._keep_program_bytes)
            lease = backend.acquire(spec, run.id)
            try:
                run.started(lease)
                gate = Gate(spec.limits.output_bytes, self._keep_output_bytes, run.keep)
                meter: Meter | None = run.meter if run.meter.asked else None
                if caller.observer is not None:
                    meter = _Watched(caller.observer, meter)
                streams = Streams(
                    caller.stdin,
                    caller.stdout,
                    caller.stderr,
                    gate,
                    caller.terminal,
                    contents,
                    meter,
                )
                try:
                    ending = _ended(lease, streams, token)
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


def _ended(lease: Lease, streams: Streams, token: Killable) -> Ending:
    """How it ended. BackendError: the sandbox was lost, and nobody killed it."""
    try:
        ending = lease.run(streams, token)
    except BackendError:
        # A supervisor that does not answer is passed by: the sandbox is ended from outside.
        if (kill := token.look()) is None:
            raise
        return Ending(Termination.CANCELLED, Usage(), kill=kill)
    if ending.termination is Termination.CANCELLED or ending.signal == SIGKILL:
        kill = token.look()
        if kill is not None:
            return replace(ending, termination=Termination.CANCELLED, signal=None, kill=kill)
    return ending


def _changed(before: Policy, after: Policy) -> bool:
    return (before.digest, before.profile) != (after.digest, after.profile)


def _watch(request: ExecRequest, policy: Policy) -> Watch | None:
    """None: nobody states a loop guard."""
    guard = policy.loop_guard
    return None if guard is None else Watch(request, policy.profile, guard)


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
