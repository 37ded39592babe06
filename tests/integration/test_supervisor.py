"""The one path, over a real store and a fake backend: what happens when, and what is left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from runner import analysis
from runner.caller import Caller
from runner.compile import policy_layers
from runner.deciding import Policy
from runner.errors import BackendError, ProtectionMissingError, RecordError, RunnerError
from runner.intake import build_request
from runner.model.action import Exec, Facts
from runner.model.approval import Approval
from runner.model.decision import Decision, Effect
from runner.model.grant import CallBudget, Grant
from runner.model.intent import Intent
from runner.model.limits import LimitName
from runner.model.outcome import Outcome, Termination
from runner.model.protection import Protection
from runner.model.request import ExecRequest
from runner.model.rule import CountOf
from runner.model.usage import Usage
from runner.policy.engine import create as decision_point
from runner.ports import Store, Transaction
from runner.recording import new_run_id
from runner.schema.profiles import load_profile
from runner.stores.sqlite import SqliteStore
from runner.stores.sqlite import create as open_store
from runner.streams import Cancellation, NullSink
from runner.supervisor import Supervisor
from runner.testing.fakes import FakeBackend, FakeClock, FakeRun, exited, limited

QUIET = Caller(None, NullSink(), NullSink())


@pytest.fixture
def store(tmp_path) -> Iterator[SqliteStore]:
    opened = open_store(tmp_path / "home", FakeClock())
    yield opened
    opened.close()


@pytest.fixture
def policy() -> Policy:
    profile = load_profile("agent")
    return Policy(profile, decision_point(policy_layers(profile, [])))


def run(
    store: Store, policy: Policy, backend: FakeBackend, request: ExecRequest, caller: Caller = QUIET
) -> Outcome:
    supervisor = Supervisor(store, FakeClock(), keep_output_bytes=1024)
    with Cancellation() as cancel:
        return supervisor.run(request, policy, backend=backend, caller=caller, cancel=cancel)


def recorded(store: Store) -> list[tuple[str, dict]]:
    """Kind and data of every event but the log's own first."""
    events = [(event.kind, json.loads(event.body)["data"]) for event in store.events()]
    assert events[0][0] == "log.created"
    return events[1:]


class FailingStore:
    """A store whose n-th transaction from now can't be made durable, and all after it."""

    def __init__(self, store: SqliteStore, good: int) -> None:
        self._store = store
        self._good = good

    def transaction(self) -> AbstractContextManager[Transaction]:
        self._good -= 1
        if self._good < 0:
            raise RecordError("the disk is full")
        return self._store.transaction()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_every_step_is_written_down_before_it_is_taken(store, policy, work):
    seen: dict[str, list[str]] = {}

    class Watching(FakeBackend):
        def acquire(self, spec, run_id):
            seen["built"] = [kind for kind, _ in recorded(store)]
            return super().acquire(spec, run_id)

    def started(_: object) -> None:
        seen["started"] = [kind for kind, _ in recorded(store)]

    backend = Watching([FakeRun(stdout=b"out", stderr=b"err", before=started)])
    outcome = run(store, policy, backend, build_request(argv=["true"], cwd=work))
    assert seen == {"built": ["run.decided"], "started": ["run.decided", "run.started"]}
    assert [kind for kind, _ in recorded(store)] == ["run.decided", "run.started", "run.ended"]
    assert outcome.ok
    assert (outcome.stdout.data, outcome.stderr.data) == (b"out", b"err")
    assert (outcome.audit.first_seq, outcome.audit.last_seq) == (1, 3)
    assert outcome.audit.head == store.head().last_hash
    assert outcome.protections == backend.in_force
    assert backend.leases[0].released
    assert backend.leases[0].run_id == outcome.run_id
    assert store.kept_output(outcome.run_id, "stderr") == b"err"
    assert store.recover() == []


class Listening:
    """An observer that says what the log had when it was told."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.heard: list[tuple[object, ...]] = []

    def asked(self, approval: Approval) -> None:
        self.heard.append((approval.program,))

    def decided(self, run_id: str, decision: Decision) -> None:
        kinds = [event.kind for event in self._store.events(run_id)]
        self.heard.append((run_id, decision.effect, kinds))

    def used(self, usage: Usage) -> None:
        self.heard.append((usage,))


@pytest.mark.parametrize(("argv", "effect"), [("true", Effect.ALLOW), ("sudo", Effect.DENY)])
def test_an_observer_is_told_of_a_run_that_is_recorded(store, policy, work, argv, effect):
    promised, listening = new_run_id(), Listening(store)
    caller = replace(QUIET, observer=listening, run_id=promised)
    outcome = run(store, policy, FakeBackend(), build_request(argv=[argv], cwd=work), caller)
    assert outcome.run_id == promised
    first = ["run.decided"] if effect is Effect.ALLOW else ["run.decided", "run.ended"]
    assert listening.heard[0] == (promised, effect, first)


def test_a_program_that_can_not_be_kept_ends_the_run(store, policy, work):
    class Unkept(FailingStore):
        def keep_output(self, run_id: str, stream: str, data: bytes) -> None:
            raise RecordError(f"{stream} could not be kept")

    unkept = Unkept(store, good=9)
    backend = FakeBackend()
    supervisor = Supervisor(unkept, FakeClock(), keep_output_bytes=0, keep_program_bytes=100)
    for code, ends in (("true", "runner_failed"), ("sudo id", "denied")):
        request = build_request(code=code, language="sh", cwd=work)
        with Cancellation() as cancel, pytest.raises(RecordError, match="program could") as caught:
            supervisor.run(request, policy, backend=backend, caller=QUIET, cancel=cancel)
        assert caught.value.outcome is not None
        assert caught.value.outcome.termination == ends
        assert recorded(store)[-1][1]["termination"] == ends
    assert backend.leases == []
    # The twins: too large to be kept, and kept.
    supervisor = Supervisor(unkept, FakeClock(), keep_output_bytes=0, keep_program_bytes=3)
    request = build_request(code="true", language="sh", cwd=work)
    with Cancellation() as cancel:
        assert supervisor.run(request, policy, backend=backend, caller=QUIET, cancel=cancel).ok
    supervisor = Supervisor(store, FakeClock(), keep_output_bytes=0, keep_program_bytes=4)
    with Cancellation() as cancel:
        done = supervisor.run(request, policy, backend=backend, caller=QUIET, cancel=cancel)
    assert store.kept_output(done.run_id, "program") == b"true"


def test_what_is_denied_is_not_built(store, policy, work):
    backend = FakeBackend()
    outcome = run(store, policy, backend, build_request(shell="sudo rm -rf /", cwd=work))
    assert (outcome.termination, outcome.status) == (Termination.DENIED, 126)
    assert backend.leases == []
    (_, decided), (_, ended) = recorded(store)
    assert decided["decision"]["effect"] == "deny"
    assert decided["spec_digest"] is None
    assert ended["termination"] == "denied"
    assert store.recover() == []


def test_a_variable_that_the_profile_denies_is_a_denial(store, policy, work):
    backend = FakeBackend()
    request = build_request(argv=["true"], cwd=work, env={"LD_PRELOAD": "x", "FINE": "1"})
    outcome = run(store, policy, backend, request)
    assert outcome.decision.effect is Effect.DENY
    assert "LD_PRELOAD" in outcome.decision.reason
    assert "FINE" not in outcome.decision.reason
    assert backend.leases == []


@pytest.mark.parametrize("effect", [Effect.ASK, Effect.REWRITE])
def test_where_nobody_answers_it_is_a_denial(store, policy, work, effect):
    class Asking:
        digest = "sha256:0"
        counted = frozenset()
        follows_links = False

        def decide(self, action: object) -> Decision:
            return Decision(effect, "somebody should look at this", self.digest)

    backend = FakeBackend()
    asking = Policy(policy.profile, Asking())
    outcome = run(store, asking, backend, build_request(argv=["true"], cwd=work))
    assert (outcome.termination, outcome.decision.effect) == (Termination.DENIED, effect)
    assert backend.leases == []


def test_an_obligation_that_nobody_understands_stops_the_run(store, policy, work):
    class Obliging:
        digest = "sha256:0"
        counted = frozenset()
        follows_links = False

        def decide(self, action: object) -> Decision:
            return Decision(Effect.ALLOW, "fine", self.digest, obligations=("sing",))

    backend = FakeBackend()
    obliging = Policy(policy.profile, Obliging())
    with pytest.raises(RunnerError, match="sing"):
        run(store, obliging, backend, build_request(argv=["true"], cwd=work))
    assert backend.leases == []


def test_what_a_rule_puts_in_the_place_of_a_command_is_run_and_recorded(store, policy, work):
    class Steering:
        digest = "sha256:0"
        counted = frozenset()
        follows_links = False

        def decide(self, action: Exec) -> Decision:
            asked = action.intent.commands[0].words[0].text
            if asked == "true":
                return Decision(Effect.REWRITE, "steered", self.digest, rewrite=("false", "-x"))
            return Decision(Effect.ALLOW, "fine", self.digest)

    backend = FakeBackend([exited(1)])
    steering = Policy(policy.profile, Steering())
    outcome = run(store, steering, backend, build_request(argv=["true"], cwd=work))
    (lease,) = backend.leases
    assert lease.spec.argv == ("false", "-x")
    assert outcome.decision.effect is Effect.REWRITE
    assert outcome.exit_code == 1
    decided = recorded(store)[0][1]
    assert decided["program"]["argv"] == ["true"]
    assert decided["decision"]["rewrite"] == ["false", "-x"]


def test_facts_are_looked_up_before_each_decision(store, policy, work):
    class Counting:
        digest = "sha256:0"
        counted = frozenset({(CountOf.AGENT, 60.0), (CountOf.ALL, 10.0)})
        follows_links = False

        def __init__(self) -> None:
            self.seen: list[Facts] = []

        def decide(self, action: Exec) -> Decision:
            self.seen.append(action.facts)
            many = action.facts.runs[CountOf.AGENT, 60.0] >= 2
            return Decision(Effect.DENY if many else Effect.ALLOW, "counted", self.digest)

    clock, point = FakeClock(), Counting()
    supervisor = Supervisor(store, clock, keep_output_bytes=1024)
    counting = Policy(policy.profile, point)
    ended = []
    with Cancellation() as cancel:
        for agent in ("a", "a", "b", "a"):
            request = build_request(argv=["true"], cwd=work, agent=agent)
            done = supervisor.run(
                request, counting, backend=FakeBackend(), caller=QUIET, cancel=cancel
            )
            ended.append((done.termination.value, point.seen[-1].runs[CountOf.ALL, 10.0]))
    assert ended == [("exited", 0), ("exited", 1), ("exited", 2), ("denied", 3)]
    assert point.seen[-1].now_s == clock.now()


class OneAtATime:
    """A store that tells whether one of its transactions is open."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.open = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._store.transaction() as tx:
            self.open = True
            try:
                yield tx
            finally:
                self.open = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_it_is_counted_in_the_transaction_that_opens_the_run_and_read_before(
    store, policy, work, monkeypatch
):
    watched = OneAtATime(store)
    read = []

    def reading(program: object, wrappers: object) -> Intent:
        read.append((watched.open, program.words))
        return analysis.read(program, wrappers)

    monkeypatch.setattr("runner.deciding.read", reading)

    class Steering:
        digest = "sha256:0"
        follows_links = False

        def __init__(self, *counted: tuple[CountOf, float]) -> None:
            self.counted = frozenset(counted)
            self.decided: list[bool] = []

        def decide(self, action: Exec) -> Decision:
            self.decided.append(watched.open)
            if action.intent.commands[0].words[0].text == "true":
                return Decision(Effect.REWRITE, "steered", self.digest, rewrite=("false",))
            return Decision(Effect.ALLOW, "fine", self.digest)

    request = build_request(argv=["true"], cwd=work)
    plain, counting = Steering(), Steering((CountOf.AGENT, 60.0))
    for point in (plain, counting):
        backend = FakeBackend([exited(1)])
        assert run(watched, Policy(policy.profile, point), backend, request).exit_code == 1
        assert backend.leases[0].spec.argv == ("false",)
    assert read == [(False, ("true",)), (False, ("false",))] * 2
    assert plain.decided == [False, False]
    # Again once it is known what would run instead.
    assert counting.decided == [True, True, True]
    assert [kind for kind, _ in recorded(store)] == ["run.decided", "run.started", "run.ended"] * 2


def test_what_can_not_be_built_is_not_opened_where_runs_are_counted(store, policy, work):
    class Obliging:
        digest = "sha256:0"
        counted = frozenset({(CountOf.ALL, 60.0)})
        follows_links = False

        def decide(self, action: object) -> Decision:
            return Decision(Effect.ALLOW, "fine", self.digest, obligations=("sing",))

    with pytest.raises(RunnerError, match="sing"):
        run(store, Policy(policy.profile, Obliging()), FakeBackend(),
            build_request(argv=["true"], cwd=work))  # fmt: skip
    assert recorded(store) == []
    assert run(store, policy, FakeBackend(), build_request(argv=["true"], cwd=work)).ok


def test_a_budget_frees_when_it_says(tmp_path, policy, work):
    clock = FakeClock()
    grant = Grant(("agent",), budget=CallBudget(3, 60.0))
    held = replace(policy, grants=(("team", (grant,)),))
    began_s = clock.now()
    with contextlib.closing(open_store(tmp_path / "other", clock)) as store:
        supervisor = Supervisor(store, clock, keep_output_bytes=0)

        def go(after_s: float) -> Outcome:
            clock.advance(began_s + after_s - clock.now())
            request = build_request(argv=["true"], cwd=work, agent="a")
            with Cancellation() as cancel:
                return supervisor.run(
                    request, held, backend=FakeBackend(), caller=QUIET, cancel=cancel
                )

        assert [go(after_s).status for after_s in (0.0, 10.0, 20.0)] == [0, 0, 0]
        denied = go(30.0)
        assert (denied.status, denied.decision.rules[0].id) == (126, "grants.budget")
        # It counts as well, so the second of the three has to be out of the window.
        moment = datetime.fromtimestamp(int(began_s + 70.0) + 1, UTC)
        assert moment.isoformat().replace("+00:00", "Z") in denied.decision.reason
        check = supervisor.check(build_request(argv=["true"], cwd=work, agent="a"), held)
        assert check.effect is Effect.DENY
        assert go(int(began_s + 70.0) + 1 - began_s).status == 0
        # An agent that it starts spends from it; another does not.
        other = build_request(argv=["true"], cwd=work, agent="b")
        assert supervisor.check(other, held).permits
        child = build_request(argv=["true"], cwd=work, agent="b", parent="a")
        assert not supervisor.check(child, held).permits


def test_without_an_intent_on_record_nothing_is_built(store, policy, work):
    backend = FakeBackend()
    with pytest.raises(RecordError):
        run(FailingStore(store, 0), policy, backend, build_request(argv=["true"], cwd=work))
    assert backend.leases == []
    assert recorded(store) == []


def test_without_its_start_on_record_the_program_does_not_run(store, policy, work):
    backend = FakeBackend()
    with pytest.raises(RecordError) as caught:
        run(FailingStore(store, 1), policy, backend, build_request(argv=["true"], cwd=work))
    (lease,) = backend.leases
    assert not lease.ran
    assert lease.released
    assert caught.value.outcome is None  # even the failure could not be written down
    assert [kind for kind, _ in recorded(store)] == ["run.decided"]
    store.close()
    again = open_store(store.home, FakeClock())
    with contextlib.closing(again):
        assert again.recover() == [lease.run_id]
        assert [kind for kind, _ in recorded(again)][-1] == "run.recovered"
        assert again.verify().failure is None


FAILURES = {
    "no engine": (FakeBackend(unavailable=BackendError("no engine")), "backend_failed"),
    "protection": (FakeBackend(missing=[Protection.SECCOMP]), "protection_missing"),
    "lost": (FakeBackend([FakeRun(lost="it went away")]), "backend_failed"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_backends_failure_is_recorded_and_told(store, policy, work, case):
    backend, code = FAILURES[case]
    with pytest.raises(BackendError) as caught:
        run(store, policy, backend, build_request(argv=["true"], cwd=work))
    outcome = caught.value.outcome
    assert isinstance(outcome, Outcome)
    assert (outcome.termination, outcome.status) == (Termination.RUNNER_FAILED, 125)
    assert outcome.failure is not None
    assert outcome.failure.code == caught.value.code == code
    _, ended = recorded(store)[-1]
    assert ended["error"] == {"code": code, "message": str(caught.value)}
    assert all(lease.released for lease in backend.leases)
    assert store.recover() == []
    if case == "protection":
        assert isinstance(caught.value, ProtectionMissingError)


@pytest.mark.parametrize(
    ("raised", "termination"),
    [(KeyboardInterrupt(), "cancelled"), (ZeroDivisionError("1/0"), "runner_failed")],
)
def test_whatever_ends_a_run_closes_its_record(store, policy, work, raised, termination):
    def interrupt(_: object) -> None:
        raise raised

    backend = FakeBackend([FakeRun(before=interrupt)])
    with pytest.raises(type(raised)):
        run(store, policy, backend, build_request(argv=["true"], cwd=work))
    kind, ended = recorded(store)[-1]
    assert (kind, ended["termination"]) == ("run.ended", termination)
    assert backend.leases[0].released
    assert store.recover() == []


def test_limits_codes_and_cancellation_come_through(store, policy, work):
    runs = [exited(7, cpu_user_s=0.5), limited(LimitName.MEMORY), FakeRun(until_cancelled=True)]
    backend = FakeBackend(runs, degraded=["cgroup"])
    request = build_request(argv=["true"], cwd=work)
    first = run(store, policy, backend, request)
    assert (first.status, first.usage.cpu_user_s, first.degraded) == (7, 0.5, ("cgroup",))
    second = run(store, policy, backend, request)
    assert (second.status, second.limit) == (124, LimitName.MEMORY)
    supervisor = Supervisor(store, FakeClock(), keep_output_bytes=0)
    with Cancellation() as cancel:
        cancel.set()
        third = supervisor.run(request, policy, backend=backend, caller=QUIET, cancel=cancel)
    assert (third.status, third.termination) == (130, Termination.CANCELLED)
    assert third.stdout.sha256 is not None
    totals = {(total.scope, total.key): total.calls for total in store.totals()}
    assert totals["agent", "default"] == 3


def test_check_is_recorded_and_runs_nothing(store, policy, work):
    supervisor = Supervisor(store, FakeClock(), keep_output_bytes=0)
    request = build_request(shell="sudo true", cwd=work)
    assert supervisor.check(request, policy).effect is Effect.DENY
    assert [kind for kind, _ in recorded(store)] == ["decision.checked"]
    assert supervisor.plan(request, policy).spec is None
    assert len(recorded(store)) == 1  # a plan touches nothing
