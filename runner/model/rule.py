"""Rules and the layers they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.model.decision import Effect


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions on one simple command; all that are stated must hold. Empty means "not stated".

    Patterns are globs over the whole word (`*`, `?`, `[…]`); a pattern without `/` in `commands`
    also matches the base name of a command given as a path.
    """

    commands: tuple[str, ...] = ()
    """The command's name is one of these."""
    args: tuple[str, ...] = ()
    """Each pattern matches some argument; a single-letter flag matches inside a bundle (`-rf`)."""
    any_args: tuple[str, ...] = ()
    """At least one pattern matches some argument."""
    paths: tuple[str, ...] = ()
    """Some path that the command names, normalised against the workspace, matches."""
    writes: tuple[str, ...] = ()
    """Some path that it is known to write (redirection or known command) matches."""
    hosts: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """Some variable that is set (request or assignment in front) matches."""
    via: tuple[str, ...] = ()
    """It was found behind one of these wrappers."""

    @property
    def empty(self) -> bool:
        """Whether nothing is stated; such a match matches every command."""
        return self == Match()


@dataclass(frozen=True, slots=True)
class Rule:
    """When it matches a command, its effect; when several match, the strictest wins."""

    id: str
    effect: Effect
    match: Match
    message: str
    """What an agent should do instead; shown on a refusal."""


class OnUnknown(StrEnum):
    """What a command gets that can't be judged before it runs."""

    ASK = "ask"
    DENY = "deny"
    DEFER = "defer"
    """Decide at the `execve`; refused at compile time by a backend that can't."""


@dataclass(frozen=True, slots=True)
class PolicyLayer:
    """One source of rules: the organisation's, the user's, the profile's.

    `None` in the last three means that this layer says nothing about it.
    """

    name: str
    """E.g. `organisation:/etc/runner/policy.d/10-base.yaml`, `profile:agent`."""
    rules: tuple[Rule, ...] = ()
    default: Effect | None = None
    """What a command gets that no rule of this layer matches."""
    on_dynamic: OnUnknown | None = None
    """A command whose name is dynamic."""
    on_unreadable: OnUnknown | None = None
    """A text that does not parse; never passed, and `defer` has no meaning here."""
    observe: bool = False
    """Decided and recorded, not enforced; only a profile can say so."""
