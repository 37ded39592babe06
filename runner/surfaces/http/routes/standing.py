"""`/v1/profiles` and `/v1/budgets`: what runs may be under, and what is left for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runner.audit.canonical import unescape
from runner.model.identity import Identity, Verb
from runner.schema.api_answers import BudgetList, ProfileList
from runner.schema.outcome import spent_document
from runner.schema.profiles import list_profiles
from runner.surfaces.http.access import check_profile, needs, reaches_all
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


def _is_shown(identity: Identity, scope: str) -> bool:
    kind, _, escaped = scope.partition(":")
    name = unescape(escaped)
    if kind == "agent":
        # A counter of an agent has no tenant: its own agent sees it, and who reaches every tenant.
        return name == identity.agent or ("*" in identity.tenants and identity.reaches(name, None))
    return reaches_all(identity)
