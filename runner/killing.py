"""What the kill switch says: the refusal of a run, and what people are told. Pure."""

from __future__ import annotations

from runner.audit.event import rfc3339
from runner.model.decision import Effect, MatchedRule
from runner.model.kill import Kill, KillScope

KILL_RULE = "kill-switch"
"""What a refusal is recorded under, in the place of a rule's id."""
KILL_LAYER = "operator"


def refusals(kill: Kill | None) -> tuple[MatchedRule, ...]:
    """Why a run may not begin; nothing where no kill is in force for it."""
    if kill is None:
        return ()
    message = (
        f"{kill.by} stopped {whose(kill)} at {rfc3339(kill.since_s)[:19]}Z: {kill.reason}; nothing "
        "of it runs until an operator lifts that"
    )
    return (MatchedRule(KILL_RULE, KILL_LAYER, Effect.DENY, message, kill.name),)


def whose(kill: Kill) -> str:
    """Whom it stops, for people."""
    if kill.scope is KillScope.ALL:
        return "everything"
    return f"the {kill.scope.value} '{kill.name}'"


def told(kill: Kill) -> str:
    """What ended a run, for people: a clause."""
    return f"{kill.by} killed {whose(kill)}: {kill.reason}"
