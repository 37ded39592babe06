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

    @property
    def permits(self) -> bool:
        """Whether the run may start; `ask` with nobody to ask does not."""
        return self.effect is Effect.ALLOW or not self.enforced
