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
from runner.stores.listing import listed_run
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

    Those that are of nobody, such as checkpoints, or of operators, such as keys that were made, are
    shown to who reaches everything.
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
    shown = _Shown(service, identity)
    with caught_up(home, log, lambda _: None) as index:
        for event in search(log, asked, index, lambda _: None, newest_first=newest_first, **place):
            if len(found) == limit or passed == _LOOKED_AT:
                after = event.seq + 1 if newest_first else event.seq
                break
            if shown.is_shown(event):
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


class _Shown:
    """Tells which events are a caller's business, within one request.

    What is not known to be somebody's is shown to who reaches everything: a new kind as well.
    """

    def __init__(self, service: Service, identity: Identity) -> None:
        self._log = service.log
        self._identity = identity
        self._all = reaches_all(identity)
        self._of_runs: dict[str, bool] = {}

    def is_shown(self, event: AuditEvent) -> bool:
        """Whether it is of somebody in reach."""
        if self._all:
            return True
        if event.kind in _OF_ITS_RUN and event.run_id is not None:
            return self._of_run(event.run_id)
        who = orjson.loads(event.body)["principal"]
        if who is None or event.kind not in _OF_WHO_ASKS:
            return False
        tenant = who["tenant"]
        return self._identity.reaches(
            unescape(who["agent"]), None if tenant is None else unescape(tenant)
        )

    def _of_run(self, run_id: str) -> bool:
        if run_id not in self._of_runs:
            run = listed_run(self._log, run_id)
            shown = run is not None and self._identity.reaches(run.agent, run.tenant)
            self._of_runs[run_id] = shown
        return self._of_runs[run_id]


_OF_WHO_ASKS = frozenset(
    {
        EventKind.RUN_DECIDED,
        EventKind.RUN_STARTED,
        EventKind.RUN_ENDED,
        EventKind.RUN_RECOVERED,
        EventKind.DECISION_CHECKED,
        EventKind.REQUEST_REFUSED,
        EventKind.BUDGET_WARNED,
        EventKind.GUARD_PAUSED,
        EventKind.APPROVAL_ASKED,
    }
)
"""Their principal is whose they are."""
_OF_ITS_RUN = frozenset(
    {EventKind.CHANGES_APPLYING, EventKind.CHANGES_APPLIED, EventKind.CHANGES_DISCARDED}
)
"""Their principal is who did it to a run, of whatever tenant that is."""


def _row(event: AuditEvent) -> dict[str, Any]:
    return {"leaf_hash": event.leaf_hash.hex(), "event": orjson.Fragment(event.body)}
