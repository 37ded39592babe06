"""The OpenAPI document of the API."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from runner.schema.api_bodies import (
    AnswerBody,
    ApplyBody,
    BudgetBody,
    BudgetSetBody,
    DecisionBody,
    KillBody,
    LiftBody,
    RunBody,
    SessionBody,
    SessionRunBody,
)
from runner.surfaces.http.access import Needs

_BODIES = (
    RunBody, SessionBody, SessionRunBody, DecisionBody, ApplyBody, AnswerBody, KillBody, LiftBody,
    BudgetBody, BudgetSetBody,
)  # fmt: skip

EXAMPLES: dict[str, dict[str, Any]] = {
    "RunBody": {"shell": "python3 main.py | tee out", "files": {"main.py": "print(6 * 7)"},
                "agent": "coder", "limits": {"wall": "30s"}},
    "SessionBody": {"agent": "coder", "files": {"n": "7"}, "lifetime": "10m"},
    "SessionRunBody": {"argv": ["cat", "n"], "limits": {"wall": "5s"}},
    "DecisionBody": {"argv": ["sudo", "ls"], "agent": "coder"},
    "ApplyBody": {"paths": ["out"], "dry_run": True},
    "AnswerBody": {"answer": "approve", "reason": "the branch is mine"},
    "KillBody": {"scope": "agent", "name": "coder", "reason": "it deletes what it should mend"},
    "BudgetBody": {"budget": "hourly", "scope": "agent:coder", "reason": "a new day"},
    "BudgetSetBody": {"budget": "hourly", "scope": "agent:coder", "amounts": {"calls": "50"},
                      "lasting": "2h", "reason": "the release is tonight"},
    "LiftBody": {"scope": "agent", "name": "coder", "reason": "its prompt is mended"},
}  # fmt: skip
"""Of each body one that the model takes, for who reads the document."""

PARAMETERS = {
    "run_id": "Of a run; a session's id is one too.",
    "session_id": "Of a session that goes on.",
    "approval_id": "Of a question.",
    "stream": "`stdout` or `stderr`.",
    "number": "Of a process, as the list of processes has it.",
    "idempotency-key": "Any text; the same caller, key and request get the same run, for a day.",
    "runner-server": "The server process that it is meant for, by the id in this header of its "
    "answers; 412 from any other.",
    "runner-settings": "A digest of where the caller has its settings from; 412 where the server's "
    "are others. Commands of the server's own user send it.",
    "last-event-id": "The id of the last event that the reader has; it gets what is behind it.",
    "agent": "Only of this agent.",
    "session": "Only what budgets count under this name.",
    "status": "Only those that are so far.",
    "limit": "So many on a page at most.",
    "cursor": "`next` of the page before; with the same other parameters.",
    "offset": "From this byte on.",
    "length": "So many bytes at most; null: to the end.",
    "executable": "Whether its owner may execute it.",
    "profile": "By its name.",
    "effect": "Only decisions with this effect.",
    "rule": "Only where this rule matched.",
    "command": "Only where this program was to run.",
    "host": "Only where this host was named or reached.",
    "label": "Only runs with this label, KEY=VALUE.",
    "termination": "Only runs that ended so.",
    "kind": "Only events of this kind.",
    "run": "Only events of this run.",
    "since": "From this time on: RFC 3339, or a time ago like 2h.",
    "until": "Up to this time, likewise.",
    "newest_first": "Whether the latest come first.",
}
"""What a parameter is that says nothing of itself: the same name is the same everywhere."""


@cache
def openapi_document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1, with the models of bodies, which FastAPI does not read.

    `x-runner-verb` of an operation is the verb that its caller needs; there is none where anybody
    may call.
    """
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for model in _BODIES:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema | {"examples": [EXAMPLES[model.__name__]]}
    for operations in document["paths"].values():
        for operation in operations.values():
            for each in operation.get("parameters", ()):
                if each["name"] in PARAMETERS:
                    each.setdefault("description", PARAMETERS[each["name"]])
    for route in _routes(app.router):
        for verb in (each.call.verb for each in route.dependant.dependencies
                     if isinstance(each.call, Needs)):  # fmt: skip
            for method in route.methods or ():
                document["paths"][route.path][method.lower()]["x-runner-verb"] = verb.value
    return document


def _routes(router: Any) -> Iterator[APIRoute]:
    """Those of routers in it too."""
    for route in router.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            yield from _routes(inner)
        elif isinstance(route, APIRoute):
            yield route
