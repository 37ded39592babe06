"""The decision point's answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What a decision says. `STRICTNESS` orders them: deny beats ask beats rewrite beats allow."""

    ALLOW = "allow"
    REWRITE = "rewrite"
    ASK = "ask"
    DENY = "deny"


STRICTNESS: dict[Effect, int] = {effect: rank for rank, effect in enumerate(Effect)}


@dataclass(frozen=True, slots=True)
class MatchedRule:
    """One rule that matched, and what it matched."""

    id: str
    layer: str
    """Name of the policy layer it stands in, e.g. `profile:agent`."""
    effect: Effect
    message: str
    matched: str = ""
    """The command or path that it matched, as read."""


@dataclass(frozen=True, slots=True)
class AskTerms:
    """Who may answer a rule that asks, and for how long the question stands."""

    approvers: tuple[tuple[str, ...], ...] = ()
    """Groups of globs over identities: of each group one must match, so that who answers satisfies
    every rule that asks. A rule has one group at most; empty: anyone who may approve at all."""
    expires_s: float = 900.0
    """A question that nobody answered by then is a denial."""


@dataclass(frozen=True, slots=True)
class Approved:
    """Somebody's yes to what a rule asked."""

    id: str
    """Of the question."""
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Effect, why, and under which policy; an unknown obligation is refused by who enforces."""

    effect: Effect
    reason: str
    """One sentence for a person and an agent: what was found, and what to do instead."""
    policy_digest: str
    """`sha256:` and hex, over all layers that were asked."""
    rules: tuple[MatchedRule, ...] = ()
    """Strictest first."""
    obligations: tuple[str, ...] = ()
    enforced: bool = True
    """False in `observe` mode: decided and recorded, not enforced."""
    rewrite: tuple[str, ...] | None = None
    """With the effect `rewrite`: the words of the command to run in its place. None: the text holds
    more than that one command, and nothing is run."""
    ask: AskTerms | None = None
    """With the effect `ask`: who may answer, and until when; the strictest terms of all rules."""
    approved: Approved | None = None
    """With the effect `ask`: who said yes, for this run."""
    observed: tuple[MatchedRule, ...] = ()
    """What rules would have refused, asked about or rewritten that are only observed; strictest
    first. They had no say."""

    @property
    def permits(self) -> bool:
        """Whether the run may start; `ask` does where somebody said yes."""
        if self.effect is Effect.ASK and self.approved is not None:
            return True
        return self.effect is Effect.ALLOW or not self.enforced
