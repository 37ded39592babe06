"""The kill switch: what an operator ended, and who may begin no more until it is lifted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.model.principal import Principal


class KillScope(StrEnum):
    """What a kill ends; closed list."""

    RUN = "run"
    """One run; over when that has ended."""
    AGENT = "agent"
    """All runs of an agent and of those that it started."""
    SESSION = "session"
    TENANT = "tenant"
    ALL = "all"
    """Every run of the state folder."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One that was ordered. But for `RUN` it holds, and refuses runs, until it is lifted."""

    scope: KillScope
    name: str
    """Which run, agent, session or tenant; empty with `ALL`."""
    by: str
    """Who ordered it, e.g. `uid:1000`."""
    reason: str
    since_s: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has not ended, as the ledger has it."""

    run_id: str
    principal: Principal
    profile: str
    backend: str
    opened: str
    """RFC 3339, UTC."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a kill came to."""

    runs: tuple[OpenRun, ...]
    """Those that were open when it was ordered."""
    forced: tuple[str, ...] = ()
    """Ids of those whose sandbox was ended past their supervisor, which did not answer."""
    unrecorded: tuple[str, ...] = ()
    """Ids of those whose end is not recorded yet: it will be when their supervisor goes on, or by
    recovery when it is dead."""
    alive: tuple[str, ...] = ()
    """Ids of those that could not be ended, each with why."""
