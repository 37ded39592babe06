"""Budgets: how much may be used by whom within which time, over all runs and processes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Resource(StrEnum):
    """What is budgeted; the closed list. Amounts are whole numbers of the unit beside each.

    A new one needs a line in each table below, and somebody who meters it.
    """

    CALLS = "calls"
    """Runs that were let begin."""
    WALL = "wall"
    """Microseconds from start to end."""
    CPU = "cpu"
    """Microseconds of CPU, user and system, of all processes."""
    EXECS = "execs"
    CONNECTIONS = "connections"
    REQUESTS = "requests"
    BYTES = "bytes"
    """Bytes over the network, in and out."""
    TOKENS = "tokens"
    MONEY = "money"
    """Millionths of a US dollar."""
    AT_ONCE = "at_once"
    """Runs that are open; a level, not an amount: it has no window."""


COUNTED = frozenset({Resource.CALLS, Resource.AT_ONCE})
"""Taken one by one before a run is let begin: never exceeded by one."""
FLOWING = frozenset(Resource) - COUNTED
"""Used while a run goes on: held in slices, so that many runs at once stay within the whole."""
NETWORKED = frozenset(
    {Resource.CONNECTIONS, Resource.REQUESTS, Resource.BYTES, Resource.TOKENS, Resource.MONEY}
)
"""Known to stay 0 in a run that has no network."""
METERED = frozenset({Resource.WALL, Resource.CPU})
"""Of what flows, what every backend tells while a run goes on (see the contract suite)."""


class BudgetOf(StrEnum):
    """Who has a counter of their own; runs that name no such thing share one."""

    AGENT = "agent"
    """Each agent; the one that started it is charged as well."""
    SESSION = "session"
    PROFILE = "profile"
    TENANT = "tenant"
    UID = "uid"
    LABEL = "label"
    """Each value of the label `Budget.label`."""
    ALL = "all"


class Period(StrEnum):
    """A part of the calendar; a week begins on Monday (ISO 8601)."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Sliding:
    """The last `window_s` seconds, at every moment; 1 or more."""

    window_s: float


@dataclass(frozen=True, slots=True)
class Calendar:
    """The hour, day, week or month that it is in a zone."""

    period: Period
    zone: str = "UTC"
    """Name in the IANA time zone database."""


class PerRun(StrEnum):
    """Each run by itself."""

    RUN = "run"


Window = Sliding | Calendar | PerRun


@dataclass(frozen=True, slots=True)
class Budget:
    """What each of those it is `of` may use within its window, of runs that its filters match."""

    id: str
    of: BudgetOf
    amounts: tuple[tuple[Resource, int], ...]
    """At least one; each 1 or more, in the resource's unit."""
    window: Window | None = None
    """None: only `AT_ONCE` is stated, which needs none."""
    label: str | None = None
    """With `BudgetOf.LABEL`: which."""
    agents: tuple[str, ...] = ()
    """Globs; empty here and below: not stated. Of an agent's budget: over the one that is charged;
    of others: over the agent or the one that started it."""
    tenants: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    """Each label is there with a value that the glob matches."""
    profiles: tuple[str, ...] = ()
    """Globs over names of profiles, or over paths of their files."""
    warn_at: tuple[int, ...] = ()
    """Percent, 1 to 100, ascending: an event when so much is used, once a window."""
    soft: bool = False
    """It warns and refuses nothing."""
    fixed: bool = False
    """Nobody sets another amount for a time, or begins its windows anew."""


@dataclass(frozen=True, slots=True)
class Account:
    """One counter: of one budget, one of those whom it is of, and one resource."""

    budget: str
    """Names the budget over all layers: its layer, `#`, its id."""
    scope: str
    """`agent:coder`, `session` (of runs that name none), `all`, …"""
    resource: Resource


@dataclass(frozen=True, slots=True)
class Bucket:
    """A part of time that an account's counter adds up (`metering.windows`)."""

    level: int
    """Seconds of a bucket, `CALENDAR` or `HISTORY`."""
    number: int
    """The first second of the epoch that it holds, over its length; of a calendar window: it."""


@dataclass(frozen=True, slots=True)
class Override:
    """What somebody set, for a time, in the place of the amount that is stated."""

    amount: int
    """In the resource's unit; 0 lets nothing."""
    until_s: float
    """Seconds since the epoch: from then on what is stated holds again."""


CALENDAR = 0
"""In the place of a bucket's seconds: a bucket is one calendar window, numbered by its start."""
HISTORY = -1
"""Hours, for forecasts; no window counts them, and a reset leaves them."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A budget that a run is charged to, and on whose counter."""

    layer: str
    budget: Budget
    scope: str

    def account(self, resource: Resource) -> Account:
        """The counter of one of its resources."""
        return Account(f"{self.layer}#{self.budget.id}", self.scope, resource)


@dataclass(frozen=True, slots=True)
class Spent:
    """A budget that has nothing left, or can't be held."""

    layer: str
    budget_id: str
    scope: str
    resource: Resource
    amount: int
    """What is stated."""
    window: Window | None
    used: int | None
    """Used or held within the window, at least; None: it can't be metered, so nothing is let."""
    free_at_s: float | None = None
    """When something of it is free again, in seconds since the epoch, if nobody uses more before
    that; None: with the end of another run, or never."""

    @property
    def account(self) -> Account:
        """Its counter."""
        return Account(f"{self.layer}#{self.budget_id}", self.scope, self.resource)


Stated = tuple[tuple[str, tuple[Budget, ...]], ...]
"""Of each layer that states budgets, its name and those."""
