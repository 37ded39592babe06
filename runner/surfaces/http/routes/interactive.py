"""WebSockets at `/v1/runs` and `/v1/sessions/{id}/runs`: a run whose input comes while it runs.

The first message is the body. Behind it binary messages are input, and a text says its end, the
size of the client's terminal, or that the run is to end. What happens comes as texts, each one
event as `/v1/runs/{id}/events` has them; the last is `outcome` or `error`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.websockets import WebSocket, WebSocketDisconnect

from runner.errors import (
    BusyError,
    ForbiddenError,
    RequestError,
    RunnerError,
    StoppingError,
    TooLargeError,
    UnauthenticatedError,
)
from runner.model.identity import Identity, Verb
from runner.pacing import Pace
from runner.recording import new_run_id
from runner.schema.api_bodies import InteractiveBody, SaidBody, SessionInteractiveBody, Size
from runner.schema.outcome import printable
from runner.surfaces.http import answering, problems
from runner.surfaces.http.access import Needs, is_still
from runner.surfaces.http.bodies import parsed
from runner.surfaces.http.connection import BODY_S
from runner.surfaces.http.feed import LAST, Feed
from runner.surfaces.http.input import Input, Writing
from runner.surfaces.http.jobs import How, Job
from runner.surfaces.http.routes.runs import requested, submitted
from runner.surfaces.http.routes.sessions import command
from runner.surfaces.http.service import Service, service_of
from runner.surfaces.http.websocket import TOO_LARGE, TRY_LATER

router = APIRouter()

NEEDS = Needs(Verb.RUN)
"""Of each WebSocket of the API."""
_AGAIN_S = 1.0
"""So often it is asked whether a client may still do this."""
_DONE, _REFUSED, _FAILED = 1000, 1008, 1011
"""RFC 6455, 7.4.1."""

Body = TypeVar("Body", InteractiveBody, SessionInteractiveBody)
Start = Callable[[Service, Identity, Any, Input], Coroutine[Any, Any, Job]]


@router.websocket("/v1/runs")
async def run(websocket: WebSocket) -> None:
    """As `POST /v1/runs`."""
    await _conversation(websocket, InteractiveBody, _run)


@router.websocket("/v1/sessions/{session_id}/runs")
async def run_in_session(websocket: WebSocket, session_id: str) -> None:
    """As `POST /v1/sessions/{session_id}/runs`."""

    async def begin(
        service: Service, identity: Identity, body: SessionInteractiveBody, given: Input
    ) -> Job:
        service.jobs.check_room()
        found = await service.sessions.call(service.sessions.find_to_use, identity, session_id)
        job = command(service, identity, found, body, given, pace=Pace())
        try:
            service.jobs.submit(job)
        except RunnerError:
            job.close()
            raise
        return job

    await _conversation(websocket, SessionInteractiveBody, begin)


async def _run(
    service: Service, identity: Identity, body: InteractiveBody, given: Input
) -> Job:  # fmt: skip
    run_id = new_run_id()
    loop = asyncio.get_running_loop()

    def prepared() -> Job:
        request, disk_bytes = requested(service, identity, body, run_id)
        wait_s = service.ask_wait_s(body, identity)
        pace = Pace()
        return Job(
            run_id,
            replace(request, terminal=body.terminal is not None),
            None,
            Feed(loop, pace=pace),
            how=How(pace, input=given, ask_wait_s=wait_s),
            size_bytes=answering.size_bytes(body, None),
            disk_bytes=disk_bytes,
            caller=identity.name,
        )

    return await submitted(service, run_id, prepared)


async def _conversation(websocket: WebSocket, model: type[Body], start: Start) -> None:
    """From the handshake to the end; every refusal is told as what it is."""
    try:
        identity = await NEEDS(websocket)
        # A page in a browser sends one, and has no business here.
        if "origin" in websocket.headers:
            raise ForbiddenError("a WebSocket of this API is not for pages in a browser: no Origin")
        if "idempotency-key" in websocket.headers:
            raise RequestError(
                "a run whose input comes while it runs can't be begun again by a key"
            )
    except RunnerError as error:
        await websocket.send_denial_response(problems.answer(error))
        return
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it has gone, or was let go
        try:
            body = await _body(websocket, model)
            job, writing = await _begun(websocket, identity, body, start)
        except RunnerError as error:
            await _refused(websocket, error)
            return
        await _Talk(websocket, identity, job, writing, body).carry()


async def _body(websocket: WebSocket, model: type[Body]) -> Body:
    try:
        async with asyncio.timeout(BODY_S):
            message = await websocket.receive()
    except TimeoutError:
        raise RequestError("the first message, which is the body, did not arrive in time") from None
    _check_there(message)
    return _text(message, model)


async def _begun(
    websocket: WebSocket,
    identity: Identity,
    body: InteractiveBody | SessionInteractiveBody,
    start: Start,
) -> tuple[Job, Writing]:
    given = Input(None if body.terminal is None else _cells(body.terminal))
    writing = Writing(given)
    try:
        return await start(service_of(websocket), identity, body, given), writing
    except BaseException:
        given.close()
        writing.close()
        raise


class _Talk:
    """One client and its run, until either has ended."""

    def __init__(
        self,
        websocket: WebSocket,
        identity: Identity,
        job: Job,
        writing: Writing,
        body: InteractiveBody | SessionInteractiveBody,
    ) -> None:
        self._websocket = websocket
        self._identity = identity
        self._job = job
        self._writing = writing
        self._cancels = body.cancel_on_disconnect

    async def carry(self) -> None:
        """WebSocketDisconnect: the client has gone."""
        telling, hearing, allowed = (
            asyncio.ensure_future(each) for each in (self._tell(), self._hear(), self._allowed())
        )
        try:
            await asyncio.wait({telling, hearing, allowed}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
                await self._websocket.close(_DONE if self._job.error is None
                                            else _close_code(self._job.error))  # fmt: skip
                return
            self._leave()
            for each in (hearing, allowed):
                if each.done() and isinstance(error := each.exception(), RunnerError):
                    telling.cancel()
                    await asyncio.wait({telling})
                    await _refused(self._websocket, error)
        finally:
            self._leave()
            for each in (telling, hearing, allowed):
                each.cancel()
            await asyncio.wait({telling, hearing, allowed})
            for each in (telling, hearing, allowed):
                each.cancelled() or each.exception()  # or it would be told as one nobody saw

    def _leave(self) -> None:
        """The client is not there any more."""
        self._writing.close()
        self._job.feed.disown()
        if self._cancels and not self._job.done.done():
            self._job.cancel()

    async def _tell(self) -> None:
        async for told in self._job.feed.follow(0, owner=True):
            if told is not None:
                await self._websocket.send_text(_event(told.id, told.kind, told.data))

    async def _hear(self) -> None:
        """Until the client is gone. RequestError: that is no message."""
        while True:
            message = await self._websocket.receive()
            _check_there(message)
            data = message.get("bytes")
            if data is not None:
                await self._writing.write(data)
                continue
            said = _text(message, SaidBody)
            if said.say == "end":
                self._writing.end()
            elif said.say == "cancel":
                self._job.cancel()
            elif said.size is None:
                raise RequestError("resize goes with a size: rows and columns")
            else:
                self._writing.resize(*_cells(said.size))

    async def _allowed(self) -> None:
        """As long as the client is. UnauthenticatedError: its key was revoked, or has ended."""
        while await is_still(self._websocket, self._identity):
            await asyncio.sleep(_AGAIN_S)
        raise UnauthenticatedError("whoever began this may do it no more", presented=True)


def _check_there(message: Any) -> None:
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", _DONE), message.get("reason"))


_Model = TypeVar("_Model", bound=BaseModel)


def _text(message: Any, model: type[_Model]) -> _Model:
    text = message.get("text")
    if text is None:
        raise RequestError("the first message is the body, a text of JSON")
    return parsed(model, text.encode())


def _cells(size: Size) -> tuple[int, int]:
    return size.rows, size.columns


def _event(identity: str, kind: str, data: bytes) -> str:
    """One event; `data`: JSON."""
    return f'{{"id":"{identity}","event":"{kind}","data":{data.decode()}}}'


async def _refused(websocket: WebSocket, error: RunnerError) -> None:
    told = orjson.dumps({"code": error.code, "message": printable(str(error))})
    await websocket.send_text(_event(LAST, "error", told))
    await websocket.close(_close_code(error))


def _close_code(error: RunnerError) -> int:
    if isinstance(error, BusyError | StoppingError):
        return TRY_LATER
    if isinstance(error, TooLargeError):
        return TOO_LARGE
    return _REFUSED if error.http_status < 500 else _FAILED
