"""Decision points beside the rules, one by one: what each says by itself. Pure.

For tools that tell why something is decided: the combined decision says only what counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.model.action import Exec
from runner.model.decision import Decision, Effect, MatchedRule
from runner.policy.combined import CombinedDecisionPoint, ask
from runner.policy.engine import RulesDecisionPoint
from runner.policy.verdict import RULES_LIMIT
from runner.ports import DecisionPoint

_TRIES = 200
"""Changed commands that other points are asked about; one answer takes some milliseconds."""


@dataclass(frozen=True, slots=True)
class PointTold:
    """What one decision point says about an action."""

    name: str
    decision: Decision

    @property
    def refuses(self) -> bool:
        """Whether it stands in the way."""
        return self.decision.effect is not Effect.ALLOW and self.decision.enforced

    @property
    def against(self) -> tuple[MatchedRule, ...]:
        """Its policies that stand in the way; none: it could not decide, or allows nothing."""
        if not self.refuses:
            return ()
        return tuple(each for each in self.decision.rules if each.effect is not Effect.ALLOW)


def parted(point: DecisionPoint) -> tuple[RulesDecisionPoint | None, tuple[DecisionPoint, ...]]:
    """The point that decides by rules, and those that are asked beside it."""
    points = point.points if isinstance(point, CombinedDecisionPoint) else (point,)
    rules = next((each for each in points if isinstance(each, RulesDecisionPoint)), None)
    return rules, tuple(each for each in points if each is not rules)


def name_of(point: DecisionPoint) -> str:
    """What a point calls itself, for a person."""
    if isinstance(point, RulesDecisionPoint):
        return "rules"
    return str(getattr(point, "name", type(point).__name__))


class Others:
    """Points beside the rules, asked about one action and about changes of it."""

    def __init__(self, points: Sequence[DecisionPoint], action: Exec) -> None:
        self._points = points
        self._tries = _TRIES
        self.told = tuple(PointTold(name_of(each), ask(each, action)) for each in points)
        """What each says about the action as it is."""

    def against(self, shown: str) -> tuple[MatchedRule, ...]:
        """Their policies that stand against the part of the action that is shown so."""
        return tuple(rule for told in self.told for rule in told.against if rule.matched == shown)

    def permit(self, action: Exec, shown: str) -> bool:
        """Whether, once the action is changed to this one, none stands against that part of it.

        False too when it is not known, or too many were asked.
        """
        if not self._points:
            return True
        self._tries -= 1
        if self._tries < 0:
            return False
        for point in self._points:
            told = PointTold(name_of(point), ask(point, action))
            if not told.refuses:
                continue
            against = told.against
            undirected = not against or len(told.decision.rules) >= RULES_LIMIT
            if undirected or any(rule.matched == shown for rule in against):
                return False
        return True
