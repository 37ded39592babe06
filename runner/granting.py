"""Who may use which profile, and how much of it: grants held against a request. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from runner.compile import is_named
from runner.model.action import Facts
from runner.model.decision import Effect, MatchedRule
from runner.model.grant import CallBudget, Grant
from runner.model.limits import spelled
from runner.model.principal import Principal
from runner.model.profile import Profile
from runner.model.request import ExecRequest
from runner.model.rule import CountOf

Granted = Sequence[tuple[str, Sequence[Grant]]]
"""Of each layer that states grants, its name and those."""

GRANTS_RULE = "grants"
BUDGET_RULE = "grants.budget"
"""What a refusal is recorded under, in the place of a rule's id."""


def not_granted(request: ExecRequest, profile: Profile, granted: Granted) -> list[MatchedRule]:
    """A refusal for each layer and each of agent and parent that no grant covers."""
    refused = []
    for layer, grants in granted:
        for agent, of in charged_agents(request.principal):
            held = [grant for grant in grants if _covers(grant, agent, request)]
            if any(is_named(profile, grant.profiles) for grant in held):
                continue
            usable = sorted({pattern for grant in held for pattern in grant.profiles})
            reason = (
                f"'{layer}' grants the {of.value} '{agent}' no use of the profile "
                f"'{profile.name}'; "
                + (f"use one of: {', '.join(usable)}" if usable else "ask who keeps that policy")
            )
            refused.append(MatchedRule(GRANTS_RULE, layer, Effect.DENY, reason, agent))
    return refused


def used_up(
    request: ExecRequest, profile: Profile, granted: Granted, facts: Facts
) -> list[MatchedRule]:
    """A refusal for each budget that is used up, of each layer, of the agent and of its parent.

    Every budget holds that is stated by a grant which covers the one who is charged and names the
    profile. What was not counted is taken to be used up.
    """
    refused = []
    for layer, grants in granted:
        for agent, of in charged_agents(request.principal):
            budgets = {
                grant.budget: None
                for grant in grants
                if grant.budget is not None
                and _covers(grant, agent, request)
                and is_named(profile, grant.profiles)
            }
            for budget in budgets:
                used = facts.runs.get((of, budget.window_s))
                if used is None or used >= budget.calls:
                    free_at_s = facts.free_at_s.get((of, budget))
                    reason = f"'{layer}' {_told(agent, of, budget, used, free_at_s)}"
                    refused.append(MatchedRule(BUDGET_RULE, layer, Effect.DENY, reason, agent))
    return refused


def budgets(granted: Granted) -> frozenset[CallBudget]:
    """All that are stated."""
    return frozenset(
        grant.budget for _, grants in granted for grant in grants if grant.budget is not None
    )


def counted(granted: Granted) -> frozenset[tuple[CountOf, float]]:
    """Whose earlier runs, within how many seconds, the budgets need counted."""
    whose = (CountOf.AGENT, CountOf.PARENT)
    return frozenset((of, budget.window_s) for budget in budgets(granted) for of in whose)


def charged_agents(who: Principal) -> Iterator[tuple[str, CountOf]]:
    """The agent and the one that started it, each once, and how their runs are counted."""
    yield who.agent, CountOf.AGENT
    if who.parent is not None and who.parent != who.agent:
        yield who.parent, CountOf.PARENT


def _told(
    agent: str, of: CountOf, budget: CallBudget, used: int | None, free_at_s: float | None
) -> str:
    grants = (
        f"grants the {of.value} '{agent}' {budget.calls} runs within "
        f"{spelled('window_s', budget.window_s)}"
    )
    if used is None:
        return f"{grants}, and how many there were was not counted, so it is denied"
    own = "" if of is CountOf.AGENT else ", those of the agents that it started among them"
    free = moment(free_at_s)
    when = f"wait until {free}" if free is not None else "wait until older ones are past that"
    return (
        f"{grants}, and {used} began, denied ones counted{own}; {when}, or ask who keeps that "
        "policy for more"
    )


def moment(at_s: float | None) -> str | None:
    """The first full second after it; a run still counts when it is as old as the window."""
    if at_s is None:
        return None
    try:
        found = datetime.fromtimestamp(math.floor(at_s) + 1, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # a window of thousands of years
    return found.isoformat().replace("+00:00", "Z")


def _covers(grant: Grant, agent: str, request: ExecRequest) -> bool:
    who, labels = request.principal, dict(request.labels)
    return (
        (not grant.agents or matches(agent, grant.agents))
        and (not grant.tenants or (who.tenant is not None and matches(who.tenant, grant.tenants)))
        and (not grant.uids or who.uid in grant.uids)
        and labelled(labels, grant.labels)
    )


def labelled(labels: Mapping[str, str], wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether each label that is wanted is there, with a value that its glob matches."""
    return all(name in labels and fnmatchcase(labels[name], glob) for name, glob in wanted)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the globs matches."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
