"""Reading Python: as advice, small harmless texts here, the rest in a bounded child."""

from __future__ import annotations

from runner.analysis import code, foreign
from runner.analysis.context import Place, Readers
from runner.analysis.python import text as pyread
from runner.model.intent import Word


def read_python(readers: Readers, text: Word, place: Place) -> str | None:
    """Note what a Python text would do; returns why (a part of) it can't be read, else None."""
    advice = foreign.advised(place)
    if text.dynamic:
        readers.found.construct("python:dynamic-code", advice)
    source = foreign.known_text(text) if text.dynamic else text.text
    found, problem = foreign.read(
        readers, "python", pyread.read_python, source, careful=pyread.needs_care(source)
    )
    if text.dynamic and problem is not None:
        return None  # what stands there instead may well parse
    inside = advice.behind("python")
    foreign.note(
        readers, found, place, lambda word: readers.python(word, inside), expanded=text.dynamic
    )
    if problem is not None:
        readers.found.construct("python:unreadable", advice)
        code.read_calls(readers, "python", text, place)
    return problem
