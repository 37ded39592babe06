"""`/openapi.json`: the API's description of itself."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from runner.model.identity import Identity, Verb
from runner.surfaces.http.access import needs
from runner.surfaces.http.openapi import openapi_document
from runner.surfaces.http.service import Json

router = APIRouter(tags=["description"])


@router.get("/openapi.json", response_model=dict[str, Any])
def openapi(request: Request, identity: Annotated[Identity, needs(Verb.READ)]) -> Response:
    """This document."""
    del identity
    return Json(openapi_document(request.app))
