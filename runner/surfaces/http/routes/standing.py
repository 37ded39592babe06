"""`/v1/profiles` and `/v1/budgets`: what runs may be under, and what is left for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runner.audit.canonical import unescape
from runner.budgeting import Budgets
from runner.errors import ForbiddenError, RequestError
from runner.model.identity import Identity, Verb
from runner.schema.api_answers import BudgetList, ProfileList
from runner.schema.api_bodies import BudgetBody, BudgetSetBody
from runner.schema.outcome import spent_document
from runner.schema.profiles import list_profiles
from runner.surfaces.http.access import check_profile, needs, reaches_all
from runner.surfaces.http.bodies import described, takes
from runner.surfaces.http.service import Json, service_of

router = APIRouter(prefix="/v1", tags=["standing"])


@router.get("/profiles", response_model=ProfileList)
def profiles(request: Request, identity: Annotated[Identity, needs(Verb.READ)]) -> Response:
    """The profiles that the caller's runs may be under."""
    settings = service_of(request).runner.settings
    found = [
        {
            "name": each.name,
            "origin": each.origin.value,
            "description": each.description,
            "error": each.error,
        }
        for each in list_profiles(settings.profile_dirs.value)
        if identity.may_use(each.name)
    ]
    return Json({"profiles": found})


@router.get("/budgets", response_model=BudgetList)
def budgets(
    request: Request,
    identity: Annotated[Identity, needs(Verb.READ)],
    profile: Annotated[str | None, Query(max_length=256)] = None,
) -> Response:
    """Every counter in the caller's reach that something was charged to.

    Of the budgets that the policy and `profile` (else the default one) state. An agent is shown its
    own; counters of sessions, tenants, users and all are shown to who reaches everything.
    """
    if profile is not None:
        check_profile(identity, profile, stated=True)
    standing = service_of(request).runner.budgets.standing(profile)
    return Json(
        {"budgets": [spent_document(each) for each in standing if _is_shown(identity, each.scope)]}
    )


@router.post("/budgets/set", response_model=BudgetList, openapi_extra=described(BudgetSetBody))
async def set_amounts(
    request: Request,
    identity: Annotated[Identity, needs(Verb.BUDGET)],
    body: Annotated[BudgetSetBody, takes(BudgetSetBody)],
) -> Response:
    """Let other amounts of a budget hold for a time, as `runner budget set`; how it stands then.

    A counter of an agent is changed by who reaches the agent in every tenant, any other by who
    reaches everything. Recorded with who calls. Runs that go on take it with their next slice.
    """
    if bool(body.amounts) != (body.lasting is not None):
        raise RequestError("amounts go with lasting, for how long they are to hold; neither clears")
    _check_change(identity, body)
    held = service_of(request).runner.budgets

    def change() -> Response:
        if body.lasting is None:
            held.unset(body.budget, body.reason, **_whose(identity, body))
        else:
            held.set(
                body.budget, body.amounts, body.reason, lasting=body.lasting,
                **_whose(identity, body),
            )  # fmt: skip
        return _standing(held, body)

    return await run_in_threadpool(change)


@router.post("/budgets/reset", response_model=BudgetList, openapi_extra=described(BudgetBody))
async def reset(
    request: Request,
    identity: Annotated[Identity, needs(Verb.BUDGET)],
    body: Annotated[BudgetBody, takes(BudgetBody)],
) -> Response:
    """Begin a budget's windows anew, as `runner budget reset`; what is counted of it then.

    By whom, as for setting amounts. What open runs hold stays held.
    """
    _check_change(identity, body)
    held = service_of(request).runner.budgets

    def change() -> Response:
        held.reset(body.budget, body.reason, **_whose(identity, body))
        return _standing(held, body)

    return await run_in_threadpool(change)


def _check_change(identity: Identity, body: BudgetBody) -> None:
    """ForbiddenError: others are counted there, whom the caller does not reach."""
    if not (reaches_all(identity) if body.scope is None else _is_shown(identity, body.scope)):
        whose = "all counters of a budget" if body.scope is None else f"{body.scope!r}"
        raise ForbiddenError(f"{identity.name} does not reach {whose} in every tenant")
    if body.profile is not None:
        check_profile(identity, body.profile, stated=True)


def _whose(identity: Identity, body: BudgetBody) -> dict[str, str | None]:
    return {"scope": body.scope, "profile": body.profile, "by": identity.name}


def _standing(held: Budgets, body: BudgetBody) -> Response:
    """Of the counters that were meant."""
    found = [
        spent_document(each)
        for each in held.standing(body.profile)
        if each.budget_id == body.budget and body.scope in (None, each.scope)
    ]
    return Json({"budgets": found})


def _is_shown(identity: Identity, scope: str) -> bool:
    kind, _, escaped = scope.partition(":")
    name = unescape(escaped)
    if kind == "agent":
        # A counter of an agent has no tenant: its own agent sees it, and who reaches every tenant.
        return name == identity.agent or ("*" in identity.tenants and identity.reaches(name, None))
    return reaches_all(identity)
