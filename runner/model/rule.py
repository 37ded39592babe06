"""Rules and the layers they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.model.decision import AskTerms, Effect


class CountOf(StrEnum):
    """Whose earlier runs a rule counts."""

    AGENT = "agent"
    PARENT = "parent"
    """The agent that started the one that asks, with all that it started."""
    SESSION = "session"
    TENANT = "tenant"
    UID = "uid"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Frequency:
    """At least `at_least` runs of the principal's began within the last `window_s` seconds.

    Denied ones count too, the one that is decided does not.
    """

    of: CountOf
    window_s: float
    at_least: int


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of the day, local to `zone`."""

    start_minute: int
    """Minutes since midnight, 0 to 1439."""
    end_minute: int
    """Exclusive, 1 to 1440; at or before the start: it ends on the next day."""
    days: tuple[int, ...] = ()
    """Monday is 0; the day that it starts on. Empty: every day."""
    zone: str = "UTC"
    """Name in the IANA time zone database."""


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
    """Each pattern matches some argument; `-r` also matches inside a bundle (`-rf`), and `--a=b`
    the two words `--a b`."""
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
    ordered_args: tuple[str, ...] = ()
    """The patterns match arguments in this order; others may stand between them."""
    exact_args: tuple[str, ...] = ()
    """The patterns match all arguments, one by one; `**` stands for any number of them."""
    reads: tuple[str, ...] = ()
    """Some path that it names, and is not known only to write, matches."""
    constructs: tuple[str, ...] = ()
    """Some construct of the text (`model.intent.Construct`) matches. It is no part of a command, so
    nothing that is stated of commands holds beside it."""
    agents: tuple[str, ...] = ()
    """The agent's or its parent's name matches; for an `allow` both, where there is a parent."""
    sessions: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    """Each label is there with a value that the pattern matches."""
    hours: tuple[Hours, ...] = ()
    """It is decided within one of these."""
    frequency: Frequency | None = None
    when: str | None = None
    """A condition in CEL over the command and the principal; an error is a match, and for an
    `allow` none."""
    any_of: tuple[Match, ...] = ()
    """At least one holds."""
    all_of: tuple[Match, ...] = ()
    """Each holds, by whatever words."""
    none_of: tuple[Match, ...] = ()
    """None holds. What only may hold counts against an `allow`; of other effects it is a doubt."""

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
class Rewrite:
    """The command that is run in place of the one that matched."""

    to: tuple[str, ...]
    """Its words; `{args}` as a word of its own stands for the arguments that are left over."""
    without: tuple[str, ...] = ()
    """Globs: arguments that `{args}` leaves out."""


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
    ask: AskTerms | None = None
    """Of a rule that asks."""
    rewrite: Rewrite | None = None
    """Of a rule that rewrites."""
    observe: bool | None = None
    """True: what it would decide is recorded, and it has no say."""


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
    on_trial: bool | None = None
    """True, for a policy: all that it says is recorded as observed, and it has no say."""
