"""tar(1)'s old style, in which options stand in a first word without a hyphen: `tar cIf CMD x`."""

from __future__ import annotations

import re

from runner.model.intent import Word

_OLD = re.compile(r"[A-Za-z0-9]+")
_WITH_VALUE = frozenset("bCfFgHIKLNTVX")
"""Letters whose values follow, one word each, in the same order (tar(1))."""


def in_new_style(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """The same words with each option written by itself, in front of its value."""
    if not words or words[0].dynamic or not _OLD.fullmatch(words[0].text):
        return words
    rest = list(words[1:])
    written: list[Word] = []
    for letter in words[0].text:
        written.append(Word(f"-{letter}"))
        if letter in _WITH_VALUE and rest:
            written.append(rest.pop(0))
    return (*written, *rest)
