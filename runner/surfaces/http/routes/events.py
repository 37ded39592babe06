"""`/v1/runs/{id}/events`: one run as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from runner.errors import RequestError
from runner.model.identity import Identity, Verb
from runner.stores.listing import ListedRun
from runner.surfaces.http import history
from runner.surfaces.http.access import is_still, needs
from runner.surfaces.http.feed import LAST, Feed, Told
from runner.surfaces.http.jobs import Job, without_output
from runner.surfaces.http.service import Service, service_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])

_AGAIN_S = 1.0
"""So often it is asked whether a reader is let read still; nothing is told that is later."""
STREAM = "text/event-stream"
NOTHING = b": nothing new\n\n"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    # OpenAPI 3.1 has no words for what a stream is made of: docs/api.md has.
    200: {"content": {STREAM: {}}},
    204: {"description": "Last-Event-ID was that of the last event: there is nothing more."},
}


@router.get("/{run_id}/events", response_class=Response, responses=_ANSWERS)
async def events(
    request: Request,
    run_id: str,
    identity: Annotated[Identity, needs(Verb.READ)],
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> Response:
    """What happens in a run: `decision`, `output`, `usage`, and at the end `outcome` or `error`.

    Each has an id; a reader that comes back with Last-Event-ID gets what is behind it. What went
    because the reader was too slow, or was not there, is told as `dropped`, and what was kept of
    the output is at `/output/stdout` and `/output/stderr`. Who is let read no more, because a key
    was revoked or a token has ended, is told nothing more.
    """
    service = service_of(request)
    found = await run_in_threadpool(service.found, identity, run_id)
    after = _number(last_event_id)
    if after is None:
        return Response(status_code=204)
    if isinstance(found, Job):
        stream = _followed(request, identity, found.feed, after)
    else:
        told = await run_in_threadpool(from_log, service, found, after)
        stream = told_bytes(told)
    return stream_answer(stream)


def stream_answer(
    stream: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """An answer of events."""
    own = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})}
    return StreamingResponse(stream, media_type=STREAM, headers=own)


def _number(last_event_id: str | None) -> int | None:
    """What a reader has; None: all. RequestError: no event has such an id."""
    if not last_event_id:
        return 0
    if last_event_id == LAST:
        return None
    if not last_event_id.isascii() or not last_event_id.isdigit():
        raise RequestError(f"Last-Event-ID {last_event_id!r} is the id of no event")
    return int(last_event_id)


async def _followed(
    request: Request, identity: Identity, feed: Feed, after: int
) -> AsyncIterator[bytes]:
    async for told in while_allowed(request, identity, feed.follow(after)):
        yield NOTHING if told is None else told.encoded()


async def while_allowed(
    request: Request, identity: Identity, events: AsyncIterator[Told | None]
) -> AsyncIterator[Told | None]:
    """What is told, as long as the caller would be let do this still."""
    asked_s = time.monotonic()
    async for told in events:
        if time.monotonic() - asked_s >= _AGAIN_S:
            if not await is_still(request, identity):
                return
            asked_s = time.monotonic()
        yield told


async def told_bytes(events: list[Told]) -> AsyncIterator[bytes]:
    """Events that are there already."""
    for each in events:
        yield each.encoded()


def from_log(service: Service, run: ListedRun, after: int) -> list[Told]:
    """Of a run that no server remembers: its decision, and its outcome if it has ended."""
    store = service.runner.store
    found = []
    decision = history.decision_told(store, run.run_id)
    if after < 1 and decision is not None:
        data = {"run_id": run.run_id, "decision": decision}
        found.append(Told("1", "decision", orjson.dumps(data)))
    outcome = service.run_document(run)["outcome"]
    if outcome is not None:
        if outcome["stdout_bytes"] or outcome["stderr_bytes"]:
            found.append(
                Told(str(max(after, 1)), "dropped", orjson.dumps({"from": None, "to": None}))
            )
        found.append(Told(LAST, "outcome", orjson.dumps(without_output(outcome))))
    return found
