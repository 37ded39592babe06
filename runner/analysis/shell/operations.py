"""What a parameter expansion makes of a constant: `${x#a}`, `${x/a/b}`, `${x,,}` (bash(1))."""

from __future__ import annotations

import re

from runner.analysis.shell.setters import VALUE, plain_word
from runner.analysis.shell.shfmt import Node

_PLAIN = re.compile(r"[\w./:@%+=, -]*")
"""Patterns and what they are replaced by, in which nothing is special."""
_READ_AS_IT_IS = frozenset({":-", "-", ":?", "?"})
_SHAPES = {"Type", "Pos", "End", "Dollar", "Rbrace", "Short", "Param", "Exp", "Repl", "Slice",
           "Length"}  # fmt: skip


def applied(part: Node, value: str) -> str | None:
    """What the expansion `part` makes of the value of its variable; None: it can't be told."""
    if not set(part) <= _SHAPES:
        return None
    if part.get("Length"):
        return str(len(value)) if value.isascii() else None
    result: str | None = value
    if part.get("Exp"):
        result = _expanded(part["Exp"], value)
    elif part.get("Repl"):
        result = _replaced(part["Repl"], value)
    elif part.get("Slice"):
        result = _sliced(part["Slice"], value)
    return result if result is not None and VALUE.fullmatch(result) else None


def _expanded(operation: Node, value: str) -> str | None:
    operator, given = operation.get("Op"), operation.get("Word")
    word = plain_word(given) if given else None
    if word is not None and not _PLAIN.fullmatch(word):
        word = None
    if operator in _READ_AS_IT_IS:
        return value
    if given and word is None:
        return None
    if operator in ("#", "##") and word:
        return value.removeprefix(word)
    if operator in ("%", "%%") and word:
        return value.removesuffix(word)
    if operator in (":+", "+") or given or not value.isascii():
        return word if operator in (":+", "+") else None
    cases = {",,": value.lower(), "^^": value.upper(), ",": value[:1].lower() + value[1:],
             "^": value[:1].upper() + value[1:]}  # fmt: skip
    return cases.get(str(operator))


def _replaced(operation: Node, value: str) -> str | None:
    old = plain_word(operation.get("Orig") or {})
    new = plain_word(operation["With"]) if operation.get("With") else ""
    if not old or new is None or not _PLAIN.fullmatch(old) or not _PLAIN.fullmatch(new):
        return None
    if old[0] in "#%/":
        return None  # anchored
    return value.replace(old, new) if operation.get("All") else value.replace(old, new, 1)


def _sliced(operation: Node, value: str) -> str | None:
    start, length = (plain_word(operation.get(key) or {}) for key in ("Offset", "Length"))
    numbers = [start, *([length] if operation.get("Length") else [])]
    if not all((each or "").isdecimal() for each in numbers):
        return None
    end = int(str(start)) + int(length) if length else len(value)
    return value[int(str(start)) : end]
