"""The engine as a library: puts the adapters together and finds entry points."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from runner import records
from runner.adapters import (
    decided_by,
    find_adapter,
    points_in_force,
    policy_in_force,
    with_own_python,
    wrappers_in_force,
)
from runner.analysis.wrappers.table import Table
from runner.applying import ChangesOfRuns
from runner.approvals import Approvals
from runner.auditing import Audit
from runner.bound import check_bound
from runner.budgeting import Budgets
from runner.caller import Caller
from runner.changes.diff import FileDiff
from runner.changes.results import Applied, RunChanges
from runner.clock import SystemClock
from runner.compile import budgets, check_workspace, grants, inherited_names, policy_layers, tighten
from runner.deciding import Policy
from runner.errors import RunnerError
from runner.following import Following
from runner.guards import Guards
from runner.intake import ask_wait_s, build_request, checked_stdin
from runner.keys import Keys
from runner.kills import Kills
from runner.looping import guarding
from runner.model.action import Facts
from runner.model.budget import Stated
from runner.model.decision import Decision
from runner.model.event import EventDraft, EventKind
from runner.model.keeping import KeepBounds
from runner.model.limits import LimitOverrides
from runner.model.outcome import Outcome
from runner.model.principal import Principal
from runner.model.profile import WorkspaceMode
from runner.model.request import ExecRequest
from runner.model.swept import Swept
from runner.policy.combined import combine
from runner.ports import Backend, CancelToken, DecisionPoint, OutputSink, Store
from runner.proposed import Proposed
from runner.recording import Plan
from runner.schema.profiles import load_profile, shipped_profiles
from runner.sessions.starting import Sessions
from runner.settings import Settings, host_environment, load_settings
from runner.stores.changes import ChangeArchive
from runner.stores.redacting import redactor_of
from runner.stores.telling import Teller
from runner.streams import Cancellation, NullSink
from runner.supervisor import Supervisor

LOOK_EVERY_S = 600.0
"""Kept output may be over its bounds for so long: looking through all of it takes time."""
DISCARDED_AT_ONCE = 500
"""Runs whose output goes before a run; `runner clean` takes all."""


class Runner:
    """Runs what agents propose: decided, contained, metered and recorded.

    A context manager; safe to use from several threads.
    """

    def __init__(
        self,
        *,
        home: str | os.PathLike[str] | None = None,
        backend: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        """`home`: the state folder; `backend`: `native` or `docker`. Else the settings' own.

        StateError, SettingsError, PolicyError: what is wrong with either. Runs of supervisors that
        died are closed here.
        """
        if settings is None:
            settings = load_settings(
                {"home": os.fspath(home) if home is not None else None, "backend": backend}
            )
        self._settings = settings
        self._restrictions = policy_in_force(settings)
        self._wrappers = wrappers_in_force(settings)
        self._foreign = points_in_force(settings)
        clock = SystemClock()
        redactor = redactor_of(settings.home.value, settings.redact_patterns.value)
        self._store: Store = find_adapter("runner.stores", "sqlite")(
            settings.home.value, clock, settings.checkpoint_rules, redactor=redactor
        )
        self._archive = ChangeArchive(settings.home.value, clock, settings.keep_changes_bytes.value)
        self._teller = Teller(
            settings.approvals_to.value,
            settings.approvals_secret.value,
            self._store.approval,
            self._store.transaction,
            clock,
        )
        self._supervisor = Supervisor(
            self._store,
            clock,
            settings.keep_output_bytes.value,
            settings.keep_program_bytes.value,
            self._archive,
            redactor=redactor,
            tell=self._teller.tell,
        )
        self.budgets = Budgets(self._store, clock, self._stated_budgets)
        """How budgets stand, and beginning them anew."""
        self.guards = Guards(self._store, clock)
        """Commands that have to pause, and letting them be tried again."""
        self.approvals = Approvals(self._store, clock)
        """What rules ask, and answering it."""
        self.kills = Kills(self._store, clock, self.backend)
        """What runs now, ending that, and keeping agents from beginning more."""
        self.audit = Audit(self._store, clock, settings.home.value)
        """The log: searched, checkpointed, and runs proved to be in it."""
        self.keys = Keys(self._store, clock)
        """Keys of the API: making, listing and revoking them."""
        self.sessions = Sessions(self._store, settings)
        """Sandboxes whose files and processes live on between commands."""
        self._changes = ChangesOfRuns(self._store, self._archive, clock, self._write_rules)
        self._clock = clock
        self._looked_s: float | None = None
        """When kept output was looked at, on the monotonic clock; None: not yet."""
        self._lock = threading.Lock()
        self._backends: dict[str, Backend] = {}
        self._decision_points: dict[tuple[object, ...], DecisionPoint] = {}
        self.recovered = self._store.recover()
        """Runs that were closed as `unknown` because their supervisor had died."""
        self._changes.sweep_if_due(self._changes_bounds)

    @property
    def store(self) -> Store:
        """Audit log and ledger of this state folder."""
        return self._store

    @property
    def wrappers(self) -> Table:
        """The commands that run others, as requests are read: shipped rows, and those added."""
        return self._wrappers

    @property
    def settings(self) -> Settings:
        """The settings in force, each with its origin."""
        return self._settings

    def run(
        self,
        argv: Sequence[str] | None = None,
        *,
        shell: str | None = None,
        script: str | os.PathLike[str] | None = None,
        code: str | bytes | None = None,
        language: str | None = None,
        args: Sequence[str] = (),
        profile: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | bytes | str | None = None,
        limits: Mapping[str, object] | LimitOverrides | None = None,
        labels: Mapping[str, str] | None = None,
        stdout: OutputSink | None = None,
        stderr: OutputSink | None = None,
        backend: str | None = None,
        cancel: CancelToken | None = None,
        ask_wait: str | float | None = None,
    ) -> Outcome:
        """Run one of `argv`, `shell` text, a `script` (path) or `code` in a `language`.

        Args:
            args: arguments of a script or code.
            profile: a profile's name or file; the settings' default else.
            cwd: the workspace folder; this process's own else.
            stdin: bytes, text (UTF-8) or an open descriptor; nothing else.
            limits: by the keys of a profile, e.g. `{"wall": "5s"}`; they can only tighten.
            stdout: where output goes as it comes; the outcome holds what was kept either way.
            cancel: ends the run when set.
            ask_wait: how long to wait where a rule asks, `15m` or seconds; the settings' own else.

        Returns:
            The outcome; a denial and a crossed limit are outcomes too.

        Raises:
            RunnerError: runner could not do its work; `code` says what, `outcome` the record.
        """
        asked = Proposed(
            shell=shell, script=script, code=code, language=language, args=args,
            profile=profile, agent=agent, parent=parent, session=session, tenant=tenant, cwd=cwd,
            env=env, limits=limits, labels=labels,
        )  # fmt: skip
        request, source, wait_s = self._asked(argv, asked, stdin, ask_wait)
        caller = Caller(source, stdout or NullSink(), stderr or NullSink(), ask_wait_s=wait_s)
        return self.execute(request, caller, cancel, backend=backend)

    def stream(
        self,
        argv: Sequence[str] | None = None,
        *,
        stdin: int | bytes | str | None = None,
        backend: str | None = None,
        ask_wait: str | float | None = None,
        **program: Unpack[Proposed],
    ) -> Following:
        """Run it and follow what happens, event by event (`runner.model.following`).

        The arguments are those of `run`. The program waits while its output is not taken.
        """
        request, source, wait_s = self._asked(argv, program, stdin, ask_wait)
        with self.refusals_recorded(request.principal, request.profile):
            self.policy(request, backend or self._settings.backend.value)  # or it is wrong here

        def execute(caller: Caller, cancel: CancelToken) -> Outcome:
            return self.execute(request, caller, cancel, backend=backend)

        return Following(execute, source, ask_wait_s=wait_s)

    def _asked(
        self,
        argv: Sequence[str] | None,
        program: Proposed,
        stdin: int | bytes | str | None = None,
        ask_wait: str | float | None = None,
    ) -> tuple[ExecRequest, int | bytes | None, float]:
        """A program as a request, what it reads, and how long it waits where a rule asks."""
        agent, tenant = program.get("agent") or "default", program.get("tenant")
        who = Principal(uid=os.getuid(), agent=agent, tenant=tenant)
        with self.refusals_recorded(who, program.get("profile")):
            source = checked_stdin(stdin)
            profile = program.get("profile") or self._settings.profile.value
            given: dict[str, Any] = {**program, "profile": profile}
            request = build_request(argv=argv, **given)
            wait_s = self._settings.ask_wait.value if ask_wait is None else ask_wait_s(ask_wait)
        return request, source, wait_s

    def execute(
        self,
        request: ExecRequest,
        caller: Caller,
        cancel: CancelToken | None = None,
        *,
        backend: str | Backend | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a request that was built already; what the surfaces call.

        `backend`: by its name, or one that is at hand, as for the commands of a session.
        `environment`: what the profile inherits from; this process's own else.
        """
        with contextlib.ExitStack() as stack:
            token = cancel if cancel is not None else stack.enter_context(Cancellation())
            with self.refusals_recorded(request.principal, request.profile):
                self._bound_output()
                if backend is None or isinstance(backend, str):
                    backend = self.backend(backend)
                policy = self.policy(request, backend.name)
                inherited = host_environment(inherited_names(request, policy.profile), environment)
                return self._supervisor.run(
                    request,
                    policy,
                    backend=backend,
                    caller=caller,
                    cancel=token,
                    inherited=inherited,
                    reload=partial(self.policy, request, backend.name),
                )

    def plan(self, request: ExecRequest, *, backend: str | None = None) -> Plan:
        """Decision and compiled sandbox, nothing run and nothing recorded."""
        policy = self.policy(request, backend or self._settings.backend.value)
        inherited = host_environment(inherited_names(request, policy.profile))
        return self._supervisor.plan(request, policy, inherited)

    def check(
        self, argv: Sequence[str] | ExecRequest | None = None, **program: Unpack[Proposed]
    ) -> Decision:
        """Only the decision, recorded as one that was asked for.

        The arguments are those of `run`, or a request that was built already.
        """
        if isinstance(argv, ExecRequest):
            request = argv
        else:
            request, _, _ = self._asked(argv, program)
        with self.refusals_recorded(request.principal, request.profile):
            policy = self.policy(request, self._settings.backend.value)
        return self._supervisor.check(request, policy)

    def held_against(self, request: ExecRequest) -> tuple[Policy, Facts]:
        """What a request would be decided by; nothing is recorded but that it can't be."""
        with self.refusals_recorded(request.principal, request.profile):
            policy = self.policy(request, self._settings.backend.value)
        return policy, self._supervisor.facts(request, policy)

    def policy(self, request: ExecRequest, backend: str) -> Policy:
        """The profile, tightened by every layer above it, and the rules of all."""
        loaded = load_profile(request.profile, self._settings.profile_dirs.value)
        profile = tighten(loaded, self._restrictions)
        if profile.workspace is not WorkspaceMode.NONE:
            self._check_workspace(request.directory)
            if profile.workspace is WorkspaceMode.BIND:
                check_bound(request.directory, decided_by(request.profile, self._settings))
            if backend == "native":
                denied = [pattern for layer in self._restrictions for pattern in layer.read_deny]
                profile = with_own_python(profile, request.directory, denied)
        layers = policy_layers(profile, self._restrictions)
        with self._lock:
            if layers not in self._decision_points:
                create = find_adapter("runner.policies", "rules")
                self._decision_points[layers] = combine((create(layers), *self._foreign))
            decisions = self._decision_points[layers]
        return Policy(
            profile,
            decisions,
            grants(self._restrictions),
            self._wrappers,
            budgets(profile, self._restrictions),
            guarding(profile, self._restrictions),
        )

    def _stated_budgets(self, profile: str | None) -> Stated:
        chosen = profile or self._settings.profile.value
        return budgets(load_profile(chosen, self._settings.profile_dirs.value), self._restrictions)

    def backend(self, name: str | None = None) -> Backend:
        """The backend by this name, made once."""
        wanted = name or self._settings.backend.value
        with self._lock:
            if wanted in self._backends:
                return self._backends[wanted]
            cache = Path(self._settings.home.value) / "cache"
            made: Backend = find_adapter("runner.backends", wanted)(cache)
            self._backends[wanted] = made
        if self.recovered:  # somebody died with runs in hand: all is looked through
            self._record_swept(made.name, made.sweep())
        return made

    def latest_changes(self) -> str:
        """Id of the run whose changes were kept last; RequestError: nothing is kept of any."""
        return self._changes.latest()

    def changes(self, run_id: str) -> RunChanges:
        """What a run changed in its workspace, and what is left of it to apply."""
        return self._changes.view(run_id)

    def diff(self, run_id: str, paths: Sequence[str] = ()) -> tuple[FileDiff, ...]:
        """What is left of a run's changes (at these paths, else all) against the originals."""
        return self._changes.diff(run_id, paths)

    def apply(
        self,
        run_id: str,
        paths: Sequence[str] = (),
        *,
        dry_run: bool = False,
        agent: str | None = None,
    ) -> Applied:
        """Write what a run changed (at these paths, else all) into its workspace folder.

        Each path is decided by the rules on writing as they stand now, and refused when what
        stands there is not what the run saw. `agent`: who applies.
        """
        return self._changes.apply(run_id, paths, dry_run=dry_run, agent=agent)

    def discard(self, run_id: str, *, agent: str | None = None) -> bool:
        """Throw away what is kept of a run's changes; False: nothing was."""
        return self._changes.discard(run_id, agent)

    def sweep(self) -> Swept:
        """Remove what dead supervisors left here, and output and changes past their bounds.

        What was removed, and what could not be, is recorded. BackendError: the backend can't work
        here, so nothing is known of what it left.
        """
        discarded = self._store.discard_outdated(self._output_bounds)
        if discarded.left:
            self._record_swept(None, Swept(left=discarded.left))
        changes = Swept(removed=tuple(self._changes.sweep(self._changes_bounds)))
        backend = self.backend()
        swept = backend.sweep()
        self._record_swept(backend.name, swept)
        return discarded + changes + swept

    @property
    def _output_bounds(self) -> KeepBounds:
        return KeepBounds(
            self._settings.keep_output_days.value, self._settings.keep_output_total_bytes.value
        )

    @property
    def _changes_bounds(self) -> KeepBounds:
        return KeepBounds(
            self._settings.keep_changes_days.value, self._settings.keep_changes_total_bytes.value
        )

    def _bound_output(self) -> None:
        """Now and then; a little at a time, because a run waits for it."""
        now_s = self._clock.monotonic()
        with self._lock:
            if self._looked_s is not None and now_s - self._looked_s < LOOK_EVERY_S:
                return
            self._looked_s = now_s
        found = self._store.discard_outdated(
            self._output_bounds, not_within_s=LOOK_EVERY_S, most=DISCARDED_AT_ONCE
        )
        if found.left:
            self._record_swept(None, Swept(left=found.left))

    def _record_swept(self, backend: str | None, swept: Swept) -> None:
        if swept:
            with self._store.transaction() as tx:
                tx.append(records.swept(backend, swept))

    def try_profiles(self) -> dict[str, str | None]:
        """Build and release a sandbox under each shipped profile: name -> why it can't run."""
        found: dict[str, str | None] = {}
        for path in shipped_profiles():
            name = path.stem
            with tempfile.TemporaryDirectory() as folder:
                try:
                    request = build_request(argv=["true"], cwd=folder, profile=name)
                    plan = self.plan(request)
                    if plan.spec is not None:
                        self.backend().acquire(plan.spec, "trial").release()
                    found[name] = None
                except RunnerError as error:
                    found[name] = str(error)
        return found

    def close(self) -> None:
        """End every sandbox and let go of the log; may be called twice."""
        try:
            for backend in self._backends.values():
                backend.close()
            self._supervisor.record_owed()
            for backend in self._backends.values():
                self._record_swept(backend.name, backend.take_swept())
        finally:
            self._backends.clear()
            self._teller.finish()
            self._store.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_rules(self, request: ExecRequest) -> tuple[Policy, Facts]:
        policy = self.policy(request, self._settings.backend.value)
        return policy, self._supervisor.facts(request, policy)

    def _check_workspace(self, directory: str) -> None:
        home = self._settings.user_home
        denied = [pattern for layer in self._restrictions for pattern in layer.read_deny]
        check_workspace(
            directory,
            str(home.resolve()) if home is not None else None,
            str(Path(self._settings.home.value).resolve()),
            denied,
        )

    @contextlib.contextmanager
    def refusals_recorded(self, who: Principal | None, profile: str | None) -> Iterator[None]:
        """A request that is refused before it can be decided is recorded; None: as nobody's."""
        try:
            yield
        except RunnerError as error:
            if error.outcome is not None:
                raise  # the run had begun, and its record tells of the failure
            data = {"code": error.code, "message": str(error), "profile": profile}
            with contextlib.suppress(RunnerError), self._store.transaction() as tx:
                tx.append(EventDraft(EventKind.REQUEST_REFUSED, data, who))
            raise
