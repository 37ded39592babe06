"""`/v1/audit`: the log, searched; its newest checkpoint; proofs of runs."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runner.audit.canonical import unescape
from runner.audit.facets import Field
from runner.audit.query import query
from runner.model.event import AuditEvent, EventKind
from runner.model.identity import Identity, Verb
from runner.schema.api_answers import CheckpointAnswer, EventList
from runner.stores import proving
from runner.stores.indexing import caught_up
from runner.stores.searching import search
from runner.surfaces.http.access import needs, reaches_all
from runner.surfaces.http.service import Json, Service, service_of

router = APIRouter(prefix="/v1/audit", tags=["audit"])

MOST = 500
"""Events of a page."""
_LOOKED_AT = 20_000
"""Events that match and are none of the caller's business: so many, and the page is short."""

Texts = Annotated[list[str] | None, Query(max_length=50)]


@router.get("/events", response_model=EventList)
def events(  # noqa: PLR0917  (called by keywords alone)
    request: Request,
    identity: Annotated[Identity, needs(Verb.READ)],
    agent: Texts = None,
    session: Texts = None,
    profile: Texts = None,
    effect: Texts = None,
    rule: Texts = None,
    command: Texts = None,
    host: Texts = None,
    label: Texts = None,
    termination: Texts = None,
    kind: Texts = None,
    run: Annotated[str | None, Query(max_length=128)] = None,
    since: Annotated[str | None, Query(max_length=64)] = None,
    until: Annotated[str | None, Query(max_length=64)] = None,
    newest_first: bool = False,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
    cursor: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> Response:
    """Events of the log in the caller's reach, as `runner audit search` finds them.

    Those that are of nobody, such as checkpoints, are shown to who reaches everything.
    """
    texts = {
        Field.AGENT: [identity.agent] if identity.agent is not None and not agent else agent,
        Field.SESSION: session, Field.PROFILE: profile, Field.EFFECT: effect, Field.RULE: rule,
        Field.PROGRAM: command, Field.HOST: host, Field.LABEL: label,
        Field.TERMINATION: termination, Field.KIND: kind,
    }  # fmt: skip
    asked = query(
        {name: given for name, given in texts.items() if given},
        run_id=run, since=since, until=until, now_s=time.time(),
    )  # fmt: skip
    service = service_of(request)
    home, log = service.home, service.log
    place: dict[str, Any] = {} if cursor is None else (
        {"end": cursor} if newest_first else {"start": cursor}
    )  # fmt: skip
    found: list[dict[str, Any]] = []
    passed, after = 0, None
    with caught_up(home, log, lambda _: None) as index:
        for event in search(log, asked, index, lambda _: None, newest_first=newest_first, **place):
            if len(found) == limit or passed == _LOOKED_AT:
                after = event.seq + 1 if newest_first else event.seq
                break
            if _is_shown(identity, event):
                found.append(_row(event))
            else:
                passed += 1
    return Json({"events": found, "next": None if after is None else str(after)})


@router.get("/checkpoint", response_model=CheckpointAnswer)
def checkpoint(request: Request, identity: Annotated[Identity, needs(Verb.READ)]) -> Response:
    """The newest checkpoint, made now if there are events that none is over. It is no secret."""
    del identity
    store = service_of(request).runner.store
    return Json({"checkpoint": store.checkpoint(), "key": store.key()})


@router.get(
    "/proofs/{run_id}",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}}},
)
def proof(
    request: Request, run_id: str, identity: Annotated[Identity, needs(Verb.READ)]
) -> Response:
    """The proof that a run that has ended is in the log, for `runner audit verify-proof`."""
    service = service_of(request)
    service.found(identity, run_id)
    return Response(_proof(service, run_id), media_type="application/json")


def _proof(service: Service, run_id: str) -> bytes:
    log = service.log
    of_run = proving.run_events(log, run_id)
    note = proving.covering_note(log, of_run[-1].seq)
    if note is None:
        note = service.runner.store.checkpoint()
    return proving.prove_run(log, of_run, note, kept=False)


def _is_shown(identity: Identity, event: AuditEvent) -> bool:
    who = orjson.loads(event.body)["principal"]
    if who is None or event.kind in _OF_ALL:
        return reaches_all(identity)
    tenant = who["tenant"]
    return identity.reaches(unescape(who["agent"]), None if tenant is None else unescape(tenant))


_OF_ALL = frozenset(
    {
        EventKind.APPROVAL_ANSWERED,
        EventKind.BUDGET_SET,
        EventKind.BUDGET_RESET,
        EventKind.GUARD_RESET,
        EventKind.KILL_ORDERED,
        EventKind.KILL_LIFTED,
    }
)
"""Done by somebody, to others."""


def _row(event: AuditEvent) -> dict[str, Any]:
    return {"leaf_hash": event.leaf_hash.hex(), "event": orjson.Fragment(event.body)}
