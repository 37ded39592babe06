"""Conditions in the Common Expression Language (https://cel.dev), by the extra `[cel]`.

What a condition costs is bounded: its text and the runtime's nesting and iterations, the size of
the lists that it is given, and how often it is asked in one decision.
"""

from __future__ import annotations

import datetime
import functools
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from runner.policy.circumstances import Circumstances
from runner.policy.folders import NamedPath
from runner.policy.hold import Hold, Reading
from runner.policy.subject import Kind, Subject

TEXT_LIMIT = 4096
"""Characters of a condition."""
ITEMS_LIMIT = 1_000
"""Items in a list that a condition is given. The runtime gives up after 10,000 iterations."""
CHARACTERS_LIMIT = 64 * 1024
"""Characters in all lists together."""
ASKED_LIMIT = 50_000
"""How many items a condition may be given in one decision, each call counting as ten."""
INSTALL = "install runner-sandbox[cel]"
RUNTIME = "cel_expr_python.cel"
ABOUT_COMMAND = frozenset({"command", "paths", "reads", "writes", "hosts"})
"""Variables that hold what only running would tell, where the command does."""


class CelCondition:
    """A compiled condition."""

    __slots__ = ("_expression", "names", "text")

    def __init__(self, text: str, expression: Any) -> None:
        self.text = text
        self._expression = expression
        self.names = frozenset(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text))
        """Every word in it: whatever it refers to is among them."""

    def evaluate(self, variables: Mapping[str, object]) -> bool | None:
        """What it comes to; None: an error, or no truth value."""
        try:
            # An error is a value that Python takes for true.
            value = self._expression.eval(data=variables).plain_value()
        except Exception:
            return None
        return value if isinstance(value, bool) else None


class When:
    """`when`: a condition over the command and the circumstances."""

    __slots__ = ("_condition", "_of_command", "key", "stated")

    def __init__(self, text: str) -> None:
        """ValueError: it does not compile."""
        self.key, self.stated = "when", text
        self._condition = compile_condition(text)
        self._of_command = not ABOUT_COMMAND.isdisjoint(self._condition.names)

    @property
    def names(self) -> frozenset[str]:
        """Every word in it."""
        return self._condition.names

    def hold(self, subject: Subject, circumstances: Circumstances, reading: Reading) -> Hold:
        """What it comes to; as the reading says where it can't be evaluated.

        Of a command with dynamic words it sees these as they are written: then only running would
        tell what it does not find.
        """
        if self._of_command and subject.kind is Kind.NETWORK:
            return reading.unknown
        unsure = self._of_command and _is_unsure(subject)
        if unsure and reading is Reading.NARROW:
            return Hold.POSSIBLY
        variables = _variables(subject, circumstances, self._condition.names)
        value = None
        if self._affordable(variables, circumstances) and _is_text(variables):
            value = self._condition.evaluate(variables)
        if value is None:
            return reading.unknown
        return Hold.SURELY if value else Hold(int(unsure))

    def _affordable(self, variables: Mapping[str, object], circumstances: Circumstances) -> bool:
        """Whether the lists are short enough, and it was not asked too much before."""
        items = [len(each) for each in _lists(variables)]
        spent = circumstances.evaluated.get(id(self), 0) + 10 + sum(items)
        circumstances.evaluated[id(self)] = spent
        if spent > ASKED_LIMIT or max(items, default=0) > ITEMS_LIMIT:
            return False
        characters = sum(len(text) for each in _lists(variables) for text in each)
        return characters <= CHARACTERS_LIMIT


def _is_text(value: object) -> bool:
    """Whether every text in it is Unicode.

    A word can hold bytes that are not (PEP 383). The runtime is C++ and takes such a text for none
    at all, which can end the whole process: it is never given one.
    """
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_text(each) for key, each in value.items())
    return not isinstance(value, list) or all(map(_is_text, value))


def _is_unsure(subject: Subject) -> bool:
    return (
        bool(subject.unsure)
        or (subject.name is not None and subject.name.dynamic)
        or any(path.dynamic or len(path.places) > 1 for path in subject.paths)
        or any(host.dynamic for host in subject.hosts)
    )


def _variables(
    subject: Subject, circumstances: Circumstances, names: frozenset[str]
) -> dict[str, object]:
    """The variables that a condition refers to, as far as they are known."""
    found: dict[str, object] = {}
    if "command" in names:
        found["command"] = {
            "name": subject.name.text if subject.name is not None else "",
            "args": [word.text for word in subject.arguments],
            "text": subject.shown,
            "line": subject.line,
            "via": [*subject.via],
            "construct": subject.construct or "",
            "doubtful": subject.doubtful,
            "dynamic": _is_unsure(subject),
        }
    for name in ("paths", "reads", "writes"):
        if name in names:
            found[name] = _spelled(getattr(subject, name))
    if "hosts" in names:
        found["hosts"] = [host.text for host in subject.hosts]
    if "environment" in names:
        found["environment"] = sorted(subject.environment)
    if "principal" in names:
        who = circumstances.principal
        found["principal"] = {
            "agent": who.agent, "parent": who.parent, "session": who.session,
            "tenant": who.tenant, "uid": who.uid,
        }  # fmt: skip
    if "labels" in names and circumstances.labels is not None:
        found["labels"] = dict(circumstances.labels)
    if "profile" in names and circumstances.profile is not None:
        found["profile"] = circumstances.profile
    if "now" in names and (now := _moment(circumstances.facts.now_s)) is not None:
        found["now"] = now
    return found


def _spelled(paths: tuple[NamedPath, ...]) -> list[str]:
    """Where each is; of one that only running would tell what is known of its ends."""
    found: list[str] = []
    for path in paths:
        found += [f"{path.prefix}…{path.suffix}"] if path.dynamic else path.places
    return found


def _moment(now_s: float | None) -> datetime.datetime | None:
    if now_s is None:
        return None
    try:
        return datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _lists(variables: Mapping[str, object]) -> Iterator[list[str]]:
    for value in variables.values():
        if isinstance(value, list):
            yield value
        elif isinstance(value, dict):
            yield from _lists(value)


@functools.lru_cache(maxsize=1024)
def compile_condition(text: str) -> CelCondition:
    """Compile a condition; ValueError says what is wrong with it, or what must be installed."""
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"is longer than {TEXT_LIMIT} characters; split it into several rules")
    environment, boolean = _environment()
    try:
        expression = environment.compile(text)
    except Exception as error:
        raise ValueError(f"is no condition in CEL: {_clause(str(error))}") from None
    kind = expression.return_type()
    if kind.name() not in boolean:
        raise ValueError(f"comes to {kind.name()}, must come to true or false")
    return CelCondition(text, expression)


@functools.cache
def _environment() -> tuple[Any, frozenset[str]]:
    """The variables that a condition may use, and the types that it may come to."""
    if sys.modules.get("regopy") is not None and RUNTIME not in sys.modules:
        # Its library would give the runtime's `new` another allocator than its `free`: it aborts.
        raise ValueError(
            f"can't be evaluated: this process has loaded regopy before {RUNTIME}, and the two "
            "clash then; import them the other way round, or leave regopy to runner"
        )
    try:
        from cel_expr_python import cel  # noqa: PLC0415  (an extra, and heavy)
    except ImportError:
        raise ValueError(f"needs the CEL runtime; {INSTALL}") from None
    kind = cel.Type
    words, anything = kind.List(kind.STRING), kind.Map(kind.STRING, kind.DYN)
    variables = {
        "command": anything,
        "paths": words,
        "reads": words,
        "writes": words,
        "hosts": words,
        "environment": words,
        "principal": anything,
        "labels": kind.Map(kind.STRING, kind.STRING),
        "profile": kind.STRING,
        "now": kind.TIMESTAMP,
    }
    return cel.NewEnv(variables=variables), frozenset({kind.BOOL.name(), kind.DYN.name()})


def _clause(message: str) -> str:
    """The first thing that the compiler found, in one line, with its place."""
    found = re.search(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)", message)
    if found is None:
        return message.partition("\n")[0][:300]
    place = f"line {found[1]}, column {found[2]}: " if int(found[1]) > 0 else ""
    return f"{place}{found[3].strip()[:300].removesuffix(' [INVALID_ARGUMENT]')}"
