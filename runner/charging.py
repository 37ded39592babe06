"""Which budgets a run is charged to, on whose counters, and how one is told of. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from runner.audit.canonical import escape
from runner.compile import is_named
from runner.granting import charged_agents, labelled, matches, moment
from runner.metering import windows
from runner.model.budget import Budget, BudgetOf, Charge, PerRun, Resource, Spent, Stated
from runner.model.decision import Effect, MatchedRule
from runner.model.limits import spelled
from runner.model.profile import Profile
from runner.model.request import ExecRequest, Hold

BUDGET_RULE = "budget"
"""What a refusal is recorded under, in the place of a rule's id."""


def charges(stated: Stated, request: ExecRequest, profile: Profile) -> tuple[Charge, ...]:
    """Every budget of every layer whose filters match the run, on each counter that it goes to."""
    return tuple(
        Charge(layer, budget, scope)
        for layer, budgets in stated
        for each in budgets
        if _concerns(each, request, profile)
        and (budget := _without(each, _not_charged(request))).amounts
        for scope in _scopes(budget, request, profile)
    )


def _not_charged(request: ExecRequest) -> frozenset[Resource]:
    """What a session and its commands would be charged with twice.

    A session's wall time is that of its commands; of runs at once it is one, whatever goes on.
    """
    if isinstance(request.program, Hold):
        return frozenset({Resource.WALL})
    return frozenset() if request.within is None else frozenset({Resource.AT_ONCE})


def _without(budget: Budget, resources: frozenset[Resource]) -> Budget:
    if not resources:
        return budget
    return replace(budget, amounts=tuple(a for a in budget.amounts if a[0] not in resources))


def _concerns(budget: Budget, request: ExecRequest, profile: Profile) -> bool:
    """All filters but that on agents."""
    who = request.principal
    return (
        (not budget.tenants or (who.tenant is not None and matches(who.tenant, budget.tenants)))
        and (not budget.uids or who.uid in budget.uids)
        and labelled(dict(request.labels), budget.labels)
        and (not budget.profiles or is_named(profile, budget.profiles))
    )


def _scopes(budget: Budget, request: ExecRequest, profile: Profile) -> Iterator[str]:
    who = request.principal
    agents = [
        agent
        for agent, _ in charged_agents(who)
        if not budget.agents or matches(agent, budget.agents)
    ]
    if not agents:
        return
    match budget.of:
        case BudgetOf.AGENT:
            yield from (_named("agent", agent) for agent in agents)
        case BudgetOf.SESSION:
            yield _named("session", who.session)
        case BudgetOf.TENANT:
            yield _named("tenant", who.tenant)
        case BudgetOf.UID:
            yield _named("uid", str(who.uid))
        case BudgetOf.PROFILE:
            yield _named("profile", profile.identity)
        case BudgetOf.LABEL:
            yield _named("label", dict(request.labels).get(budget.label or ""))
        case BudgetOf.ALL:
            yield "all"


def _named(what: str, name: str | None) -> str:
    """Those that name none share one counter: leaving a name out is no way round."""
    return what if name is None else f"{what}:{escape(name)}"


def refusals(spent: tuple[Spent, ...]) -> list[MatchedRule]:
    """As the decision has them."""
    return [
        MatchedRule(
            BUDGET_RULE, each.layer, Effect.DENY, told(each), f"{each.budget_id} of {each.scope}"
        )
        for each in spent
    ]


def told(spent: Spent) -> str:
    """Which budget has nothing left, when it has again, and what to do."""
    name = f"the budget '{spent.budget_id}' of '{spent.layer}'"
    if spent.used is None:
        return (
            f"{name} bounds {spent.resource.value}, which can't be metered in this run, so it is "
            "denied; use a profile that it does not concern, or ask who keeps that policy"
        )
    of = f"{amount(spent.resource, spent.amount)} of {spent.scope}"
    freed = _at(spent.free_at_s)
    when = f"wait until {freed}" if freed is not None else "wait until a run that is open ends"
    if spent.resource is Resource.AT_ONCE:
        return f"{name} lets {of} be open, and so many are; {when}"
    if freed is None and spent.window is PerRun.RUN:
        when = "do it in smaller parts"
    return f"{name} is used up: {of}; {when}, or ask who keeps that policy for more"


def free_at(spent: Spent) -> str | None:
    """When something of it is free again, RFC 3339; None: with the end of a run, or never."""
    return _at(spent.free_at_s)


def _at(free_at_s: float | None) -> str | None:
    """The first full second at which it is free."""
    return None if free_at_s is None else moment(math.ceil(free_at_s) - 1)


def amount(resource: Resource, of_it: int) -> str:
    """An amount for people: `20 calls`, `90s wall`, `$12.50`."""
    match resource:
        case Resource.WALL | Resource.CPU:
            return f"{spelled('budget_s', of_it / 1e6)} {resource.value}"
        case Resource.BYTES:
            return f"{spelled('budget_bytes', of_it)} bytes"
        case Resource.MONEY:
            dollars, rest = divmod(of_it, 1_000_000)
            cents = f"{rest:06d}".rstrip("0").ljust(2, "0")
            return f"${dollars}.{cents}"
        case Resource.AT_ONCE:
            return f"{of_it} runs at once"
        case _:
            return f"{of_it} {resource.value}"


def data(spent: Spent) -> dict[str, Any]:
    """As the log and outcomes have it."""
    return {
        "id": spent.budget_id,
        "layer": spent.layer,
        "scope": spent.scope,
        "resource": spent.resource.value,
        "amount": spent.amount,
        "used": spent.used,
        "free_at": _at(spent.free_at_s),
    }


def stated_data(stated: Stated) -> list[Any]:
    """For a digest."""
    return [
        [
            layer,
            [
                {
                    **asdict(budget),
                    "of": budget.of.value,
                    "window": windows.encoded(budget.window),
                    "amounts": [[resource.value, of_it] for resource, of_it in budget.amounts],
                }
                for budget in budgets
            ],
        ]
        for layer, budgets in stated
    ]
