"""Spending from budgets: what is left, what a run takes before it starts, holds and gives back.

All of it happens inside transactions of the supervisor's, so that of runs that begin at the same
moment, in other threads and processes too, each sees what those before it took. What is counted
one by one is taken as one; what flows is held in slices (`metering.slices`), and a `RunMeter` takes
the next one while the run goes on. Whatever happens to this process, the ledger has no less than
what was used, up to what a backend lets pass between two looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from runner import records
from runner.books import Ledger
from runner.errors import RecordError
from runner.metering import windows
from runner.metering.slices import MOST_US, due, slice_of, used_of
from runner.model.budget import (
    COUNTED,
    METERED,
    NETWORKED,
    Account,
    Bucket,
    Budget,
    Calendar,
    Charge,
    PerRun,
    Resource,
    Sliding,
    Spent,
    Stated,
    Window,
)
from runner.model.principal import Principal
from runner.model.profile import NetworkMode
from runner.model.usage import Usage
from runner.ports import Clock, Store, Transaction

WARN_AGAIN_S = 3600.0
"""What has no window (`at_once`) is warned of once in so long."""

UNUSED = Usage(wall_s=0.0, cpu_user_s=0.0, cpu_system_s=0.0)
"""Of a run whose program never started."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """One amount of a budget that a run is charged to."""

    charge: Charge
    resource: Resource
    amount: int
    """What holds now: what is stated, or what somebody set for a time."""

    @property
    def budget(self) -> Budget:
        return self.charge.budget

    @property
    def account(self) -> Account:
        return self.charge.account(self.resource)

    @property
    def window(self) -> Window | None:
        """None of what is a level."""
        return None if self.resource is Resource.AT_ONCE else self.budget.window

    @property
    def counts(self) -> Sliding | Calendar | None:
        """The window that the ledger has counters for."""
        window = self.window
        return None if isinstance(window, PerRun) else window

    def spent(self, used: int | None, free_at_s: float | None = None) -> Spent:
        """It has nothing left."""
        return Spent(
            layer=self.charge.layer,
            budget_id=self.budget.id,
            scope=self.charge.scope,
            resource=self.resource,
            amount=self.amount,
            window=self.window,
            used=used,
            free_at_s=free_at_s,
        )


def used_up(
    ledger: Ledger, charges: Iterable[Charge], network: NetworkMode, now_s: float
) -> tuple[Spent, ...]:
    """Those that have nothing left for one more run, and those that could not be held at all.

    RecordError, StateError: it can't be told.
    """
    return tuple(
        spent
        for bound in _bounds(ledger, charges)
        if not bound.budget.soft
        if (spent := _spent(ledger, bound, network, now_s)) is not None
    )


def standing(ledger: Ledger, stated: Stated, now_s: float) -> tuple[Spent, ...]:
    """How each counter stands of the budgets that are stated: used now, and free again when.

    Those that nothing was charged to have none. RecordError, StateError: it can't be told.
    """
    budgets = {f"{layer}#{each.id}": (layer, each) for layer, held in stated for each in held}
    return tuple(
        _told(ledger, bound, _used(ledger, bound, now_s), now_s)
        for account in ledger.accounts()
        if account.budget in budgets
        for bound in _bounds(ledger, [Charge(*budgets[account.budget], account.scope)])
        if bound.resource is account.resource and bound.window is not PerRun.RUN
    )


def _spent(ledger: Ledger, bound: _Bound, network: NetworkMode, now_s: float) -> Spent | None:
    if bound.resource not in COUNTED | METERED:
        if bound.resource in NETWORKED and network is NetworkMode.NONE:
            return None  # known to stay 0
        return bound.spent(None)
    if bound.window is PerRun.RUN:
        return None
    used = _used(ledger, bound, now_s)
    return None if used < bound.amount else _told(ledger, bound, used, now_s)


def _used(ledger: Ledger, bound: _Bound, now_s: float) -> int:
    """Charged within the window, or held."""
    held = ledger.held(bound.account)
    if bound.counts is None:
        return held
    return held + ledger.spent(bound.account, _oldest(bound.counts, now_s))


def _told(ledger: Ledger, bound: _Bound, used: int, now_s: float) -> Spent:
    if bound.counts is None:
        return bound.spent(used)
    counting = ledger.buckets(bound.account, _oldest(bound.counts, now_s))
    freed = windows.free_at(bound.counts, now_s, counting, used - bound.amount + 1)
    return bound.spent(used, freed)


@dataclass(slots=True)
class _Flow:
    """What a run holds of one budget of something that flows."""

    bound: _Bound
    held: int = 0
    charged: int = 0
    """Of the run's own, moved to the counters already."""
    warned: set[int] = field(default_factory=set)
    """With `PerRun`: the shares that were warned of."""

    @property
    def own(self) -> bool:
        """Whether it bounds this run alone: no other can use it up."""
        return self.bound.window is PerRun.RUN

    def due(self, used: int) -> bool:
        """Whether the ledger has to be asked for more."""
        return not self.own and due(used, self.charged, self.held)

    def crossed(self, used: int) -> bool:
        """Whether all is used that there is."""
        return used >= self.charged + self.held and not self.bound.budget.soft

    def unwarned(self, used: int) -> list[int]:
        """Shares that were passed and not warned of."""
        return [each for each in _passed(self.bound, used) if each not in self.warned]


class RunMeter:
    """One run's part in the budgets that it is charged to; `ports.Meter`."""

    def __init__(self, store: Store, clock: Clock, run_id: str, who: Principal) -> None:
        """Nothing is taken yet: see `begin`."""
        self._store = store
        self._clock = clock
        self._run_id = run_id
        self._who = who
        self._flows: list[_Flow] = []
        self.crossed: Spent | None = None
        """The budget for which the run has to end."""

    @property
    def asked(self) -> bool:
        """Whether there is anything to ask it for while the run goes on."""
        return bool(self._flows)

    def begin(self, tx: Transaction, charges: Sequence[Charge]) -> None:
        """Take one call and one place, and the first slices; warn of what is nearly used up.

        In the transaction that opens the run, after `used_up` found in it that there is enough.
        """
        now_s = self._clock.now()
        for bound in _bounds(tx, charges):
            if bound.resource in METERED:
                flow = _Flow(bound)
                flow.held = self._take(tx, flow, now_s)
                self._flows.append(flow)
            elif bound.resource is Resource.CALLS:
                tx.charge(bound.account, _places(bound.counts, now_s), 1)
                self._warn(tx, bound, now_s)
            elif bound.resource is Resource.AT_ONCE:
                tx.hold(self._run_id, bound.account, None, 1)
                self._warn(tx, bound, now_s)

    def look(self, usage: Usage) -> bool:
        """Whether the run may go on with what it has used; takes what it needs for that.

        RecordError: the ledger can't be written, or the usage is none.
        """
        used = [(flow, n) for flow in self._flows if (n := _used_of(flow, usage)) is not None]
        asking = [(flow, n) for flow, n in used if flow.due(n)]
        warning = [(flow, n) for flow, n in used if flow.own and flow.unwarned(n)]
        if asking or warning:
            self._write(asking, warning)
        for flow, n in used:
            if flow.crossed(n):
                self.crossed = self._crossing(flow, n)
                return False
        return True

    def unmeasured(self, usage: Usage) -> list[tuple[Account, int]]:
        """What it is charged in all of what `usage` does not tell: what it held, at the end too."""
        return [
            (flow.bound.account, flow.charged + flow.held)
            for flow in self._flows
            if not flow.own and _used_of(flow, usage) is None and flow.charged + flow.held > 0
        ]

    def settle(self, tx: Transaction, usage: Usage) -> None:
        """What was used in the place of what is held; the rest is free.

        What was not measured stays held: the run's close charges that whole.
        """
        now_s = self._clock.now()
        for flow in self._flows:
            used = _used_of(flow, usage)
            if used is not None and not flow.own:
                self._charge(tx, flow, used, now_s)
                self._warn(tx, flow.bound, now_s)

    def _charge(self, tx: Transaction, flow: _Flow, used: int, now_s: float) -> int:
        """Move what was used to the counters, and hold nothing; how much was moved."""
        fresh = max(0, used - flow.charged)
        bound = flow.bound
        tx.charge(bound.account, _places(bound.counts, now_s), fresh, self._run_id)
        tx.hold(self._run_id, bound.account, bound.window, 0)
        return fresh

    def _take(self, tx: Transaction, flow: _Flow, now_s: float) -> int:
        """Hold the next slice, of which nothing is held now; how much."""
        if flow.own:
            return flow.bound.amount
        bound = flow.bound = replace(flow.bound, amount=_amount(tx, flow.bound))
        taken = MOST_US
        if not bound.budget.soft:
            taken = slice_of(bound.amount - _used(tx, bound, now_s))
        tx.hold(self._run_id, bound.account, bound.window, taken)
        return taken

    def _write(
        self, asking: Sequence[tuple[_Flow, int]], warning: Sequence[tuple[_Flow, int]]
    ) -> None:
        """In one transaction: charge what was used, take the next slices, warn."""
        now_s = self._clock.now()
        taken = []
        with self._store.transaction() as tx:
            for flow, used in asking:
                fresh = self._charge(tx, flow, used, now_s)
                taken.append((flow, fresh, self._take(tx, flow, now_s)))
                self._warn(tx, flow.bound, now_s)
            for flow, used in warning:
                for percent in flow.unwarned(used):
                    self._append(tx, flow.bound, percent, used)
        for flow, fresh, held in taken:  # it is durable now
            flow.charged += fresh
            flow.held = held
        for flow, used in warning:
            flow.warned.update(flow.unwarned(used))

    def _crossing(self, flow: _Flow, used: int) -> Spent:
        if flow.own:
            return flow.bound.spent(used)
        now_s = self._clock.now()
        counted = _used(self._store, flow.bound, now_s)
        return _told(self._store, flow.bound, max(counted, flow.bound.amount), now_s)

    def _warn(self, tx: Transaction, bound: _Bound, now_s: float) -> None:
        """An event for each share that is newly used up, once a window."""
        if not bound.budget.warn_at and not bound.budget.soft:
            return
        window = bound.counts
        if window is None:
            used, since_s = tx.held(bound.account), now_s - WARN_AGAIN_S
        else:
            used = tx.spent(bound.account, _oldest(window, now_s))
            since_s = _since(window, now_s)
        for percent in _passed(bound, used):
            last_s = tx.warned_s(bound.account, percent)
            if last_s is None or last_s < since_s:
                self._append(tx, bound, percent, used)
                tx.warned(bound.account, percent)

    def _append(self, tx: Transaction, bound: _Bound, percent: int, used: int) -> None:
        tx.append(
            records.budget_warned(
                self._run_id,
                self._who,
                bound.charge,
                resource=bound.resource,
                amount=bound.amount,
                percent=percent,
                used=used,
            )
        )


def _bounds(ledger: Ledger, charges: Iterable[Charge]) -> Iterator[_Bound]:
    """All amounts, each as it holds now."""
    for charge in charges:
        for resource, amount in charge.budget.amounts:
            bound = _Bound(charge, resource, amount)
            yield replace(bound, amount=_amount(ledger, bound))


def _amount(ledger: Ledger, bound: _Bound) -> int:
    """What somebody set for now, or what is stated."""
    stated = dict(bound.budget.amounts)[bound.resource]
    if bound.budget.fixed or bound.window is PerRun.RUN:
        return stated
    override = ledger.override(bound.account)
    return stated if override is None else override.amount


def _used_of(flow: _Flow, usage: Usage) -> int | None:
    try:
        return used_of(flow.bound.resource, usage)
    except ValueError as error:
        raise RecordError(f"the run's usage can't be charged: {error}") from None


def _passed(bound: _Bound, used: int) -> list[int]:
    """The shares, in percent, that are used; of a soft budget all of it is one."""
    shares = {*bound.budget.warn_at, 100} if bound.budget.soft else {*bound.budget.warn_at}
    return [percent for percent in sorted(shares) if used * 100 >= percent * bound.amount]


def _places(window: Sliding | Calendar | None, now_s: float) -> tuple[Bucket, ...]:
    if window is None:
        return ()
    try:
        return windows.place(window, now_s), windows.history(now_s)
    except (ValueError, OverflowError, OSError) as error:
        raise _no_time(now_s, error) from error


def _oldest(window: Sliding | Calendar, now_s: float) -> Bucket:
    try:
        return windows.oldest(window, now_s)
    except (ValueError, OverflowError, OSError) as error:
        raise _no_time(now_s, error) from error


def _since(window: Sliding | Calendar, now_s: float) -> float:
    """When the window began."""
    if isinstance(window, Sliding):
        return now_s - window.window_s
    return float(_oldest(window, now_s).number)


def _no_time(now_s: float, error: Exception) -> RecordError:
    return RecordError(f"a budget can't be counted at {now_s}: {error}; look at the clock")
