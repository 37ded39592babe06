"""Server-sent events, read as the HTML Living Standard has them (9.2)."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from runner.client.outcomes import bytes_of, decision_of, failure_of, texts_of, usage_of
from runner.client.parsing import Fields, decoded, refuse
from runner.errors import AnswerError, UnreachableError, error_of
from runner.model.following import Began, Missed, RunEvent, Used, WaitsForAnswer, Written

LAST = "end"
_LINE_BYTES = 256 << 20
"""An outcome is one line, with all that is kept of the output."""

Event = tuple[str, str, bytes]
"""Id, kind and data."""


def read_events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Whole events; the stream's end in the middle of one is a cut connection.

    OSError, http.client.HTTPException, AnswerError.
    """
    identity = kind = ""
    data: list[bytes] = []
    while True:
        line = response.readline(_LINE_BYTES + 1)
        if len(line) > _LINE_BYTES:
            raise AnswerError(f"the server sends a line of more than {_LINE_BYTES} bytes")
        if not line.endswith(b"\n"):
            return
        line = line.rstrip(b"\r\n")
        if not line:
            if data:
                yield identity, kind, b"\n".join(data)
            kind, data = "", []
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"id":
                identity = value.decode("utf-8", "replace")
            case b"event":
                kind = value.decode("utf-8", "replace")
            case b"data":
                data.append(value)


def parsed(event: Event) -> RunEvent | None:
    """All but the outcome; None: a kind that this version does not know, which may be passed over.

    What could not begin is raised as the error that it is. AnswerError: it is malformed.
    """
    _, kind, data = event
    value = decoded(data, f"an event '{kind[:20]}'")
    f = Fields(value, f"the event '{kind[:20]}'")
    match kind:
        case "decision":
            told: RunEvent = Began(f.text("run_id"), f.inner("decision", decision_of))
        case "asked":
            told = WaitsForAnswer(
                f.text("id"), f.text("reason"), f.inner("rules", texts_of), f.text("expires")
            )
        case "output":
            told = _written(f)
        case "usage":
            return Used(usage_of(value))
        case "dropped":
            return Missed()
        case "error":
            failure = failure_of(value)
            raise error_of(failure.code, failure.message)
        case _:
            return None
    f.done()
    return told


def _written(f: Fields) -> Written:
    stream = f.text("stream")
    if stream not in ("stdout", "stderr"):
        refuse("the event 'output'", f"is of no stream: {stream[:20]!r}")
    offset = f.integer("offset")
    return Written(stream, offset, bytes_of(f.text("data"), f.text("encoding"), "its data"))


def cut(why: str) -> UnreachableError:
    """The connection ended before the run."""
    return UnreachableError(f"the connection to the server was cut while a run went on: {why}")
