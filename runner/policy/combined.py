"""Several decision points as one: all are asked, the strictest answer counts. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import rfc8785

from runner.model.action import Action
from runner.model.decision import STRICTNESS, AskTerms, Decision, Effect
from runner.model.rule import CountOf
from runner.policy.asking import strictest
from runner.policy.verdict import RULES_LIMIT
from runner.ports import DecisionPoint

_REASONS_LIMIT = 3
"""More reasons than that are not read."""


def combine(points: Sequence[DecisionPoint]) -> DecisionPoint:
    """One decision point over all; the point itself when there is one."""
    return points[0] if len(points) == 1 else CombinedDecisionPoint(points)


class CombinedDecisionPoint:
    """Asks every point; implements `runner.ports.DecisionPoint`.

    No point takes back what another refuses: deny beats ask beats rewrite beats allow. What only
    observes counts as an allow.
    """

    def __init__(self, points: Sequence[DecisionPoint]) -> None:
        """`points`: in the order of reports; it means nothing else."""
        self._points = tuple(points)
        digests = [point.digest for point in self._points]
        self._digest = "sha256:" + hashlib.sha256(rfc8785.dumps(digests)).hexdigest()

    @property
    def digest(self) -> str:
        """`sha256:` and hex over the digests of all."""
        return self._digest

    @property
    def points(self) -> tuple[DecisionPoint, ...]:
        """All that are asked."""
        return self._points

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """What any of them needs counted."""
        return frozenset().union(*(point.counted for point in self._points))

    @property
    def follows_links(self) -> bool:
        """Whether links matter to any of them."""
        return any(point.follows_links for point in self._points)

    def decide(self, action: Action) -> Decision:
        """Never raises; a point that does is a deny that says so, and so is no point at all."""
        answers = [ask(point, action) for point in self._points]
        if not answers:
            return Decision(Effect.DENY, "there is no policy that allows it", self._digest)
        return self._combined(answers)

    def _combined(self, answers: Sequence[Decision]) -> Decision:
        enforced = max((_enforced(each) for each in answers), key=STRICTNESS.__getitem__)
        free = enforced is Effect.ALLOW
        effect = enforced
        if free:
            # Nothing stands against it; what only observes is told all the same.
            effect = max((each.effect for each in answers), key=STRICTNESS.__getitem__)
        speaking = [
            each for each in answers if (each.effect if free else _enforced(each)) is effect
        ]
        reason = "; ".join(dict.fromkeys(each.reason for each in speaking[:_REASONS_LIMIT]))
        rewrites = {each.rewrite for each in speaking}
        if effect is Effect.REWRITE and len(rewrites) > 1:
            effect, reason = Effect.DENY, f"policies name different commands to use: {reason}"
        rules = {
            (rule.layer, rule.id, rule.matched): rule for each in answers for rule in each.rules
        }
        ordered = sorted(rules.values(), key=lambda rule: -STRICTNESS[rule.effect])
        asking = [each.ask or AskTerms() for each in speaking]
        return Decision(
            effect=effect,
            reason=reason,
            policy_digest=self._digest,
            rules=tuple(ordered[:RULES_LIMIT]),
            obligations=tuple(sorted({name for each in answers for name in each.obligations})),
            enforced=not (free and effect is not Effect.ALLOW),
            observed=tuple(rule for each in answers for rule in each.observed)[:RULES_LIMIT],
            rewrite=next(iter(rewrites)) if effect is Effect.REWRITE else None,
            ask=strictest(asking) if effect is Effect.ASK else None,
        )


def ask(point: DecisionPoint, action: Action) -> Decision:
    """What one point says; one that raises is a deny that says so."""
    try:
        return point.decide(action)
    except Exception as error:
        told = f"a decision point failed ({type(error).__name__}), so it is denied"
        return Decision(Effect.DENY, f"{told}; report this as a fault of it", point.digest)


def _enforced(decision: Decision) -> Effect:
    return decision.effect if decision.enforced else Effect.ALLOW
