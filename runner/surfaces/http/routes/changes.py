"""`/v1/runs/{id}/changes`: what a run changed, looked at, applied, thrown away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runner.model.identity import Identity, Verb
from runner.schema.api_answers import AppliedAnswer, ChangesAnswer, DiffAnswer, DiscardedAnswer
from runner.schema.api_bodies import ApplyBody
from runner.surfaces.changed import applied_document, changes_document, diff_row
from runner.surfaces.http.access import needs
from runner.surfaces.http.bodies import described, takes
from runner.surfaces.http.service import Json, service_of

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["changes"])

Paths = Annotated[list[str] | None, Query(max_length=1000, description="Only these; none: all.")]


@router.get("/changes", response_model=ChangesAnswer)
def changes(
    request: Request, run_id: str, identity: Annotated[Identity, needs(Verb.READ)]
) -> Response:
    """What a run changed in its workspace, and what is left of it to apply."""
    service = service_of(request)
    service.found(identity, run_id)
    return Json(changes_document(service.runner.changes(run_id)))


@router.get("/diff", response_model=DiffAnswer)
def diff(
    request: Request,
    run_id: str,
    identity: Annotated[Identity, needs(Verb.READ)],
    path: Paths = None,
) -> Response:
    """What is left of a run's changes as unified diffs against the originals."""
    service = service_of(request)
    service.found(identity, run_id)
    found = service.runner.diff(run_id, path or ())
    return Json({"run_id": run_id, "files": [diff_row(each) for each in found]})


@router.post("/apply", response_model=AppliedAnswer, openapi_extra=described(ApplyBody))
async def apply(
    request: Request,
    run_id: str,
    identity: Annotated[Identity, needs(Verb.APPLY)],
    body: Annotated[ApplyBody, takes(ApplyBody)],
) -> Response:
    """Write what a run changed into its workspace folder, path by path as the policy permits."""
    service = service_of(request)
    await run_in_threadpool(service.found, identity, run_id)
    found = await run_in_threadpool(
        service.runner.apply,
        run_id,
        body.paths,
        dry_run=body.dry_run,
        agent=identity.agent or identity.name,
    )
    return Json(applied_document(found))


@router.delete("/changes", response_model=DiscardedAnswer)
def discard(
    request: Request, run_id: str, identity: Annotated[Identity, needs(Verb.APPLY)]
) -> Response:
    """Throw away what is kept of a run's changes."""
    service = service_of(request)
    service.found(identity, run_id)
    was_kept = service.runner.discard(run_id, agent=identity.agent or identity.name)
    return Json({"run_id": run_id, "discarded": was_kept})
