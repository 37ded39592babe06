"""Makes docs/api-reference.md from the OpenAPI document that the server itself answers with."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection

from runner import Runner
from runner.errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OtherServerError,
    RequestError,
    RunnerError,
    StoppingError,
    TooLargeError,
    UnauthenticatedError,
)
from runner.model.identity import Identity
from runner.surfaces.http.app import create_app
from runner.surfaces.http.fresh import FreshWorkspaces
from runner.surfaces.http.jobs import Room
from runner.surfaces.http.openapi import openapi_document

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api-reference.md"

INTRODUCTION = """\
# The exec API, address by address

<!-- Made by scripts/api-docs from the server's OpenAPI document; what is changed here is lost. -->

Every address of [the exec API](api.md) that answers plain HTTP: who may call it, what it takes
and what it answers. [That page](api.md) says how they are used together, and has what is no plain
HTTP. A server answers with the document that this page is made from at `GET /openapi.json`.

*Verb* is what the [caller](identity.md) needs. A field without a default is required. `api` in
the examples is [curl at the server's socket](api.md); upper-case words stand for ids.

A refusal is answered with an [`ErrorAnswer`](#erroranswer). Those that are usual at an address
stand there, with their [codes](reference.md#error-codes); where runner can't do its work, any
answers 503 with the code that says why.
"""

STAND_INS = {
    "run_id": "RUN", "session_id": "SESSION", "approval_id": "QUESTION", "number": "7",
    "stream": "stdout", "path": "src/main.py",
}  # fmt: skip
"""What a parameter is in an example; of queries only what is required is shown."""
_BOUNDS = {
    "minLength": "at least {} character(s)", "maxLength": "at most {} characters",
    "minimum": "at least {}", "exclusiveMinimum": "more than {}", "maximum": "at most {}",
    "minItems": "at least {} items", "maxItems": "at most {} items",
    "minProperties": "at least {} entries", "maxProperties": "at most {} entries",
    "pattern": "matches `{}`",
}  # fmt: skip


def document() -> dict[str, Any]:
    """As a server answers with it; nothing is served."""

    async def nobody(connection: HTTPConnection) -> Identity:
        del connection
        raise UnauthenticatedError("nobody calls")

    with (
        tempfile.TemporaryDirectory() as home,
        Runner(home=Path(home) / "home") as runner,
        FreshWorkspaces() as fresh,
    ):
        app = create_app(runner, nobody, fresh, room=Room(1, 1))
        return openapi_document(app)


def page(api: dict[str, Any]) -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            lines += _operation(api, f"{method.upper()} {path}", operation)
    lines += ["## Documents", "", "What bodies and answers are made of, by name.", ""]
    schemas = api["components"]["schemas"]
    for name in sorted(_named(api["paths"], schemas)):
        lines += _schema(name, schemas[name])
    return "\n".join(lines).rstrip() + "\n"


def _operation(api: dict[str, Any], title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield from (f"## {title}", "", operation["description"].rstrip(), "")
    verb = operation.get("x-runner-verb")
    yield from (f"Verb: `{verb}`." if verb else "Anybody may call it.", "")
    given = operation.get("parameters", [])
    if given:
        yield from ("| parameter | in | is | |", "| --- | --- | --- | --- |")
        for each in given:
            name, told = f"`{each['name']}` | {each['in']}", each.get("description", "")
            yield _row(name, each["schema"], told, required=each.get("required", False))
        yield ""
    contents = operation.get("requestBody", {}).get("content", {})
    for kind, content in contents.items():
        yield from (f"Body: {_type(content['schema'])}, `{kind}`.", "")
    yield from ("| status | answer |", "| --- | --- |")
    for status, answer in sorted(operation["responses"].items()):
        if status in ("4XX", "5XX"):
            continue
        kinds = [
            f"{_type(content.get('schema', {}))}, `{kind}`"
            for kind, content in answer.get("content", {}).items()
        ]
        told = answer.get("description", "")
        told = "" if told == "Successful Response" else told.rstrip(".")
        yield f"| {status} | {'; '.join(filter(None, [*kinds, told])) or 'nothing'} |"
    yield ""
    refused = ", ".join(f"{each.http_status} `{each.code}`" for each in _refusals(operation))
    if refused:
        yield from (f"Refused with {refused}.", "")
    yield from ("```text", *_example(api, title, operation), "```", "")


def _refusals(operation: dict[str, Any]) -> Iterator[type[RunnerError]]:
    """What the parts of a request can be refused with; in the order of their statuses."""
    places = {each["in"] for each in operation.get("parameters", [])}
    headers = {each["name"] for each in operation.get("parameters", []) if each["in"] == "header"}
    body, begins = "requestBody" in operation, "idempotency-key" in headers
    has = {
        RequestError: body or bool(places),
        UnauthenticatedError: "x-runner-verb" in operation,
        ForbiddenError: "x-runner-verb" in operation,
        NotFoundError: "path" in places,
        ConflictError: begins,
        OtherServerError: "runner-server" in headers,
        TooLargeError: body,
        BusyError: begins,
        StoppingError: begins,
    }
    return (each for each, is_so in has.items() if is_so)


def _example(api: dict[str, Any], title: str, operation: dict[str, Any]) -> Iterator[str]:
    method, path = title.split(" ")
    asked = [each for each in operation.get("parameters", []) if each.get("required")]
    address = path.format_map(STAND_INS)
    query = [f"{p['name']}={STAND_INS[p['name']]}" for p in asked if p["in"] == "query"]
    words = ["api"]
    schema: dict[str, Any] = {}
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        if kind != "application/json":
            words += ["-T", "FILE"]
    if "$ref" in schema:
        body = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        words += ["-d", json.dumps(body["examples"][0])]
    implied = "POST" if "-d" in words else "PUT" if "-T" in words else "GET"
    if method != implied:
        words += ["-X", method]
    words.append(f"http://runner{address}" + (f"?{'&'.join(query)}" if query else ""))
    yield shlex.join(words)


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {name}", "")
    if schema.get("description"):
        yield from (schema["description"].partition("\n\n")[0].replace("\n", " "), "")
    if "enum" in schema:
        yield from (f"One of {_values(schema['enum'])}.", "")
        return
    required = schema.get("required", [])
    yield from ("| field | is | |", "| --- | --- | --- |")
    for field, what in schema.get("properties", {}).items():
        yield _row(f"`{field}`", what, what.get("description", ""), required=field in required)
    yield ""


def _row(name: str, schema: dict[str, Any], told: str, *, required: bool) -> str:
    default = "" if required else f"default {_value(schema.get('default'))}"
    rest = ". ".join(filter(None, [told.rstrip("."), default]))
    # A pattern may have a bar, and a description: in a table each needs an escape.
    cells = [_type(schema).replace("|", "\\|"), rest.replace("\n", " ").replace("|", "\\|")]
    return f"| {name} | {' | '.join(cells)} |"


def _type(schema: dict[str, Any]) -> str:
    """What a value is, with its bounds, in a line."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if "const" in schema:
        return _values([schema["const"]])
    if "enum" in schema:
        return _values(schema["enum"])
    for words in ("anyOf", "oneOf", "allOf"):
        if words in schema and "properties" not in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[words])))
    kind = schema.get("type", "bytes")
    if kind == "array":
        kind = _array(schema)
    elif kind == "object":
        values = schema.get("additionalProperties")
        kind = f"object of {_type(values)}" if isinstance(values, dict) and values else "object"
    elif schema.get("format"):
        kind = f"{kind} ({schema['format']})"
    bounds = [told.format(schema[word]) for word, told in _BOUNDS.items() if word in schema]
    return ", ".join([kind, *bounds])


def _array(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"list of {', '.join(map(_type, schema['prefixItems']))}"
    return f"list of {_type(schema.get('items', {}))}"


def _value(value: object) -> str:
    return f"`{json.dumps(value)}`"


def _values(values: list[Any]) -> str:
    return ", ".join(_value(value) for value in values)


def _named(value: Any, schemas: dict[str, Any], found: set[str] | None = None) -> set[str]:
    """All that is referred to, and what that refers to."""
    known = set() if found is None else found
    if isinstance(value, dict):
        reference = value.get("$ref")
        name = reference.rpartition("/")[2] if isinstance(reference, str) else None
        if name is not None and name not in known:
            known.add(name)
            _named(schemas[name], schemas, known)
        for each in value.values():
            _named(each, schemas, known)
    elif isinstance(value, list):
        for each in value:
            _named(each, schemas, known)
    return known


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: scripts/api-docs [--check]", file=sys.stderr)
        return 2
    made = page(document())
    if not arguments:
        PAGE.write_text(made, "utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text("utf-8") == made:
        return 0
    print(f"{PAGE.name} is not what the API says of itself: run scripts/api-docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
