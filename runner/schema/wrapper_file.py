"""Files of wrappers: rows for commands that run others, beside those that ship with runner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from runner.analysis.wrappers.table import Table, Wrapper, is_pattern, load
from runner.schema.base import Check, JsonSchema, NonEmpty, Strict, published, shaped
from runner.schema.problems import Path, Problem, unknown
from runner.schema.yaml import Document

Kind = Literal["command", "lenient", "shell", "foreign_shell", "python", "code", "sql"]

_SHELLS = ("bash", "ksh", "sh", "zsh")
_WITH_VALUE = ("values", "text", "split", "chdir", "settings", "dynamic", "code")
_OPTIONS = ("flags", "optional", "stop", "interactive", "replace", "text_after")
_COMMAND = frozenset(
    {"flags", "values", "optional", "stop", "text", "text_after", "split", "chdir", "interactive",
     "replace", "settings", "keys", "dynamic", "until", "subcommand", "first_if", "operands",
     "rest", "language", "default", "assignments", "numeric", "interspersed", "bare", "appended",
     "host", "escapes"}
)  # fmt: skip
COLUMNS: Mapping[str, frozenset[str]] = {
    "command": _COMMAND,
    "lenient": _COMMAND,
    "shell": frozenset({"flags", "values", "stop", "language"}),
    "foreign_shell": frozenset(),
    "python": frozenset({"flags", "values"}),
    "code": frozenset(
        {"flags", "values", "optional", "code", "first", "subcommand", "interspersed", "language"}
    ),
    "sql": frozenset(
        {"flags", "values", "optional", "code", "first", "subcommand", "interspersed", "operands",
         "language"}
    ),
}  # fmt: skip
"""What a row of each kind may state beside names and kind: what its reader looks at."""
_OPERANDS_LIMIT = 16
_NAMES_LIMIT = 1000
"""Of one file; a pattern is tried for every command."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Options = Annotated[
    tuple[
        Annotated[
            str, *shaped(re.compile(r"[-+][^\s=]*|=="), "an option, such as '-u' or '--user'")
        ],
        ...,
    ],
    BeforeValidator(_listed),
]
"""Options as the command takes them; one by itself needs no list."""
Several = Annotated[tuple[NonEmpty, ...], BeforeValidator(_listed)]
Name = Annotated[
    str, *shaped(re.compile(r"[^\s/]{1,64}"), "a command's name without a folder, or a pattern")
]


class WrapperRow(Strict):
    """One command that runs another, and how to find that one."""

    names: Annotated[tuple[Name, ...], Field(min_length=1), BeforeValidator(_listed)] = Field(
        description="Base names of the command; patterns with * ? and [ ] are allowed."
    )
    kind: Kind = Field(
        default="command",
        description="lenient: only the options named here matter; the others: how it is read.",
    )
    flags: Options = Field(default=(), description="Options without a value.")
    values: Options = Field(default=(), description="Options with a value.")
    optional: Options = Field(default=(), description="Options whose value is only attached.")
    stop: Options = Field(default=(), description="Options after which nothing is run.")
    text: Options = Field(default=(), description="Options whose value is text for a shell.")
    text_after: Several = Field(
        default=(), description="Words behind the operands whose next word is text for a shell."
    )
    split: Options = Field(default=(), description="Options whose value is split into words.")
    chdir: Options = Field(default=(), description="Options whose value is the folder to start in.")
    interactive: Options = Field(
        default=(), description="Options that start a shell where no command is given."
    )
    replace: Options = Field(
        default=(), description="Options that name what is replaced in the command."
    )
    settings: Options = Field(default=(), description="Options whose value is key=command.")
    keys: Several = Field(
        default=(), description="Which keys of settings: patterns, small letters."
    )
    dynamic: Options = Field(default=(), description="Options after which what runs can't be told.")
    code: Options = Field(
        default=(), description="Options whose value is text in the row's language."
    )
    until: Several = Field(default=(), description="Words that end the command.")
    subcommand: Several = Field(
        default=(), description="The first operand is one of these, else nothing is run."
    )
    first_if: Several = Field(
        default=(),
        description="Patterns of an operand that may stand first, in front of all options.",
    )
    operands: Annotated[int, Field(strict=True, ge=0, le=_OPERANDS_LIMIT)] = Field(
        default=0, description="Words in front of the command."
    )
    rest: Literal["command", "text", "first_text", "none"] = Field(
        default="command", description="What follows."
    )
    language: NonEmpty | None = Field(
        default=None, description="Of the text: a shell; for code an interpreter, for sql a client."
    )
    default: NonEmpty | None = Field(
        default=None, description="The command that is run where none is given."
    )
    assignments: bool = Field(default=False, description="NAME=value may stand in front.")
    numeric: bool = Field(default=False, description="-5 is an option.")
    interspersed: bool = Field(default=False, description="Options may stand behind operands.")
    bare: bool = Field(default=False, description="Without a command it starts a shell.")
    appended: bool = Field(default=False, description="Words from elsewhere are appended.")
    host: bool = Field(default=False, description="The first operand names a host.")
    first: bool = Field(default=False, description="Without such an option the first operand is.")
    escapes: bool = Field(default=False, description="Backslashes in settings are undone.")

    def to_model(self, source: str) -> Wrapper:
        """The row as readers take it."""
        stated: dict[str, Any] = {}
        for name in self.model_fields_set:
            value = getattr(self, name)
            if value is not None:
                sets = isinstance(value, tuple) and name not in {"names", "keys", "first_if"}
                stated[name] = frozenset(value) if sets else value
        return Wrapper(**stated, source=source)


class WrappersFile(Strict):
    """Rows for commands that run others."""

    description: NonEmpty | None = None
    wrappers: Annotated[tuple[WrapperRow, ...], Field(min_length=1)]


def checks(onto: Table) -> Check:
    """The checks of a file beyond its model; `onto`: the table that its rows are added to."""

    def check(document: Document) -> Iterator[Problem]:
        known: dict[str, str] = {}
        for index, row in _rows(document):
            yield from _names(document, index, row, onto, known)
            yield from _columns(document, index, row)
            yield from _twice(document, index, row)
        if len(known) > _NAMES_LIMIT:
            yield document.problem(
                ("wrappers",), f"names {len(known)} commands; at most {_NAMES_LIMIT} are taken"
            )

    return check


def wrappers_json_schema() -> JsonSchema:
    """The JSON Schema (draft 2020-12) of a file of wrappers."""
    return published(WrappersFile, "wrappers.json", "Commands that run others")


def _rows(document: Document) -> Iterator[tuple[int, Mapping[str, Any]]]:
    data = document.data if isinstance(document.data, dict) else {}
    rows = data.get("wrappers")
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        if isinstance(row, dict):
            yield index, row


def _names(
    document: Document, index: int, row: Mapping[str, Any], onto: Table, known: dict[str, str]
) -> Iterator[Problem]:
    stated = row.get("names")
    names = [stated] if isinstance(stated, str) else stated
    for number, name in enumerate(names if isinstance(names, list) else ()):
        if not isinstance(name, str):
            continue
        path: Path = ("wrappers", index, "names", number)
        path = path if path in document.marks else path[:-1]
        mine = document.marks.get(path, document.marks[()])
        there = None if is_pattern(name) else onto.find(name)
        if name in known:
            message = f"{name!r} stands already in {known[name]}; a command has one row"
            yield document.problem(path, f"{message}, so take one of them out")
        elif there is not None:
            where = f"in {there.source}" if there.source else "in the table that ships with runner"
            yield document.problem(
                path,
                f"{name!r} is read already by '{there.name}' {where}, and no row takes the place "
                "of another; take the name out",
            )
        known.setdefault(name, f"line {mine.line}")


def _columns(document: Document, index: int, row: Mapping[str, Any]) -> Iterator[Problem]:
    kind = row.get("kind", "command")
    columns = COLUMNS.get(kind) if isinstance(kind, str) else None
    if columns is None:
        return
    for key in row:
        if key in WrapperRow.model_fields and key not in {"names", "kind", *columns}:
            yield document.problem(
                ("wrappers", index, key),
                f"says nothing in a row of kind {kind}; "
                + (f"allowed: {', '.join(sorted(columns))}" if columns else "leave it out"),
            )
    language = row.get("language")
    allowed = _languages(kind)
    if isinstance(language, str) and "language" in columns and language not in allowed:
        path = ("wrappers", index, "language")
        yield document.problem(path, unknown("language", language, allowed))
    if kind in ("code", "sql") and language is None:
        message = f"needs language for kind {kind}; one of: {', '.join(allowed)}"
        yield document.problem(("wrappers", index), message)


def _languages(kind: str) -> tuple[str, ...]:
    """What `language` may be: a shell, an interpreter that is read, a database client."""
    if kind not in ("code", "sql"):
        return _SHELLS
    rows = [row for row in load().exact.values() if row.kind == kind]
    if kind == "sql":
        return tuple(sorted({name for row in rows for name in row.names}))
    names = {row.name for row in rows if " " not in row.name}  # `deno run` is read as another
    return tuple(sorted(names))


def _twice(document: Document, index: int, row: Mapping[str, Any]) -> Iterator[Problem]:
    """An option that has a value and has none: the word behind it would be read both ways."""
    valued = {option for key in _WITH_VALUE for option in _texts(row.get(key))}
    for key in ("flags", "interactive", "stop"):
        for option in _texts(row.get(key)):
            if option in valued:
                message = f"{option!r} is also listed as an option with a value; keep one of them"
                yield document.problem(("wrappers", index, key), message)


def _texts(value: object) -> list[str]:
    items = [value] if isinstance(value, str) else value
    return [each for each in items if isinstance(each, str)] if isinstance(items, list) else []
