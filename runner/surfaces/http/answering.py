"""What a request that begins a run is answered: its outcome, its events, or that it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from runner.model.identity import Identity
from runner.schema.api_answers import RunAccepted
from runner.schema.api_bodies import RunBody, SessionRunBody, Words
from runner.surfaces.http import problems
from runner.surfaces.http.feed import Told
from runner.surfaces.http.jobs import Job
from runner.surfaces.http.routes.events import (
    NOTHING,
    STREAM,
    from_log,
    stream_answer,
    told_bytes,
    while_allowed,
)
from runner.surfaces.http.service import Json, gone, service_of


def _links(run_id: str) -> dict[str, Any]:
    """Where a client goes on from a run that began; `run_id`: where an answer has its id."""
    given = {"run_id": f"$response.body#/{run_id}"}
    return {
        f"{method} {path}": {
            "operationRef": f"#/paths/{path.replace('/', '~1')}/{method}",
            "parameters": given | ({"stream": "stdout"} if path.endswith("{stream}") else {}),
        }
        for method, path in (
            ("get", "/v1/runs/{run_id}"),
            ("get", "/v1/runs/{run_id}/events"),
            ("get", "/v1/runs/{run_id}/output/{stream}"),
            ("get", "/v1/runs/{run_id}/changes"),
            ("get", "/v1/runs/{run_id}/diff"),
            ("post", "/v1/runs/{run_id}/apply"),
            ("get", "/v1/audit/proofs/{run_id}"),
            ("delete", "/v1/runs/{run_id}"),
            ("delete", "/v1/runs/{run_id}/changes"),
        )
    }


BEGUN: dict[int | str, dict[str, Any]] = {
    200: {"links": _links("run_id")},
    202: {
        "model": RunAccepted,
        "description": "It has not ended yet; Location says where it is.",
        "links": _links("id"),
    },
}
"""`responses` of a route that begins runs."""

_Body = RunBody | SessionRunBody


def follows(request: Request) -> bool:
    """Whether the caller wants the run's events for an answer."""
    return request.headers.get("accept") == STREAM


async def begun(  # noqa: PLR0917
    request: Request,
    identity: Identity,
    body: _Body,
    idempotency_key: str | None,
    start: Callable[[], Awaitable[Job]],
    where: str = "",
) -> Response:
    """Begin a run, or find the one that the key stands for, and answer as the caller wants to.

    `where`: as `IdempotencyKeys.once` has it.
    """
    service = service_of(request)
    made: list[Job] = []

    async def started() -> str:
        made.append(await start())
        return made[0].id

    if idempotency_key is None:
        await started()
        job = made[0]
    else:
        run_id = await service.idempotency.once(
            identity.name, idempotency_key, body, started, where
        )
        found = service.found(identity, run_id)
        if not isinstance(found, Job) and follows(request):
            told = await asyncio.to_thread(from_log, service, found, 0)
            return stream_answer(told_bytes(told), {"Location": f"/v1/runs/{run_id}"})
        if not isinstance(found, Job):
            return _answer_known(await asyncio.to_thread(service.run_document, found))
        job = found
    if follows(request):
        return _followed(request, identity, job, body, owner=bool(made))
    await _wait(request, job, body)
    return _answer(job)


def size_bytes(body: Words, stdin: bytes | None) -> int:
    """What the program takes while it waits for its turn."""
    texts = [body.shell or "", body.code or "", *(body.argv or ()), *body.args]
    return sum(map(len, texts)) + len(stdin or b"")


def _followed(
    request: Request, identity: Identity, job: Job, body: _Body, *, owner: bool
) -> Response:
    """The run's events, to who began it; `owner`: who began it just now.

    A key that is revoked meanwhile is as a caller that goes away.
    """
    leaving = asyncio.ensure_future(gone(request))

    def left(_: object) -> None:
        if owner:
            job.feed.disown()
        if body.cancel_on_disconnect and not job.done.done():
            job.cancel()

    leaving.add_done_callback(left)

    async def events() -> AsyncIterator[bytes]:
        try:
            async for told in while_allowed(request, identity, job.feed.follow(0, owner=owner)):
                yield NOTHING if told is None else _whole(job, told).encoded()
        finally:
            leaving.cancel()

    return stream_answer(events(), {"Location": f"/v1/runs/{job.id}"})


def _whole(job: Job, told: Told) -> Told:
    """The outcome as who began it gets it: with what was kept of the output."""
    if told.kind != "outcome" or job.outcome is None:
        return told
    return Told(told.id, told.kind, bytes(Json(job.outcome).body))


async def _wait(request: Request, job: Job, body: _Body) -> None:
    """As long as the caller wants to, and is there."""
    if body.wait is False:
        return
    ended = asyncio.wrap_future(job.done)
    leaving = asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait(
            {ended, leaving},
            timeout=None if body.wait is True else body.wait,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if leaving.done() and not ended.done() and body.cancel_on_disconnect:
            job.cancel()
    finally:
        leaving.cancel()
        ended.cancel()


def _answer(job: Job) -> Response:
    place = {"Location": f"/v1/runs/{job.id}"}
    if not job.done.done():
        return Json({"id": job.id, "status": job.status}, 202, place)
    if job.error is not None:
        return problems.answer(job.error)
    return Json(job.outcome, 200, place)


def _answer_known(document: Mapping[str, Any]) -> Response:
    """Of a run that an idempotency key stands for, and that is remembered by the log alone."""
    place = {"Location": f"/v1/runs/{document['id']}"}
    if document["outcome"] is None:
        return Json({"id": document["id"], "status": document["status"]}, 202, place)
    return Json(document["outcome"], 200, place)
