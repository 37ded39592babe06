"""`/v1/runs`: beginning, looking at, following and cancelling runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from runner.errors import RequestError, RunnerError
from runner.model.identity import Identity, Verb
from runner.model.request import ExecRequest
from runner.recording import new_run_id
from runner.schema.api_answers import RunAccepted, RunAnswer, RunList, RunStatus
from runner.schema.api_bodies import (
    InteractiveBody,
    RunBody,
    check_workspace_given,
    content_of,
)
from runner.schema.outcome_model import OutcomeDocument
from runner.surfaces.http import answering, listing
from runner.surfaces.http.access import needs
from runner.surfaces.http.bodies import described, takes
from runner.surfaces.http.feed import Feed
from runner.surfaces.http.jobs import Job
from runner.surfaces.http.meant import Meant
from runner.surfaces.http.peers import Peer
from runner.surfaces.http.service import Json, Service, service_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.post(
    "",
    response_model=OutcomeDocument,
    responses=answering.BEGUN,
    openapi_extra=described(RunBody),
)
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
    follows = answering.follows(request)
    if "runner-settings" in request.headers:
        await asyncio.to_thread(service.check_folder, identity, body.cwd)

    async def started() -> Job:
        return await _started(service, identity, body, _peer(request), follows=follows)

    return await answering.begun(request, identity, body, idempotency_key, started)


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


async def _started(
    service: Service, identity: Identity, body: RunBody, peer: Peer | None, *, follows: bool
) -> Job:
    run_id = new_run_id()
    loop = asyncio.get_running_loop()

    def prepared() -> Job:
        request, disk_bytes = requested(service, identity, body, run_id)
        if body.wait is not True or follows:
            # Who does not wait is told at once of what can be told.
            _checked(service, request)
        stdin = None if body.stdin is None else content_of(body.stdin)
        how = service.how(body, identity, peer, paced=follows and body.attach is None)
        return Job(
            run_id,
            request,
            stdin,
            Feed(loop, pace=how.pace),
            how=how,
            size_bytes=answering.size_bytes(body, stdin),
            disk_bytes=disk_bytes,
            caller=identity.name,
        )

    return await submitted(service, run_id, prepared)


async def submitted(service: Service, run_id: str, prepared: Callable[[], Job]) -> Job:
    """Take a run that is made in a thread. BusyError, StoppingError; what `prepared` raises."""
    service.jobs.check_room()  # before anything is written for it
    try:
        job = await asyncio.to_thread(prepared)
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


def requested(
    service: Service, identity: Identity, body: RunBody | InteractiveBody, run_id: str
) -> tuple[ExecRequest, int]:
    """The request, decided about by nobody yet; its folder is made and filled, with so much."""
    check_workspace_given(body)
    files = {path: content_of(given) for path, given in body.files.items()}
    directory = service.fresh.make(run_id, files) if body.cwd is None else None
    return service.request(body, identity, directory), sum(map(len, files.values()))


def _checked(service: Service, request: ExecRequest) -> None:
    runner = service.runner
    with runner.refusals_recorded(request.principal, request.profile):
        runner.policy(request, runner.settings.backend.value)
