"""Conditions in the Common Expression Language (https://cel.dev), by the extra `[cel]`.

What a condition costs is bounded: its text and the runtime's nesting and iterations, the size of
the lists that it is given, and how often it is asked in one decision.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

TEXT_LIMIT = 4096
"""Characters of a condition."""
INSTALL = "install runner-sandbox[cel]"
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
