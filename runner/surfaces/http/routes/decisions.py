"""`/v1/decisions`: what the policy says, and nothing run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runner.model.identity import Identity, Verb
from runner.recording import new_run_id
from runner.schema.api_answers import DecisionAnswer
from runner.schema.api_bodies import DecisionBody
from runner.schema.outcome import decision_document
from runner.surfaces.http.access import needs
from runner.surfaces.http.bodies import described, takes
from runner.surfaces.http.meant import Meant
from runner.surfaces.http.service import Json, Service, service_of

router = APIRouter(prefix="/v1/decisions", tags=["decisions"])


@router.post("", response_model=DecisionAnswer, openapi_extra=described(DecisionBody))
async def check(
    request: Request,
    identity: Annotated[Identity, needs(Verb.RUN)],
    _: Annotated[None, Meant],
    body: Annotated[DecisionBody, takes(DecisionBody)],
) -> Response:
    """Decide about a program without running it; recorded as `decision.checked`."""
    if "runner-settings" in request.headers:
        service = service_of(request)
        await run_in_threadpool(service.check_folder, identity, body.cwd)
    return Json(await run_in_threadpool(_decided, service_of(request), identity, body))


def _decided(service: Service, identity: Identity, body: DecisionBody) -> dict[str, object]:
    name = new_run_id()
    try:
        directory = None if body.cwd is not None else service.fresh.make(name, {})
        decision = service.runner.check(service.request(body, identity, directory))
    finally:
        service.fresh.remove(name)
    return {"decision": decision_document(decision)}
