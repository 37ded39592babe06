"""The OpenAPI document of the API."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from runner.schema.api_bodies import (
    AnswerBody,
    ApplyBody,
    DecisionBody,
    KillBody,
    LiftBody,
    RunBody,
    SessionBody,
    SessionRunBody,
)

_BODIES = (
    RunBody, SessionBody, SessionRunBody, DecisionBody, ApplyBody, AnswerBody, KillBody, LiftBody,
)  # fmt: skip


@cache
def openapi_document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1, with the models of bodies, which FastAPI does not read."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for model in _BODIES:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return document
