"""Reading JavaScript: as advice, by its parser where that is installed, else by patterns."""

from __future__ import annotations

import functools
import importlib.util

from runner.analysis import code, foreign
from runner.analysis.context import DEPTH_LIMIT, Place, Readers
from runner.analysis.javascript import text as jsread
from runner.model.intent import Word


@functools.cache
def has_parser() -> bool:
    """Whether the extra `javascript` is installed."""
    return all(importlib.util.find_spec(n) for n in ("tree_sitter", "tree_sitter_javascript"))


def read_javascript(readers: Readers, text: Word, place: Place) -> str | None:
    """Note what a JavaScript text would do; returns why (a part of) it can't be read, else None."""
    advice = foreign.advised(place)
    if place.depth > DEPTH_LIMIT:
        return None
    if text.dynamic:
        readers.found.construct("javascript:dynamic-code", advice)
    if not has_parser():
        code.read_calls(readers, "node", text, place)
        return None
    source = foreign.known_text(text) if text.dynamic else text.text
    found, problem = foreign.read(readers, "javascript", jsread.read_javascript, source)
    if text.dynamic:  # what stands in the place of `$x` may well parse
        found = [each for each in found if each.get("name") != "javascript:unreadable"]
    inside = advice.behind("node")
    foreign.note(
        readers,
        found,
        place,
        lambda word: _nested(readers, word, inside),
        expanded=text.dynamic,
    )
    if problem is not None and not text.dynamic:
        readers.found.construct("javascript:unreadable", advice)
        code.read_calls(readers, "node", text, place)
    return problem


def _nested(readers: Readers, text: Word, place: Place) -> None:
    read_javascript(readers, text, place)
