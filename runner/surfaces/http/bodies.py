"""Request bodies: read only once it is known who calls, and never more than is taken.

FastAPI would read a body before it asks for anything else, and whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from runner.errors import BusyError, RequestError, TooLargeError

PROBLEMS_TOLD = 10
READING_BYTES = 256 << 20
"""Of all bodies that are being read or answered together."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(slots=True)
class Sizes:
    """What bodies may take, and what they take now."""

    most_bytes: int
    """Of one."""
    held_bytes: int = 0


class Takes:
    """A dependency: the request's body as a model. Stands behind `needs` in a route."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model

    async def __call__(self, request: Request) -> AsyncIterator[BaseModel]:
        """RequestError: it is not what the model says; TooLargeError; BusyError."""
        sizes: Sizes = request.app.state.sizes
        _check_type(request)
        held = bytearray()
        try:
            async for chunk in request.stream():
                sizes.held_bytes += len(chunk)
                held += chunk
                if len(held) > sizes.most_bytes:
                    raise TooLargeError(
                        f"the body is larger than {sizes.most_bytes} bytes, which is all that this "
                        "server takes"
                    )
                if sizes.held_bytes > READING_BYTES:
                    raise BusyError("other requests hold all the room for bodies; try again")
            yield parsed(self.model, bytes(held))
        except ClientDisconnect:
            raise RequestError("the caller left before the body was there") from None
        finally:
            sizes.held_bytes -= len(held)


def takes(model: type[BaseModel]) -> Any:
    """For a route's parameter: `body: Annotated[RunBody, takes(RunBody)]`."""
    return Depends(Takes(model))


def described(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is that model; see `openapi.py`."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def parsed(model: type[Model], data: bytes) -> Model:
    """RequestError with what is wrong, by place; never with the values themselves."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = [_sentence(each) for each in problems[:PROBLEMS_TOLD]]
        raise RequestError("; ".join(told)) from None


def _sentence(problem: Any) -> str:
    place = ".".join(ascii(str(each))[1:-1][:80] for each in problem["loc"]) or "the body"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}"


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError("the body has to be JSON, with Content-Type: application/json")
