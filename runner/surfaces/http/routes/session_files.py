"""`/v1/sessions/{id}/files`: the files of a session, read and written inside of its sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, BinaryIO, cast

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runner.errors import (
    BackendError,
    ForbiddenError,
    NotFoundError,
    RequestError,
    RunnerError,
)
from runner.model.identity import Identity, Verb
from runner.model.session import FileDeed, FileDone, FileTask
from runner.schema.api_answers import FileList, FileRow, WrittenAnswer
from runner.schema.api_bodies import MOST_PATH_BYTES
from runner.schema.outcome import printable
from runner.surfaces.http.access import needs
from runner.surfaces.http.service import Json, Service, service_of
from runner.surfaces.http.sessions import file_document, there
from runner.surfaces.http.transfers import Download, Listing, Sent, Upload

router = APIRouter(prefix="/v1/sessions/{session_id}/files", tags=["sessions"])

LISTING_BYTES = 8 << 20
"""Of a folder's listing, as the sandbox tells it."""
_MOST = (1 << 62) - 1
"""No file is as long."""

FilePath = Annotated[
    str,
    Query(
        min_length=1,
        max_length=MOST_PATH_BYTES,
        description="Absolute, or from the workspace; as programs of the session see it.",
    ),
]
_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
_BODY = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}, "required": True}


@router.get("", response_class=Response, responses=_BYTES)
async def read(  # noqa: PLR0917  (called by keywords alone)
    request: Request,
    session_id: str,
    identity: Annotated[Identity, needs(Verb.READ)],
    path: FilePath,
    offset: Annotated[int, Query(ge=0, le=_MOST)] = 0,
    length: Annotated[int | None, Query(ge=0, le=_MOST)] = None,
) -> Response:
    """A file's content, as a stream; 403 where the rules deny it, 404 where there is none.

    An answer that is cut off before its end was not the whole.
    """
    service = service_of(request)
    task = FileTask(FileDeed.READ, path, offset, length)
    with contextlib.ExitStack() as stack:
        limiter = stack.enter_context(service.sessions.transfer())
        download = Download()

        def carried() -> FileDone:
            try:
                return _done(service, identity, session_id, task, target=download)
            finally:
                download.finish()

        doing = asyncio.ensure_future(to_thread.run_sync(carried, limiter=limiter))
        doing.add_done_callback(_looked_at)
        try:
            first = await download.next()
            if first is None:
                _checked(await doing, task)
        except BaseException:
            download.leave()
            raise
        later = stack.pop_all()

    async def pieces() -> AsyncIterator[bytes]:
        piece = first
        while piece is not None:
            yield piece
            piece = await download.next()
        try:
            whole = (await doing).done
        except RunnerError:
            whole = False
        if not whole and (cut := request.scope.get("state", {}).get("cut")) is not None:
            cut()  # or what came would be taken for all of it

    def ended() -> None:
        download.leave()
        later.close()

    return Sent(pieces(), ended)


@router.put("", response_model=WrittenAnswer, openapi_extra={"requestBody": _BODY})
async def write(
    request: Request,
    session_id: str,
    identity: Annotated[Identity, needs(Verb.RUN)],
    path: FilePath,
    executable: bool = False,
) -> Response:
    """Put a file there, in the place of what stood there, and folders on the way.

    Whole or not at all. It is as large as the server's bodies at most.
    """
    service = service_of(request)
    upload = Upload(request)
    task = FileTask(FileDeed.WRITE, path, size_bytes=upload.size_bytes, executable=executable)
    with service.sessions.transfer() as limiter:
        done = await to_thread.run_sync(
            partial(_done, service, identity, session_id, task, source=upload), limiter=limiter
        )
    _checked(done, task)
    return Json({"path": path, "size_bytes": upload.size_bytes})


@router.delete("", status_code=204)
async def remove(
    request: Request,
    session_id: str,
    identity: Annotated[Identity, needs(Verb.RUN)],
    path: FilePath,
) -> Response:
    """Remove a file or a link, or a folder that is empty."""
    task = FileTask(FileDeed.REMOVE, path)
    await _called(request, identity, session_id, task)
    return Response(status_code=204)


@router.get("/list", response_model=FileList)
async def entries(
    request: Request,
    session_id: str,
    identity: Annotated[Identity, needs(Verb.READ)],
    path: FilePath = ".",
) -> Response:
    """What stands in a folder, by name; of a large one the beginning."""
    listing = Listing(LISTING_BYTES)
    told = await _called(request, identity, session_id, FileTask(FileDeed.LIST, path), listing)
    with _untrusted():
        rows = [json.loads(line) for line in listing.lines()]
        found = [_row(row["name"], row) for row in rows]
        truncated = told["truncated"] is not False or listing.is_cut
    return Json({"path": path, "entries": found, "truncated": truncated})


@router.get("/stat", response_model=FileRow)
async def stat(
    request: Request,
    session_id: str,
    identity: Annotated[Identity, needs(Verb.READ)],
    path: FilePath,
) -> Response:
    """What there is at a path; a link is not followed."""
    told = await _called(request, identity, session_id, FileTask(FileDeed.STAT, path))
    with _untrusted():
        return Json(_row(path.rstrip("/").rpartition("/")[2] or path, told))


async def _called(
    request: Request,
    identity: Identity,
    session_id: str,
    task: FileTask,
    target: Listing | None = None,
) -> dict[str, Any]:
    service = service_of(request)
    done = await service.sessions.call(_done, service, identity, session_id, task, target=target)
    return _checked(done, task)


def _done(
    service: Service,
    identity: Identity,
    session_id: str,
    task: FileTask,
    *,
    source: Upload | None = None,
    target: Download | Listing | None = None,
) -> FileDone:
    """In a thread. NotFoundError: there is no such session."""
    changes = task.do in (FileDeed.WRITE, FileDeed.REMOVE)
    find = service.sessions.find_to_use if changes else service.sessions.find
    session = find(identity, session_id)
    with there(session_id):
        return session.do(task, cast("BinaryIO", source), cast("BinaryIO", target))


def _looked_at(doing: asyncio.Future[FileDone]) -> None:
    """What it failed in is nobody's business any more where the caller has gone."""
    if not doing.cancelled():
        doing.exception()


@contextlib.contextmanager
def _untrusted() -> Iterator[None]:
    """What tells it runs in the sandbox, where other programs might get at it. BackendError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackendError("what the sandbox tells of its files can't be read") from error


def _row(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return FileRow.model_validate(file_document(name, told)).model_dump()


def _checked(done: FileDone, task: FileTask) -> dict[str, Any]:
    """What there is to tell. ForbiddenError, NotFoundError, RequestError, BackendError."""
    named = printable(task.path)
    if not done.decision.permits:
        raise ForbiddenError(f"{named!r}: {done.decision.effect.value}: {done.decision.reason}")
    if done.problem is not None:
        what = f"{named!r}: {done.problem}"
        if done.errno == errno.ENOENT:
            raise NotFoundError(what)
        raise BackendError(what) if done.errno == errno.EIO else RequestError(what)
    return dict(done.told)
