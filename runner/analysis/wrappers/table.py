"""The table of wrappers (`wrappers.yaml`, which explains its columns), and rows added to it."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from typing import Any

import rfc8785
import yaml

NO_OPTIONS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wrapper:
    """One row: a command that runs another, and how to find that one."""

    names: tuple[str, ...]
    kind: str = "command"
    flags: frozenset[str] = NO_OPTIONS
    values: frozenset[str] = NO_OPTIONS
    optional: frozenset[str] = NO_OPTIONS
    stop: frozenset[str] = NO_OPTIONS
    text: frozenset[str] = NO_OPTIONS
    text_after: frozenset[str] = NO_OPTIONS
    split: frozenset[str] = NO_OPTIONS
    chdir: frozenset[str] = NO_OPTIONS
    exec: frozenset[str] = NO_OPTIONS
    delete: frozenset[str] = NO_OPTIONS
    writes: frozenset[str] = NO_OPTIONS
    interactive: frozenset[str] = NO_OPTIONS
    replace: frozenset[str] = NO_OPTIONS
    settings: frozenset[str] = NO_OPTIONS
    dynamic: frozenset[str] = NO_OPTIONS
    code: frozenset[str] = NO_OPTIONS
    until: frozenset[str] = NO_OPTIONS
    subcommand: frozenset[str] = NO_OPTIONS
    keys: tuple[str, ...] = ()
    first_if: tuple[str, ...] = ()
    operands: int = 0
    rest: str = "command"
    language: str | None = None
    construct: str | None = None
    default: str | None = None
    assignments: bool = False
    numeric: bool = False
    interspersed: bool = False
    bare: bool = False
    appended: bool = False
    host: bool = False
    first: bool = False
    escapes: bool = False
    texts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    commands: Mapping[str, frozenset[str]] = field(default_factory=dict)
    source: str = ""
    """The file that an added row stands in."""

    @property
    def name(self) -> str:
        """How it is called in `via`."""
        return self.names[0]

    @property
    def known_as(self) -> str | None:
        """How it is called in `via` by whatever name it was started; None: by that name."""
        if self.kind == "python":
            return self.kind
        if self.kind == "code":
            return self.language or self.name
        return self.name if self.kind == "git" else None

    @property
    def lenient(self) -> bool:
        """Whether options that are not in the table are no reason to doubt."""
        return self.kind in {
            "lenient", "code", "python", "sed", "sql", "make", "scripted", "variable",
        }  # fmt: skip

    @property
    def takes_value(self) -> frozenset[str]:
        """Every option that has a value."""
        return (
            self.values | self.text | self.split | self.chdir | self.settings | self.dynamic
            | (self.replace - self.optional) | self.code
        )  # fmt: skip

    @property
    def takes_none(self) -> frozenset[str]:
        """Every option that has none."""
        return self.flags | self.interactive


@dataclass(frozen=True, slots=True)
class Table:
    """All rows, and the variables whose value is run."""

    exact: Mapping[str, Wrapper]
    patterns: tuple[tuple[re.Pattern[str], Wrapper], ...]
    text_variables: frozenset[str]
    prompt_variables: frozenset[str]
    file_variables: frozenset[str]
    subscripts: frozenset[str]
    """Commands of the shell that evaluate a word as a name with a subscript."""
    added: tuple[Wrapper, ...] = ()
    """Rows that are not shipped."""
    digest: str = ""
    """Hex SHA-256 over the added rows; empty: there are none."""
    _any_pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    """All patterns in one: most names are in no row, which is told in one step."""

    def __post_init__(self) -> None:
        """Patterns as one."""
        every = "|".join(pattern.pattern for pattern, _ in self.patterns)
        object.__setattr__(self, "_any_pattern", re.compile(every or "(?!)"))

    def find(self, command: str) -> Wrapper | None:
        """The row of a command, by its base name."""
        name = command.rsplit("/", 1)[-1]
        wrapper = self.exact.get(name)
        if wrapper is None and name and self._any_pattern.fullmatch(name):
            for pattern, candidate in self.patterns:
                if pattern.fullmatch(name):
                    return candidate
        return wrapper

    def extended(self, rows: Sequence[Wrapper]) -> Table:
        """This table and more rows; whatever it finds already, it finds as before.

        So a row that is added takes no reading away, and adds only what the text could have held
        itself: the commands behind one more command.
        """
        if not rows:
            return self
        exact, patterns = dict(self.exact), [*self.patterns]
        for row in rows:
            for name in row.names:
                if is_pattern(name):
                    patterns.append((re.compile(fnmatch.translate(name)), row))
                elif self.find(name) is None:
                    exact.setdefault(name, row)
        added = (*self.added, *rows)
        stated = rfc8785.dumps([_plain(asdict(replace(row, source=""))) for row in added])
        return replace(
            self,
            exact=exact,
            patterns=tuple(patterns),
            added=added,
            digest=hashlib.sha256(stated).hexdigest(),
        )


def is_pattern(name: str) -> bool:
    """Whether a name of a row stands for several."""
    return any(c in name for c in "*?[")


@functools.cache
def load() -> Table:
    """The shipped table."""
    source = resources.files("runner.analysis.wrappers").joinpath("wrappers.yaml").read_bytes()
    data = yaml.load(source, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    exact: dict[str, Wrapper] = {}
    patterns = []
    for row in data["wrappers"]:
        wrapper = _wrapper(row)
        for name in wrapper.names:
            if is_pattern(name):
                patterns.append((re.compile(fnmatch.translate(name)), wrapper))
            else:
                exact[name] = wrapper
    variables = data["variables"]
    return Table(
        exact=exact,
        patterns=tuple(patterns),
        text_variables=frozenset(variables["text"]),
        prompt_variables=frozenset(variables["prompt"]),
        file_variables=frozenset(variables["file"]),
        subscripts=frozenset(data["subscripts"]),
    )


def _wrapper(row: Mapping[str, Any]) -> Wrapper:
    fields: dict[str, Any] = {}
    for key, value in row.items():
        if key in {"names", "keys", "first_if"}:
            fields[key] = tuple(str(item) for item in value)
        elif isinstance(value, dict):
            fields[key] = {name: frozenset(map(str, items)) for name, items in value.items()}
        elif isinstance(value, list):
            fields[key] = frozenset(map(str, value))
        else:
            fields[key] = value
    return Wrapper(**fields)


def _plain(value: object) -> Any:
    """JSON values of a row; sets are sorted."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return value
