"""Rules and the layers they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.model.decision import Effect


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions on one simple command; all that are stated must hold. Empty means "not stated".

    Patterns are globs over the whole word (`*`, `?`, `[…]`, `[!…]`); a pattern without `/` in
    `commands` also matches the base name of a command given as a path. In `paths` and `writes` a
    `*` stays within one component, `**` crosses them, and `/x/**` matches `/x` itself too.

    What only running would tell is taken against the request:

    - A `deny`, `ask` or `rewrite` rule matches a command when a dynamic word *could* become what
      the rule states and no literal part of it excludes that: `rm $x` matches `args: [-r*]`,
      `paths: [/]`, for `$x` can become any words; `rm "$x"` does not, for it stays one word and
      can't be both a flag and a path; `rm -rf "$x"` does; `rm -rf "$x/build"` and `rm -rf *.o` do
      not. Where every layer that speaks of dynamic commands says `defer`, such a doubt about a
      program's words is left to the `execve`.
    - With `OnDoubt.PASSES` such a rule matches only what literal words make certain.
    - An `allow` rule never matches on a dynamic word, and is narrower in four ways: its `paths`,
      `writes` and `hosts` must hold for every path or host that the command names; a name given
      as a path is the program of that name only in the system's own folders; and a name without a
      folder is no program's once the request or its text sets `PATH` or a loader's variables.
    - What was found in Python, Perl and the like is advice: there only what is sure matches.
    """

    commands: tuple[str, ...] = ()
    """The command's name is one of these."""
    args: tuple[str, ...] = ()
    """Each pattern matches some argument; `-r` also matches inside a bundle (`-rf`)."""
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


class OnDoubt(StrEnum):
    """What a rule that denies or asks makes of a command that it could match, or could not."""

    MATCHES = "matches"
    """It matches: closed on doubt."""
    PASSES = "passes"
    """It does not: only what is certain matches. For rules that steer, where the sandbox contains
    what they warn of."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When it matches a command, its effect; when several match, the strictest wins."""

    id: str
    effect: Effect
    match: Match
    message: str
    """What an agent should do instead; shown on a refusal."""
    on_doubt: OnDoubt | None = None
    """None: as its layer says. An `allow` rule never matches on doubt."""


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
    on_doubt: OnDoubt = OnDoubt.MATCHES
    """Of its rules that don't say it themselves.

    With `PASSES`, where the default allows, what may run nothing at all (`find $x`:
    `SimpleCommand.doubtful`) is no matter for `on_dynamic` either.
    """
    observe: bool = False
    """Decided and recorded, not enforced; only a profile can say so."""
