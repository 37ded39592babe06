"""Globs: does a pattern match a text, and could it match one of which only the ends are known.

`*`, `?`, `[abc]`, `[!abc]`; a backslash takes the next character as it is. For paths `*` and `?`
do not match `/`, and `**` matches anything.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STAR, _ONE = "*", "."


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`_STAR`: any number of characters that `accepts` takes; `_ONE`: exactly one."""
    accepts: re.Pattern[str]


class Glob:
    """One compiled pattern."""

    __slots__ = ("_itself", "_regex", "_tokens", "pattern")

    def __init__(self, pattern: str, *, path: bool = False) -> None:
        """`path`: `*` stays within one component, and `/x/**` matches `/x` too."""
        self.pattern = pattern
        self._tokens, source = _compile(pattern, path=path)
        self._regex = re.compile(source, re.DOTALL)
        below = path and pattern.endswith("/**") and len(pattern) > 3
        self._itself = glob(pattern[:-3], path=True) if below else None

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        if self._regex.fullmatch(text) is not None:
            return True
        return self._itself is not None and self._itself.matches(text)

    def could_match(self, prefix: str, suffix: str) -> bool:
        """Whether some text that starts and ends like this matches, as far as the ends tell."""
        if _survives(self._tokens, prefix) and _survives(self._tokens[::-1], suffix[::-1]):
            return True
        return self._itself is not None and self._itself.could_match(prefix, suffix)


@functools.lru_cache(maxsize=4096)
def glob(pattern: str, *, path: bool = False) -> Glob:
    """The compiled pattern; compiled once."""
    return Glob(pattern, path=path)


def globs(patterns: Iterable[str], *, path: bool = False) -> tuple[Glob, ...]:
    """Each of them compiled."""
    return tuple(glob(pattern, path=path) for pattern in patterns)


def is_literal(pattern: str) -> bool:
    """Whether it matches exactly one text, itself."""
    return not any(c in pattern for c in "*?[\\")


def _compile(pattern: str, *, path: bool) -> tuple[list[_Token], str]:
    any_one = "[^/]" if path else "."
    tokens: list[_Token] = []
    source = ""
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            stars = 1
            while index < len(pattern) and pattern[index] == "*":
                stars += 1
                index += 1
            piece = "." if stars > 1 else any_one
            tokens.append(_Token(_STAR, re.compile(piece, re.DOTALL)))
            source += f"{piece}*"
            continue
        if char == "?":
            piece = any_one
        elif char == "[" and (end := _class_end(pattern, index)) is not None:
            piece = _class(pattern[index:end])
            index = end + 1
        else:
            if char == "\\" and index < len(pattern):
                char = pattern[index]
                index += 1
            piece = re.escape(char)
        tokens.append(_Token(_ONE, re.compile(piece, re.DOTALL)))
        source += piece
    return tokens, source


def _class_end(pattern: str, start: int) -> int | None:
    first = start + 1 if pattern[start : start + 1] in ("!", "^") else start
    end = pattern.find("]", first + 1)
    return end if end >= 0 else None


def _class(body: str) -> str:
    negated = body[:1] in ("!", "^")
    members = re.sub(r"([\\\[\]&~|^])", r"\\\1", body[1:] if negated else body)
    try:
        re.compile(f"[{members}]")
    except re.error:
        members = re.escape(body)
    return f"[{'^' if negated else ''}{members}]"


def _survives(tokens: Sequence[_Token], text: str) -> bool:
    """Whether a text that goes on after `text` can still match."""
    states = _through_stars(tokens, {0})
    for char in text:
        following = set()
        for state in states:
            if state < len(tokens) and tokens[state].accepts.fullmatch(char):
                following.add(state if tokens[state].kind == _STAR else state + 1)
        states = _through_stars(tokens, following)
        if not states:
            return False
    return True


def _through_stars(tokens: Sequence[_Token], states: set[int]) -> set[int]:
    """States reachable without a character: a star may stand for nothing."""
    reached = set(states)
    for state in states:
        here = state
        while here < len(tokens) and tokens[here].kind == _STAR:
            here += 1
            reached.add(here)
    return reached
