"""What is decided: a program about to run, a connection, an HTTP request, a tool call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.model.budget import Spent
from runner.model.grant import CallBudget
from runner.model.intent import Intent
from runner.model.kill import Kill
from runner.model.loop_guard import Paused
from runner.model.principal import Principal
from runner.model.rule import CountOf


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision may depend on beside the action itself, looked up before it is decided."""

    now_s: float | None = None
    """Seconds since the epoch, UTC; None: not known, and what depends on it can't be evaluated."""
    runs: Mapping[tuple[CountOf, float], int] = field(default_factory=dict)
    """Earlier runs of the principal's, by whose and within how many seconds, as far as the decision
    point (`ports.DecisionPoint.counted`) and the budgets of grants ask for."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links in the workspace that paths of the intent go through, each with what it holds
    (readlink(2)); as absolute paths, or relative to the workspace."""
    free_at_s: Mapping[tuple[CountOf, CallBudget], float] = field(default_factory=dict)
    """Of budgets that are used up: when they are not any more, in seconds since the epoch, if
    nothing is tried before that; as far as it is known."""
    spent: tuple[Spent, ...] = ()
    """Budgets that the run would be charged to and that have nothing left, or can't be metered."""
    paused: Paused | None = None
    """The pause that what is asked has to make; None: none, or it is not asked about."""
    killed: Kill | None = None
    """What keeps the principal from beginning runs; None: nothing."""


@dataclass(frozen=True, slots=True)
class Exec:
    """A program about to run, with what reading it told."""

    principal: Principal
    intent: Intent
    workspace: str | None = None
    """Absolute path of the workspace as the program sees it; relative paths start there."""
    environment: tuple[str, ...] = ()
    """Names of the variables that the request asks to set."""
    labels: tuple[tuple[str, str], ...] = ()
    profile: str = ""
    """Name of the profile that it would run under."""
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True)
class Connect:
    """A connection about to open."""

    principal: Principal
    host: str
    port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request about to leave."""

    principal: Principal
    method: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of another server about to be called."""

    principal: Principal
    server: str
    name: str
    arguments: Mapping[str, object]


Action = Exec | Connect | Request | Tool
