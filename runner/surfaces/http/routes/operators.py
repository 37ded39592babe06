"""`/v1/approvals` and `/v1/kills`: answering what rules ask, and ending what runs away.

No agent has the verbs for either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runner.errors import ForbiddenError
from runner.model.approval import Approval
from runner.model.identity import Identity, Verb
from runner.model.kill import Ended, Kill, KillScope
from runner.schema.api_answers import ApprovalAnswer, ApprovalList, KilledAnswer, KillList
from runner.schema.api_bodies import AnswerBody, KillBody, LiftBody
from runner.surfaces.http.access import check_reach, needs, not_there, reaches_all, reaches_tenant
from runner.surfaces.http.bodies import described, takes
from runner.surfaces.http.service import Json, Service, service_of
from runner.surfaces.standing import approval_document, ended_document, kill_document

router = APIRouter(prefix="/v1", tags=["operators"])


@router.get("/approvals", response_model=ApprovalList)
def approvals(
    request: Request,
    identity: Annotated[Identity, needs(Verb.READ)],
    all_: Annotated[
        bool, Query(alias="all", description="Also answered and expired ones.")
    ] = False,
) -> Response:
    """Questions of agents in the caller's reach that wait for an answer, the oldest first."""
    held = service_of(request).runner.approvals
    found = held.all() if all_ else held.waiting()
    shown = [each for each in found if _reaches(identity, each)]
    return Json({"approvals": [approval_document(each) for each in shown]})


@router.get("/approvals/{approval_id}", response_model=ApprovalAnswer)
def approval(
    request: Request, approval_id: str, identity: Annotated[Identity, needs(Verb.READ)]
) -> Response:
    """All of a question."""
    return Json(approval_document(_found(service_of(request), identity, approval_id)))


@router.post(
    "/approvals/{approval_id}",
    response_model=ApprovalAnswer,
    openapi_extra=described(AnswerBody),
)
async def answer(
    request: Request,
    approval_id: str,
    identity: Annotated[Identity, needs(Verb.APPROVE)],
    body: Annotated[AnswerBody, takes(AnswerBody)],
) -> Response:
    """Say yes, for one run of the very same request, or no. Recorded with the caller's name."""
    service = service_of(request)
    await run_in_threadpool(_found, service, identity, approval_id)
    found = await run_in_threadpool(
        service.runner.approvals.answer,
        approval_id,
        body.reason,
        yes=body.answer == "approve",
        by=(identity.name,),
    )
    return Json(approval_document(found))


@router.get("/kills", response_model=KillList)
def kills(request: Request, identity: Annotated[Identity, needs(Verb.KILL)]) -> Response:
    """What is stopped, the oldest first: all of it to who reaches everything, else its tenants."""
    return Json({"kills": _shown(identity, service_of(request).runner.kills.all())})


@router.post("/kills", response_model=KilledAnswer, openapi_extra=described(KillBody))
async def kill(
    request: Request,
    identity: Annotated[Identity, needs(Verb.KILL)],
    body: Annotated[KillBody, takes(KillBody)],
) -> Response:
    """End runs at once, and keep more from beginning; answered when they have ended.

    A single run has to be in the caller's reach, and of a tenant every agent. An agent or a session
    by its name is the same for all tenants, so that is for who reaches everything.
    """
    service = service_of(request)
    if body.scope is KillScope.RUN:
        await run_in_threadpool(service.found, identity, body.name)
    else:
        _check_stops(identity, body)
    ended = await run_in_threadpool(_kill, service, identity, body)
    return Json({"scope": body.scope, "name": body.name, **ended_document(ended)})


@router.post("/kills/lift", response_model=KillList, openapi_extra=described(LiftBody))
async def lift(
    request: Request,
    identity: Annotated[Identity, needs(Verb.KILL)],
    body: Annotated[LiftBody, takes(LiftBody)],
) -> Response:
    """Let runs begin again; what is still stopped.

    Who does not reach everything lifts what it ordered itself.
    """
    _check_stops(identity, body)
    held = service_of(request).runner.kills
    await run_in_threadpool(
        held.lift,
        body.scope,
        body.name,
        body.reason,
        by=identity.name,
        only_own=not reaches_all(identity),
    )
    left = await run_in_threadpool(held.all)
    return Json({"kills": _shown(identity, left)})


def _kill(service: Service, identity: Identity, body: KillBody) -> Ended:
    held = service.runner.kills
    ordered = held.order(
        body.scope,
        body.name,
        body.reason,
        by=identity.name,
        only_own=not reaches_all(identity),
    )
    return held.await_end(ordered)


def _shown(identity: Identity, kills: Sequence[Kill]) -> list[dict[str, object]]:
    return [kill_document(each) for each in kills if _is_stopped_by(identity, each)]


def _is_stopped_by(identity: Identity, what: Kill | LiftBody) -> bool:
    """Whether stopping this, or letting it go on, is any business of the caller."""
    of_tenant = what.scope is KillScope.TENANT and reaches_tenant(identity, what.name)
    return of_tenant or reaches_all(identity)


def _found(service: Service, identity: Identity, approval_id: str) -> Approval:
    """NotFoundError: there is none by this id in the caller's reach."""
    what = f"question {approval_id!r}"
    found = service.runner.store.approval(approval_id)
    if found is None:
        raise not_there(what)
    check_reach(identity, what, found.principal.agent, found.principal.tenant)
    return found


def _reaches(identity: Identity, approval: Approval) -> bool:
    return identity.reaches(approval.principal.agent, approval.principal.tenant)


def _check_stops(identity: Identity, body: LiftBody) -> None:
    """ForbiddenError: it would stop others, or let them go on, whom it does not reach."""
    if _is_stopped_by(identity, body):
        return
    whom = f"of the tenant {body.name!r}" if body.scope is KillScope.TENANT else "of every tenant"
    raise ForbiddenError(f"{identity.name} does not reach every agent {whom}")
