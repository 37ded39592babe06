"""What the models of files share: a strict base, field types, and errors that name the place."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

from runner.errors import BadInputError
from runner.schema.problems import Path, Problem, nearest, raise_problems, unknown
from runner.schema.yaml import Document
from runner.syscalls import GROUPS, KNOWN

FileModel = TypeVar("FileModel", bound="Strict")
Check = Callable[[Document], Iterator[Problem]]
JsonSchema = dict[str, Any]

SCHEMA_ADDRESS = "https://runner-sandbox.github.io/schema/"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SYSCALL_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _one_or_more(value: object) -> object:
    items = [value] if isinstance(value, str) else value
    if items == []:
        raise ValueError("is an empty list; name at least one, or leave the key out")
    return items


def _no_empty_word(value: str) -> str:
    if not value:
        raise ValueError("is empty; write a word or a pattern")
    return value


def shaped(pattern: re.Pattern[str], what: str) -> tuple[BeforeValidator, WithJsonSchema]:
    """For `Annotated[str, *…]`: a text of this shape; `what` ends the sentence `must be …`."""

    def check(value: object) -> object:
        if isinstance(value, str) and not pattern.fullmatch(value):
            raise ValueError(f"{value!r} must be {what}")
        return value

    schema = {"type": "string", "pattern": f"^(?:{pattern.pattern})$"}
    return BeforeValidator(check), WithJsonSchema(schema)


def absolute_path(value: object) -> object:
    """Before-validator: an absolute path in its shortest spelling."""
    if isinstance(value, str):
        parts = value.split("/")
        if not value.startswith("/"):
            raise ValueError(f"{value!r} is not an absolute path; start it with '/'")
        if ".." in parts or "." in parts or "" in parts[1:-1]:
            raise ValueError(f"{value!r} holds '.', '..' or '//'; write the path out")
        return value.rstrip("/") or "/"
    return value


def _known_call(name: str) -> str:
    if name not in KNOWN:
        guess = nearest(name, sorted(KNOWN)) or ";"
        raise ValueError(
            f"there is no system call and no group {name!r}{guess} write a call's name as its "
            f"manual page does, or one of the groups {', '.join(GROUPS)}"
        )
    return name


NonEmpty = Annotated[str, BeforeValidator(lambda v: _no_empty_word(v) if v == "" else v)]
Words = Annotated[
    tuple[NonEmpty, ...],
    BeforeValidator(_one_or_more),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]
"""A word, or a list of at least one."""
AbsolutePath = Annotated[
    str, BeforeValidator(absolute_path), WithJsonSchema({"type": "string", "pattern": "^/"})
]
SyscallName = Annotated[
    str, AfterValidator(_known_call), *shaped(SYSCALL_NAME, "a system call's name, such as 'mount'")
]
VariableName = Annotated[str, *shaped(VARIABLE_NAME, "a variable's name: letters, digits and '_'")]
Identifier = Annotated[
    str, *shaped(IDENTIFIER, "small letters, digits, '.', '_' and '-', at most 64")
]


def validate(
    document: Document,
    model: type[FileModel],
    error: type[BadInputError],
    checks: Sequence[Check] = (),
) -> FileModel:
    """The document as a `model`; `error` with a line for each problem of fields and `checks`."""
    problems = [problem for check in checks for problem in check(document)]
    result = None
    try:
        result = model.model_validate({} if document.data is None else document.data)
    except ValidationError as failure:
        problems += [_problem(document, model, e) for e in failure.errors(include_url=False)]
    raise_problems(problems, error)
    if result is None:  # A ValidationError has problems, so this line is never reached.
        raise error(f"{document.source} is not valid")
    return result


def _problem(document: Document, model: type[BaseModel], error: ErrorDetails) -> Problem:
    path: Path = _as_written(document.data, tuple(error["loc"]))
    if error["type"] == "extra_forbidden":
        parent = _model_at(model, path[:-1])
        known = tuple(_fields(parent)) if parent else ()
        return document.problem(path, unknown("key", str(path[-1]), known))
    if path and path[-1] == "[key]":  # Pydantic's word for "the key itself is wrong".
        path = path[:-1]
    return document.problem(path, _say(error))


def _as_written(data: object, loc: Path) -> Path:
    """The way to a value in the document: where one stands for a list of one, pydantic counts."""
    path: Path = ()
    for step in loc:
        if step == 0 and not isinstance(data, list):
            continue
        path = (*path, step)
        try:
            data = data[step]  # type: ignore[index]  # what has no such item is the end of it
        except (TypeError, KeyError, IndexError):
            data = None
    return path


_WANTED = {
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _say(error: ErrorDetails) -> str:
    kind, given = error["type"], error["input"]
    context = error.get("ctx", {})
    if kind == "missing":
        return "is missing; add it"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind == "enum" and isinstance(given, str):
        words = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return unknown("value", given, words)
    if kind == "enum":
        return f"is {_kind_of(given)}; allowed: {context.get('expected', '')}"
    if kind in _WANTED:
        hint = " (put it in quotes)" if kind == "string_type" and _is_scalar(given) else ""
        return f"is {_kind_of(given)}, must be {_WANTED[kind]}{hint}"
    return error["msg"]


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if value is None:
        return "empty"
    names = ((str, "text"), (list, "a list"), (dict, "a mapping"))
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model that stands at `path` below `model`, through optional fields and lists."""
    current: Any = model
    for step in path:
        current = next(_models_in(current), None)
        if current is None:
            return None
        if isinstance(step, str):
            current = _fields(current).get(step)
    return next(_models_in(current), None)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Each field's type by its key in a file."""
    return {each.alias or name: each.annotation for name, each in model.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {Union, types.UnionType, Annotated, tuple, list}:
        for inner in get_args(annotation):
            yield from _models_in(inner)


def published(model: type[BaseModel], name: str, title: str) -> JsonSchema:
    """The model's JSON Schema, draft 2020-12, ready to publish."""
    return {
        "$schema": DIALECT,
        "$id": SCHEMA_ADDRESS + name,
        **model.model_json_schema(mode="validation"),
        "title": title,
    }
