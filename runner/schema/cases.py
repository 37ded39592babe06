"""Files of cases: what a policy should decide, `NAME.cases.yaml` beside `NAME.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.errors import BadInputError, PolicyError
from runner.model.decision import Effect
from runner.model.limits import Unlimited
from runner.model.place import Place
from runner.model.rule import CountOf
from runner.schema.base import (
    JsonSchema,
    NonEmpty,
    Strict,
    VariableName,
    Words,
    absolute_path,
    published,
    validate,
)
from runner.schema.problems import Problem
from runner.schema.quantities import parse_duration
from runner.schema.yaml import Document, parse, read_file

CASES_SUFFIXES = (".cases.yaml", ".cases.yml")
_PROGRAMS = ("run", "argv", "code")
_COUNTS = tuple(each.value for each in CountOf)
_LARGEST_UID = 2**32 - 2
"""(uid_t) -1 is no user (chown(2))."""


def _moment(value: object) -> object:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise ValueError(f"{value!r} is no time; write it as 2026-01-02T03:04:05Z")
    return value


def _some(value: object) -> object:
    if value == []:
        raise ValueError("is an empty list; write a case, such as {run: make, expect: allow}")
    return value


def _counts(value: object) -> object:
    if isinstance(value, dict):
        for key in value:
            counted_key(key)
    return value


def counted_key(text: str) -> tuple[CountOf, float]:
    """`agent/1h` as whose runs are counted, and within how many seconds; ValueError: it is none."""
    of, slash, window = text.partition("/")
    if not slash or of not in _COUNTS:
        forms = ", ".join(f"{each}/1h" for each in _COUNTS)
        raise ValueError(f"{text!r} does not say whose runs are counted; write one of {forms}")
    window_s = parse_duration(window)
    if isinstance(window_s, Unlimited):
        raise ValueError(f"{text!r} has no end; give a window such as {of}/1h")
    return CountOf(of), window_s


Moment = Annotated[
    str,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Counts = Annotated[
    dict[str, Annotated[int, Field(strict=True, ge=0)]],
    BeforeValidator(_counts),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^({'|'.join(_COUNTS)})/[0-9.]+ ?(ms|s|m|h|d)?$"},
            "additionalProperties": {"type": "integer", "minimum": 0},
        }
    ),
]
Folder = Annotated[
    str, BeforeValidator(absolute_path), WithJsonSchema({"type": "string", "pattern": "^/"})
]


class GivenFile(Strict):
    """Who asks, where, when, and what they did before."""

    agent: NonEmpty | None = Field(default=None, description="The agent that asks; default.")
    parent: NonEmpty | None = Field(default=None, description="The agent that started it.")
    session: NonEmpty | None = Field(default=None, description="The session it belongs to.")
    tenant: NonEmpty | None = Field(default=None, description="On whose account.")
    uid: Annotated[int, Field(strict=True, ge=0, le=_LARGEST_UID)] | None = Field(
        default=None, description="The user, by number; 1000."
    )
    labels: dict[NonEmpty, str] | None = Field(default=None, description="Labels of the request.")
    environment: tuple[VariableName, ...] | None = Field(
        default=None, description="Names of the variables that the request sets."
    )
    workspace: Folder | None = Field(default=None, description="The run's folder; /workspace.")
    at: Moment | None = Field(default=None, description="When it is decided, with its zone.")
    links: dict[NonEmpty, NonEmpty] | None = Field(
        default=None, description="Links in the run's folder, and where they lead: {l: /etc}."
    )
    calls: Counts | None = Field(
        default=None, description="Earlier runs, by whose and how far back: {agent/1h: 120}."
    )


class CaseFile(GivenFile):
    """One case: a program, and what should be decided about it."""

    name: NonEmpty | None = Field(default=None, description="For people; the program else.")
    run: NonEmpty | None = Field(default=None, description="A command line for a shell.")
    argv: Words | None = Field(default=None, description="A program and its arguments.")
    code: NonEmpty | None = Field(default=None, description="A script, with its language.")
    language: NonEmpty | None = Field(
        default=None, description="Of code; of run: bash (the default) or sh."
    )
    expect: Effect = Field(description="What should be decided.")
    rule: NonEmpty | None = Field(
        default=None, description="The id of a rule that says so; or default, on_dynamic, …"
    )
    reason: NonEmpty | None = Field(default=None, description="A text that the reason holds.")
    rewrite: Words | None = Field(
        default=None, description="The words to run instead; with expect: rewrite."
    )


class CasesFile(Strict):
    """Cases, and the policy that they try."""

    description: NonEmpty | None = None
    profile: NonEmpty | None = Field(
        default=None,
        description="The profile under test: a name, or a path relative to this file. Without it "
        "and policy, NAME.yaml beside NAME.cases.yaml.",
    )
    policy: Words | None = Field(
        default=None,
        description="Policy files under test, or folders of them, relative to this file.",
    )
    wrappers: Words | None = Field(
        default=None,
        description="Files of wrappers that the cases are read by, or folders of them, relative "
        "to this file.",
    )
    given: GivenFile = Field(
        default=GivenFile(), description="What holds for each case that says nothing else."
    )
    cases: Annotated[tuple[CaseFile, ...], BeforeValidator(_some)]


@dataclass(frozen=True, slots=True)
class LoadedCases:
    """A file of cases, and where each stands."""

    path: FilePath
    file: CasesFile
    places: tuple[Place, ...]
    """Of each case, in order."""

    def given(self, case: CaseFile, key: str) -> Any:
        """What a case says under a key of `given`, or else what the file says for all."""
        said = getattr(case, key)
        return said if said is not None else getattr(self.file.given, key)


def is_cases(path: str | FilePath) -> bool:
    """Whether a file's name says that it holds cases."""
    return str(path).endswith(CASES_SUFFIXES)


def load_cases(path: FilePath) -> LoadedCases:
    """Read a file of cases; PolicyError with a line for each problem."""
    document = parse(read_file(path, PolicyError), str(path), PolicyError)
    file = validate(document, CasesFile, PolicyError, (check_cases,))
    marks = document.marks
    places = tuple(Place(str(path), marks["cases", index].line) for index in range(len(file.cases)))
    return LoadedCases(path, file, places)


def check_cases(document: Document) -> Iterator[Problem]:
    """What a case must hold beyond its fields' types; reads the plain data."""
    entries = document.data.get("cases") if isinstance(document.data, dict) else None
    for index, case in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(case, dict):
            continue
        path = ("cases", index)
        stated = [key for key in _PROGRAMS if case.get(key) is not None]
        if len(stated) != 1:
            found = " and ".join(stated) or "none"
            message = f"has {found} of run, argv and code; give one"
            yield document.problem(path, message)
        if "code" in stated and case.get("language") is None:
            message = "needs language, such as python; or write a shell text as run"
            yield document.problem((*path, "code"), message)
        if case.get("language") is not None and stated == ["argv"]:
            message = "says nothing for argv, which no shell reads; leave it out"
            yield document.problem((*path, "language"), message)
        if case.get("rewrite") is not None and case.get("expect") != Effect.REWRITE.value:
            message = "is only for cases that expect: rewrite"
            yield document.problem((*path, "rewrite"), message)


def cases_json_schema() -> JsonSchema:
    """The JSON Schema (draft 2020-12) of a file of cases."""
    return published(CasesFile, "cases.json", "Cases that a policy is tested with")


def refused(place: Place, error: BadInputError) -> PolicyError:
    """What a case could not be made into a request for, told with its place."""
    return PolicyError(f"{place}: {error}")
