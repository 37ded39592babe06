r"""Patterns that somebody configures for secrets of their own, in a small part of `re`'s language.

Characters, `\d \w \s`, escaped punctuation, classes `[…]`; each may repeat: `{n}`, `{n,m}`, `?`
anywhere, and `+`, `*`, `{n,}` at the end. One pair of round brackets may mark the secret in its
context. So one place in a text is tried in at most `MOST_WAYS` ways, whatever the text: Python's
engine backtracks, and what is searched was written by whoever would like to see it hang.
Alternatives are several patterns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 200
"""Characters of a pattern."""
MOST = 50
"""Patterns."""
MOST_WAYS = 256
"""In which a pattern may be tried at one place."""
SHORTEST_MATCH = 8
"""Characters: shorter ones stand by chance in ordinary text, and in the log's own words."""
SHORTEST_START = 3
"""Characters, written out, with which a pattern begins: a text without them costs nothing."""
FURTHEST = 1000
"""Of repetitions that are counted."""

_ATOM = re.compile(
    r"(?P<class>\[\^?(?:\\[dws\\\]\[^-]|[^\]\[\\])+\])|(?P<set>\\[dws])|\\(?P<escaped>[^A-Za-z0-9])"
    r"|(?P<plain>[^\\\[\](){}*+?|^$.])|(?P<group>[()])"
)
_REPEAT = re.compile(r"\{(\d{1,4})(?:(,)(\d{0,4}))?\}|([*+?])")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was checked."""

    pattern: re.Pattern[str]
    needle: str
    """Stands in every text that it matches."""


def parse_patterns(texts: list[str]) -> tuple[Pattern, ...]:
    """ValueError: which pattern is wrong, and why."""
    if len(texts) > MOST:
        raise ValueError(f"{len(texts)} patterns are more than {MOST}; let one stand for several")
    return tuple(map(parse_pattern, texts))


def parse_pattern(text: str) -> Pattern:
    """ValueError: the pattern is wrong, and why."""

    def wrong(why: str) -> ValueError:
        return ValueError(f"the pattern {text!r} {why}")

    if len(text) > LONGEST:
        raise ValueError(f"a pattern of {len(text)} characters is longer than {LONGEST}")
    at, ways, least, groups, needle, leading, endless = 0, 1, 0, "", "", True, False
    while at < len(text):
        atom = _ATOM.match(text, at)
        if atom is None:
            raise wrong(
                f"has {text[at]!r} at character {at + 1}; write characters, \\d, \\w, \\s, [a-z], "
                "{n,m}, and a backslash before punctuation that is meant literally"
            )
        at = atom.end()
        if atom["group"]:
            groups += atom["group"]
            continue
        if endless:
            raise wrong("repeats without a bound before its end; write {n,m} there")
        repeat = _REPEAT.match(text, at)
        low, high = (1, 1) if repeat is None else _bounds(repeat)
        at = at if repeat is None else repeat.end()
        if text[at : at + 1] in ("?", "+", "*", "{"):
            raise wrong(f"repeats a repetition at character {at + 1}, or a group")
        if repeat is not None and not low <= (low if high is None else high) <= FURTHEST:
            raise wrong(f"repeats {repeat[0]}; write {{n,m}} up to {FURTHEST}")
        least += low
        endless = high is None
        ways *= 1 if high is None else high - low + 1
        literal = atom["plain"] or atom["escaped"]
        leading = leading and literal is not None and repeat is None
        needle += literal or "" if leading else ""
    if groups not in ("", "()"):
        raise wrong("may have one pair of round brackets, around the secret")
    if ways > MOST_WAYS:
        raise wrong(f"can be tried in {ways} ways at one place, more than {MOST_WAYS}; bound it")
    if least < SHORTEST_MATCH:
        raise wrong(f"can match fewer than {SHORTEST_MATCH} characters, which may stand anywhere")
    if len(needle) < SHORTEST_START:
        raise wrong(f"must begin with {SHORTEST_START} characters that are written out")
    return Pattern(_compiled(text), needle)


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"the pattern {text!r} is none: {error}") from None


def _bounds(repeat: re.Match[str]) -> tuple[int, int | None]:
    if repeat[4]:
        return {"?": (0, 1), "*": (0, None), "+": (1, None)}[repeat[4]]
    low = int(repeat[1])
    return low, low if repeat[2] is None else int(repeat[3]) if repeat[3] else None
