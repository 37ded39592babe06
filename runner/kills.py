"""What runs now, for people: looking at it, ending it, and keeping agents from beginning more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from runner import killing, operator_records
from runner.errors import BackendError, ForbiddenError, RequestError, RunnerError
from runner.model.kill import Ended, Kill, KillScope, OpenRun
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.ports import Backend, Clock, Store, Transaction

PATIENCE_S = 1.0
"""Supervisors look a few times a second; one that has not ended its run by then is passed by."""
CLOSE_WITHIN_S = 3.0
"""How long it is waited for that the end of a run is recorded."""
_LOOK_EVERY_S = 0.02


class Kills:
    """The kill switch, and the runs of all who share the state folder."""

    def __init__(self, store: Store, clock: Clock, backend: Callable[[str], Backend]) -> None:
        """`backend`: gives one by its name."""
        self._store = store
        self._clock = clock
        self._backend = backend

    def all(self) -> Sequence[Kill]:
        """Those that hold, the oldest first. StateError: it can't be read."""
        return self._store.kills()

    def running(self) -> Sequence[OpenRun]:
        """Runs that have not ended, the oldest first. StateError: it can't be read."""
        return self._store.open_runs()

    def usages(self, runs: Sequence[OpenRun]) -> Mapping[str, Usage]:
        """What those have used so far that have a sandbox; of a backend that can't tell, none."""
        found: dict[str, Usage] = {}
        for name in {run.backend for run in runs}:
            with suppress(BackendError):
                ids = {run.run_id for run in runs if run.backend == name}
                found.update(self._backend(name).usages(ids))
        return found

    def order(
        self,
        scope: KillScope,
        name: str,
        reason: str,
        *,
        by: str | None = None,
        only_own: bool = False,
    ) -> Ended:
        """Let it hold from now on, which ends the runs that it hits. Recorded; see `await_end`.

        `name`: empty with `ALL`; `by`: who orders it, this process's user else; `only_own`: it
        can't take the place of one that somebody else ordered. RequestError: no reason is given, or
        there is no such run. ForbiddenError: somebody else stopped it already.
        """
        if not reason.strip():
            raise RequestError("runs are killed for a reason: say which, it is recorded")
        if (scope is KillScope.ALL) != (not name):
            raise RequestError(f"a kill of {scope.value} {'has no' if name else 'needs a'} name")
        kill = Kill(scope, name, by or _operator(), reason, self._clock.now())
        with self._store.transaction() as tx:
            runs = tuple(tx.open_runs(scope, name))
            if scope is KillScope.RUN and not runs:
                raise RequestError(
                    f"no run {name!r} is open; `runner ps` lists those that are, and `runner "
                    "audit show` tells what became of one"
                )
            if only_own:
                _check_own(tx, kill)
            tx.set_kill(kill)
            tx.append(operator_records.kill_ordered(kill, runs, _who()))
        return Ended(runs)

    def await_end(self, ordered: Ended, *, patience_s: float = PATIENCE_S) -> Ended:
        """Wait until its runs have ended.

        Supervisors end them. Where one does not within `patience_s`, the sandbox is ended from
        here, whatever that supervisor does.
        """
        left = self._left(ordered.runs, patience_s)
        forced, alive = [], []
        for run in left:
            try:
                if self._backend(run.backend).kill(run.run_id):
                    forced.append(run.run_id)
            except BackendError as error:
                alive.append(f"{run.run_id}: {error}")
        unrecorded = self._left(left, CLOSE_WITHIN_S if left and not alive else 0.0)
        return Ended(
            ordered.runs, tuple(forced), tuple(run.run_id for run in unrecorded), tuple(alive)
        )

    def kill(
        self, scope: KillScope, name: str, reason: str, *, by: str | None = None
    ) -> tuple[str, ...]:
        """`order` it and wait for the end; ids of those that were open.

        RunnerError: the end of some is not recorded, or they could not be ended.
        """
        ended = self.await_end(self.order(scope, name, reason, by=by))
        if ended.alive or ended.unrecorded:
            left = "; ".join((*ended.alive, *ended.unrecorded))
            raise RunnerError(f"not all runs that were to be killed have ended: {left}")
        return tuple(run.run_id for run in ended.runs)

    def lift(
        self,
        scope: KillScope,
        name: str,
        reason: str,
        *,
        by: str | None = None,
        only_own: bool = False,
    ) -> None:
        """Let it hold no more; recorded. RequestError: none does, or no reason is given.

        `only_own`: not what somebody else ordered; ForbiddenError.
        """
        if not reason.strip():
            raise RequestError("a kill is lifted for a reason: say which, it is recorded")
        by = by or _operator()
        with self._store.transaction() as tx:
            if only_own:
                _check_own(tx, Kill(scope, name, by, reason, self._clock.now()))
            if not tx.lift_kill(scope, name):
                stopped = [killing.whose(each) for each in tx.kills()]
                raise RequestError(
                    f"nothing stops {killing.whose(Kill(scope, name, '', '', 0.0))}; "
                    + (f"stopped: {', '.join(stopped)}" if stopped else "no kill is in force")
                )
            tx.append(operator_records.kill_lifted(scope, name, by, reason, _who()))

    def _left(self, runs: Sequence[OpenRun], within_s: float) -> Sequence[OpenRun]:
        """Those that are open, at the latest after that long."""
        deadline_s = self._clock.monotonic() + within_s
        while True:
            still = {run.run_id for run in self._store.open_runs()} if runs else set()
            runs = [run for run in runs if run.run_id in still]
            if not runs or self._clock.monotonic() >= deadline_s:
                return runs
            time.sleep(_LOOK_EVERY_S)


def _check_own(tx: Transaction, kill: Kill) -> None:
    """ForbiddenError: it is in force already by somebody else's order."""
    for each in tx.kills():
        if (each.scope, each.name) == (kill.scope, kill.name) and each.by != kill.by:
            raise ForbiddenError(
                f"{each.by} stopped {killing.whose(each)}: {kill.by} can't change that"
            )


def _who() -> Principal:
    return Principal(uid=os.getuid(), agent="default")


def _operator() -> str:
    return f"uid:{os.getuid()}"
