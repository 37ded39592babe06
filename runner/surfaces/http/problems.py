"""What went wrong as an answer: `{"error": {"code", "message"}}`, codes of `runner.errors`."""

from __future__ import annotations

import sys
import traceback

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from runner.errors import (
    BusyError,
    NotFoundError,
    RequestError,
    RunnerError,
    StoppingError,
    TooLargeError,
    UnauthenticatedError,
)
from runner.model.outcome import Outcome
from runner.schema.outcome import printable

RETRY_AFTER_S = 1
"""Runs take seconds; who comes back sooner only asks in vain."""


def answer(error: RunnerError) -> JSONResponse:
    """The error as an answer, with its status."""
    headers = {}
    if isinstance(error, BusyError | StoppingError):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, TooLargeError):
        headers["Connection"] = "close"  # the rest of the body is not waited for
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error.outcome, Outcome):
        headers["Location"] = f"/v1/runs/{error.outcome.run_id}"
    return document(error.http_status, error.code, str(error), headers)


def document(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The document, whatever it was."""
    content = {"error": {"code": code, "message": printable(message)}}
    return JSONResponse(content, status, headers)


def install(app: FastAPI) -> None:
    """Answer so from every route, and where there is none."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RunnerError):
            return await defect(_, error)
        return answer(error)

    async def http(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            return await defect(_, error)
        if error.status_code == 404:
            return answer(NotFoundError("there is no such address; /openapi.json lists all"))
        headers = dict(error.headers or {})
        return document(error.status_code, RequestError.code, str(error.detail), headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            return await defect(_, error)
        told = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()[:10]]
        return answer(RequestError("; ".join(told)))

    async def defect(_: Request, error: Exception) -> JSONResponse:
        traceback.print_exception(error, file=sys.stderr)
        what = f"a defect of runner: {type(error).__name__}; the server's stderr tells more"
        return document(500, RunnerError.code, what)

    app.add_exception_handler(RunnerError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, defect)
