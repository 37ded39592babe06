"""`/v1/sessions`: sandboxes that stay; begun, looked at, and ended, with commands in them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from runner.errors import ForbiddenError, RunnerError, StoppingError, UnreachableError
from runner.intake import build_request
from runner.model.identity import Identity, Verb
from runner.model.outcome import Outcome, Termination
from runner.model.principal import Principal
from runner.pacing import Pace
from runner.recording import new_run_id
from runner.schema.api_answers import ProcessList, SessionAnswer, SessionList
from runner.schema.api_bodies import (
    SessionBody,
    SessionInteractiveBody,
    SessionRunBody,
    check_workspace_given,
    content_of,
)
from runner.schema.outcome import outcome_document
from runner.schema.outcome_model import OutcomeDocument
from runner.sessions.client import Session
from runner.sessions.starting import PREFIX
from runner.surfaces.http import answering, listing
from runner.surfaces.http.access import (
    acting_agent,
    check_profile,
    needs,
    not_there,
    own_principal,
)
from runner.surfaces.http.bodies import described, takes
from runner.surfaces.http.feed import Feed
from runner.surfaces.http.input import Input
from runner.surfaces.http.jobs import How, Job
from runner.surfaces.http.meant import Meant
from runner.surfaces.http.service import Json, Service, service_of
from runner.surfaces.http.session_folders import KEPT
from runner.surfaces.http.sessions import process_document, session_document, there

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@router.post(
    "", status_code=201, response_model=SessionAnswer, openapi_extra=described(SessionBody)
)
async def begin(
    request: Request,
    identity: Annotated[Identity, needs(Verb.RUN)],
    _: Annotated[None, Meant],
    body: Annotated[SessionBody, takes(SessionBody)],
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Begin a session: an empty sandbox with the workspace in it, for commands that come later.

    It goes on without this server, until it is stopped, its lifetime is over, or no command has run
    for as long as `idle` says. With an Idempotency-Key a request that is sent again gets the same.
    """
    service = service_of(request)

    async def started() -> str:
        session = await service.sessions.call(_begun, service, identity, body)
        return session.id

    if idempotency_key is None:
        session_id = await started()
    else:
        session_id = await service.idempotency.once(
            identity.name, idempotency_key, body, started, "a session"
        )
    document = await service.sessions.call(_document, service, identity, session_id)
    return Json(document, 201, {"Location": f"/v1/sessions/{session_id}"})


@router.get("", response_model=SessionList)
async def sessions(
    request: Request,
    identity: Annotated[Identity, needs(Verb.READ)],
    agent: Annotated[str | None, Query(max_length=256)] = None,
    limit: Annotated[int, Query(ge=1, le=listing.MOST)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Sessions that go on, in the caller's reach, the latest first; whoever began them."""
    service = service_of(request)
    found, after = await service.sessions.call(
        _page, service, identity, agent=agent, most=limit, cursor=cursor
    )
    return Json({"sessions": found, "next": after})


@router.get("/{session_id}", response_model=SessionAnswer)
async def session(
    request: Request, session_id: str, identity: Annotated[Identity, needs(Verb.READ)]
) -> Response:
    """One session that goes on. Of one that has ended, its run tells: `/v1/runs/{session_id}`."""
    service = service_of(request)
    return Json(await service.sessions.call(_document, service, identity, session_id))


@router.delete("/{session_id}", response_model=OutcomeDocument)
async def stop(
    request: Request, session_id: str, identity: Annotated[Identity, needs(Verb.RUN)]
) -> Response:
    """End a session and all that runs in it; its outcome, with what changed in the workspace."""
    service = service_of(request)
    outcome = await service.sessions.call(_stopped, service, identity, session_id)
    place = {"Location": f"/v1/runs/{session_id}"}
    return Json(outcome_document(outcome, with_output=True), 200, place)


@router.post(
    "/{session_id}/runs",
    response_model=OutcomeDocument,
    responses=answering.BEGUN,
    openapi_extra=described(SessionRunBody),
)
async def run(
    request: Request,
    session_id: str,
    identity: Annotated[Identity, needs(Verb.RUN)],
    _: Annotated[None, Meant],
    body: Annotated[SessionRunBody, takes(SessionRunBody)],
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Run a command in a session, as `POST /v1/runs` does it: it starts in the workspace.

    It is a run by itself, of the session's agent and under its profile, and is followed and ended
    as such. What it leaves running when it ends by itself goes on with the session.
    """
    service = service_of(request)
    follows = answering.follows(request)

    async def started() -> Job:
        service.jobs.check_room()
        found = await service.sessions.call(service.sessions.find_to_use, identity, session_id)
        stdin = None if body.stdin is None else content_of(body.stdin)
        job = command(service, identity, found, body, stdin, pace=Pace() if follows else None)
        try:
            service.jobs.submit(job)
        except RunnerError:
            job.close()
            raise
        return job

    return await answering.begun(request, identity, body, idempotency_key, started, session_id)


@router.get("/{session_id}/processes", response_model=ProcessList)
async def processes(
    request: Request, session_id: str, identity: Annotated[Identity, needs(Verb.READ)]
) -> Response:
    """What runs in a session, of all its commands; names and arguments are the programs' own."""
    service = service_of(request)

    def found() -> list[dict[str, Any]]:
        session = service.sessions.find(identity, session_id)
        with there(session_id):
            return [process_document(each) for each in session.processes()]

    return Json({"processes": await service.sessions.call(found)})


@router.delete("/{session_id}/processes/{number}", status_code=204)
async def end_process(
    request: Request,
    session_id: str,
    number: int,
    identity: Annotated[Identity, needs(Verb.RUN)],
    signal: Annotated[int, Query(ge=1, le=64, description="By its number.")] = 15,
) -> Response:
    """Send a process a signal; recorded."""
    service = service_of(request)

    def sent() -> bool:
        session = service.sessions.find_to_use(identity, session_id)
        with there(session_id):
            return session.end_process(number, signal)

    if not await service.sessions.call(sent):
        raise not_there(f"process {number} in the session {session_id!r}")
    return Response(status_code=204)


def _begun(service: Service, identity: Identity, body: SessionBody) -> Session:
    """ForbiddenError: it was denied, or the caller may not. RequestError, BusyError."""
    if service.jobs.stopping:
        raise StoppingError("this server is about to end and begins no session; try the next one")
    check_workspace_given(body)
    runner = service.runner
    profile = body.profile or runner.settings.profile.value
    with runner.refusals_recorded(own_principal(identity), profile):
        agent = acting_agent(identity, body.agent, body.parent, body.tenant)
    who = Principal(uid=os.getuid(), agent=agent, tenant=body.tenant)
    with runner.refusals_recorded(who, profile):
        check_profile(identity, profile, stated=body.profile is not None)
        cwd = None if body.cwd is None else service.folder(identity, body.cwd)
    asked: dict[str, Any] = {
        "profile": profile, "agent": agent, "parent": body.parent, "session": body.session,
        "tenant": body.tenant, "env": body.env, "limits": body.limits, "labels": body.labels,
        "lifetime": body.lifetime, "idle": body.idle, "identity": identity.name,
    }  # fmt: skip
    with service.sessions.room():
        if cwd is not None:
            return _started(service, cwd, asked)
        files = {path: content_of(given) for path, given in body.files.items()}
        with service.sessions.folders.fresh(files) as (folder, began):
            session = _started(service, folder, asked)
            try:
                began(session.id)
            except BaseException:
                session.stop()  # or its folder would be removed under it
                raise
            return session


def _started(service: Service, cwd: Path, asked: Mapping[str, Any]) -> Session:
    try:
        return service.runner.sessions.start(cwd=cwd, **asked)
    except RunnerError as error:
        outcome = error.outcome
        if isinstance(outcome, Outcome) and outcome.termination is Termination.DENIED:
            denied = ForbiddenError(str(error))
            denied.outcome = outcome
            raise denied from error
        raise


def _page(
    service: Service, identity: Identity, *, agent: str | None, most: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    before = None if cursor is None else listing.place_of(service, identity, cursor)
    opened = [each for each in service.runner.store.open_runs() if each.run_id.startswith(PREFIX)]
    opened.sort(key=lambda each: (each.opened, each.run_id), reverse=True)
    found: list[dict[str, Any]] = []
    last = ("", "")
    for each in opened:
        place = (each.opened, each.run_id)
        who = each.principal
        if not identity.reaches(who.agent, who.tenant) or agent not in (None, who.agent):
            continue
        if before is not None and place >= before:
            continue
        if len(found) == most:
            return found, listing.cursor_of(service, identity, last)
        try:
            found.append(session_document(service.runner.sessions.get(each.run_id).state()))
        except UnreachableError:
            continue  # its keeper has just ended
        last = place
    return found, None


def _document(service: Service, identity: Identity, session_id: str) -> dict[str, Any]:
    session = service.sessions.find(identity, session_id)
    with there(session_id):
        return session_document(session.state())


def _stopped(service: Service, identity: Identity, session_id: str) -> Outcome:
    session = service.sessions.find_to_use(identity, session_id)
    with there(session_id):
        outcome = session.stop()
    service.sessions.folders.sweep(KEPT)
    return outcome


def command(
    service: Service,
    identity: Identity,
    session: Session,
    body: SessionRunBody | SessionInteractiveBody,
    stdin: bytes | Input | None,
    *,
    pace: Pace | None,
) -> Job:
    """A command of a session, decided about by nobody yet. RequestError."""
    runner = service.runner
    given = stdin if isinstance(stdin, Input) else None
    with runner.refusals_recorded(session.principal, session.profile):
        request = build_request(
            argv=body.argv, shell=body.shell, code=body.code, language=body.language,
            args=body.args, cwd="/", env=body.env, limits=body.limits, labels=body.labels,
            terminal=given is not None and given.terminal is not None,
        )  # fmt: skip
        wait_s = service.ask_wait_s(body, identity)
    request = replace(request, principal=session.principal, profile=session.profile)
    whole = None if isinstance(stdin, Input) else stdin
    return Job(
        new_run_id(),
        request,
        whole,
        Feed(asyncio.get_running_loop(), pace=pace),
        how=How(pace, input=given, ask_wait_s=wait_s, execute=session.execute),
        size_bytes=answering.size_bytes(body, whole),
        disk_bytes=0,
        caller=identity.name,
    )
