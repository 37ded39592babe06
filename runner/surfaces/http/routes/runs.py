"""`/v1/runs`: beginning, looking at, following and cancelling runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from runner.errors import RequestError, RunnerError
from runner.model.identity import Identity, Verb
from runner.model.request import ExecRequest
from runner.recording import new_run_id
from runner.schema.api_answers import RunAccepted, RunAnswer, RunList, RunStatus
from runner.schema.api_bodies import RunBody, check_workspace_given, content_of
from runner.schema.outcome_model import OutcomeDocument
from runner.surfaces.http import listing, problems
from runner.surfaces.http.access import needs
from runner.surfaces.http.bodies import described, takes
from runner.surfaces.http.feed import Feed, Told
from runner.surfaces.http.jobs import Job
from runner.surfaces.http.meant import Meant
from runner.surfaces.http.peers import Peer
from runner.surfaces.http.routes.events import (
    NOTHING,
    STREAM,
    from_log,
    stream_answer,
    told_bytes,
)
from runner.surfaces.http.service import Json, Service, gone, service_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])


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


_BEGUN: dict[int | str, dict[str, Any]] = {
    200: {"links": _links("run_id")},
    202: {
        "model": RunAccepted,
        "description": "It has not ended yet; Location says where it is.",
        "links": _links("id"),
    },
}


@router.post("", response_model=OutcomeDocument, responses=_BEGUN, openapi_extra=described(RunBody))
async def begin(
    request: Request,
    identity: Annotated[Identity, needs(Verb.RUN)],
    _: Annotated[None, Meant],
    body: Annotated[RunBody, takes(RunBody)],
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Run one of `argv`, `shell` text or `code` in a `language`.

    200 with the outcome, of a denial and of a crossed limit too; 202 where it has not ended by the
    time that `wait` gives. With `Accept: text/event-stream` the answer is its events, and the
    outcome is the last of them, with its output: then the program waits where it writes faster
    than that is read. With an Idempotency-Key a request that is sent again gets the same run.
    A caller that goes away while it waits cancels nothing, unless `cancel_on_disconnect` says so.
    """
    service = service_of(request)
    follows = request.headers.get("accept") == STREAM
    if "runner-settings" in request.headers:
        await asyncio.to_thread(service.check_folder, identity, body.cwd)
    begun: list[Job] = []

    async def started() -> Job:
        job = await _started(service, identity, body, _peer(request), follows=follows)
        begun.append(job)
        return job

    if idempotency_key is None:
        job = await started()
    else:
        run_id = await service.keys.once(identity.name, idempotency_key, body, started)
        found = service.found(identity, run_id)
        if not isinstance(found, Job) and follows:
            told = await asyncio.to_thread(from_log, service, found, 0)
            return stream_answer(told_bytes(told), {"Location": f"/v1/runs/{run_id}"})
        if not isinstance(found, Job):
            return _answer_known(await asyncio.to_thread(service.run_document, found))
        job = found
    if follows:
        return _followed(request, job, body, owner=bool(begun))
    await _wait(request, job, body)
    return _answer(job)


@router.get("", response_model=RunList)
def runs(  # noqa: PLR0917  (called by keywords alone)
    request: Request,
    identity: Annotated[Identity, needs(Verb.READ)],
    agent: Annotated[str | None, Query(max_length=256)] = None,
    status: RunStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=listing.MOST)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Runs in the caller's reach, the latest first.

    Runs that wait for their turn stand in no log and are listed by `status=queued` alone.
    """
    found, after = listing.page(
        service_of(request), identity, agent=agent, status=status, most=limit, cursor=cursor
    )
    return Json({"runs": found, "next": after})


@router.get("/{run_id}", response_model=RunAnswer)
def run(request: Request, run_id: str, identity: Annotated[Identity, needs(Verb.READ)]) -> Response:
    """One run as it stands: its usage so far, or its outcome."""
    service = service_of(request)
    return Json(service.run_document(service.found(identity, run_id)))


@router.delete("/{run_id}", status_code=202, response_model=RunAccepted)
def cancel(
    request: Request, run_id: str, identity: Annotated[Identity, needs(Verb.RUN)]
) -> Response:
    """End a run; its outcome is `cancelled` then. Of one that has ended nothing changes."""
    service = service_of(request)
    found = service.found(identity, run_id)
    if isinstance(found, Job):
        found.cancel()
        status = found.status
    elif found.open:
        raise RequestError(
            f"run {run_id!r} is not this server's: whoever started it on the machine can end it"
        )
    else:
        status = RunStatus.ENDED
    return Json({"id": run_id, "status": status}, 202)


@router.get(
    "/{run_id}/output/{stream}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def output(
    request: Request,
    run_id: str,
    stream: str,
    identity: Annotated[Identity, needs(Verb.READ)],
) -> Response:
    """What is kept of `stdout` or `stderr`, to the byte, of a run that goes on as well.

    Secrets are redacted in it, and how much is kept is a setting.
    """
    service = service_of(request)
    service.found(identity, run_id)
    if stream not in ("stdout", "stderr"):
        raise RequestError(f"there are stdout and stderr, not {stream[:20]!r}")
    kept = service.runner.store.kept_output(run_id, stream) or b""
    headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return Response(kept, media_type="application/octet-stream", headers=headers)


def _peer(request: Request) -> Peer | None:
    peer: Peer | None = request.scope.get("state", {}).get("peer")
    return peer


def _followed(request: Request, job: Job, body: RunBody, *, owner: bool) -> Response:
    """The run's events, to who began it; `owner`: who began it just now."""
    leaving = asyncio.ensure_future(gone(request))

    def left(_: object) -> None:
        if owner:
            job.feed.disown()
        if body.cancel_on_disconnect and not job.done.done():
            job.cancel()

    leaving.add_done_callback(left)

    async def events() -> AsyncIterator[bytes]:
        try:
            async for told in job.feed.follow(0, owner=owner):
                yield NOTHING if told is None else _whole(job, told).encoded()
        finally:
            leaving.cancel()

    return stream_answer(events(), {"Location": f"/v1/runs/{job.id}"})


def _whole(job: Job, told: Told) -> Told:
    """The outcome as who began it gets it: with what was kept of the output."""
    if told.kind != "outcome" or job.outcome is None:
        return told
    return Told(told.id, told.kind, bytes(Json(job.outcome).body))


async def _started(
    service: Service, identity: Identity, body: RunBody, peer: Peer | None, *, follows: bool
) -> Job:
    service.jobs.check_room()  # before anything is written for it
    run_id = new_run_id()
    loop = asyncio.get_running_loop()
    try:
        job = await asyncio.to_thread(
            _prepared, service, identity, body, run_id, (loop, peer), follows=follows
        )
    except BaseException:
        service.fresh.remove(run_id)
        raise
    try:
        service.jobs.submit(job)
    except RunnerError:
        job.close()
        await asyncio.to_thread(service.fresh.remove, run_id)
        raise
    return job


def _prepared(
    service: Service,
    identity: Identity,
    body: RunBody,
    run_id: str,
    where: tuple[asyncio.AbstractEventLoop, Peer | None],
    *,
    follows: bool,
) -> Job:
    """The request, decided about by nobody yet; its folder is made and filled."""
    check_workspace_given(body)
    files = {path: content_of(given) for path, given in body.files.items()}
    directory: Path | None = None
    if body.cwd is None:
        directory = service.fresh.make(run_id, files)
    request = service.request(body, identity, directory)
    if body.wait is not True or follows:
        # Who does not wait is told at once of what can be told.
        _checked(service, request)
    stdin = None if body.stdin is None else content_of(body.stdin)
    loop, peer = where
    how = service.how(body, identity, peer, paced=follows and body.attach is None)
    return Job(
        run_id,
        request,
        stdin,
        Feed(loop, pace=how.pace),
        how=how,
        size_bytes=_size(body, stdin),
        disk_bytes=sum(map(len, files.values())),
        caller=identity.name,
    )


def _checked(service: Service, request: ExecRequest) -> None:
    runner = service.runner
    with runner.refusals_recorded(request.principal, request.profile):
        runner.policy(request, runner.settings.backend.value)


def _size(body: RunBody, stdin: bytes | None) -> int:
    texts = [body.shell or "", body.code or "", *(body.argv or ()), *body.args]
    return sum(map(len, texts)) + len(stdin or b"")


async def _wait(request: Request, job: Job, body: RunBody) -> None:
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
