"""`/healthz`, `/readyz` and `/metrics`: for who watches the server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from starlette.responses import Response

from runner.model.identity import Identity, Verb
from runner.schema.api_answers import Health
from runner.surfaces.http.access import needs, not_there, reaches_all
from runner.surfaces.http.metrics import CONTENT_TYPE
from runner.surfaces.http.service import Json, service_of

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=Health)
async def healthz() -> Response:
    """Somebody answers. Asks nobody who they are, and tells nothing."""
    return Json({"status": "ok", "why": None})


@router.get("/readyz", response_model=Health, responses={503: {"model": Health}})
def readyz(request: Request, identity: Annotated[Identity, needs(Verb.READ)]) -> Response:
    """Whether runs can begin: the server is not about to end, and the log can be signed."""
    del identity
    service = service_of(request)
    if service.jobs.stopping:
        return Json({"status": "stopping", "why": "it is about to end"}, 503)
    why = service.runner.store.unsigned()
    if why is not None:
        return Json({"status": "unable", "why": why}, 503)
    return Json({"status": "ok", "why": None})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request, identity: Annotated[Identity, needs(Verb.READ)]) -> Response:
    """For Prometheus, to who reaches everything."""
    if not reaches_all(identity):
        raise not_there("such address; /openapi.json lists all")
    return Response(service_of(request).metrics.told(), media_type=CONTENT_TYPE)
