"""What the readers of other languages find, noted as advice."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from runner.analysis import worker
from runner.analysis.context import Call, Place, Readers
from runner.analysis.notes import Finding
from runner.analysis.sql import reader as sql
from runner.model.intent import Access, PathUse, Word

TEXT_LIMIT_BYTES = 1024 * 1024
HARMLESS_BYTES = 32 * 1024
_HARMLESS_BRACKETS = 40
"""Opening brackets in a row of nesting: CPython refuses at 200 by itself."""
_HARMLESS_DOTS = 1500
"""CPython's parser takes room by the square of the parts of one dotted name."""
_HARMLESS_CHAIN = re.compile(r"(?:[-+~.*/%&|^<>=(\[{!?:,]|\bnot\b|\blambda\b|\bawait\b|\s|\\){200}")
_EXPANDED = re.compile(r"[$`]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)

Reader = Callable[[str], tuple[list[Finding], str | None]]


def read(
    readers: Readers, language: str, reader: Reader, text: str, *, careful: bool = False
) -> tuple[list[Finding], str | None]:
    """Findings of `reader`, in-process where that can do no harm, else in a bounded child."""
    name = worker.NAMES[language]
    budget = readers.found.budget
    if len(text) > TEXT_LIMIT_BYTES:
        return [], f"the {name} text is longer than the {TEXT_LIMIT_BYTES >> 20} MiB that are read"
    if not readers.found.affords(text):
        return [], f"it holds more {name} than is read"
    if careful or not _harmless(text):
        found, problem, seconds = worker.read(language, text, budget.seconds)
        budget.seconds -= seconds
        if budget.seconds <= 0:
            readers.found.fail(f"reading its {name} takes too long")
    else:
        try:
            found, problem = reader(text)
        except (RecursionError, MemoryError):
            found, problem = [], f"the {name} text is nested too deep to read"
    budget.findings -= len(found)
    return found, problem


def _harmless(text: str) -> bool:
    if len(text) > HARMLESS_BYTES or text.count(".") > _HARMLESS_DOTS:
        return False
    if _HARMLESS_CHAIN.search(text):
        return False
    depth = deepest = 0
    for bracket in re.findall(r"[()\[\]{}]", text):
        depth = depth + 1 if bracket in "([{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest <= _HARMLESS_BRACKETS


def known_text(text: Word) -> str:
    """The source of a dynamic text as if nothing in it expanded: all that is known of it."""
    quoted = _QUOTED.fullmatch(text.text)
    if quoted is None:
        return text.text
    return re.sub(r'\\([\\"$`])', r"\1", quoted[1])


def advised(place: Place) -> Place:
    """The place of what a reader of another language finds."""
    return replace(place, advice=True, language="sh")


def note(
    readers: Readers,
    found: list[Finding],
    place: Place,
    nested: Callable[[Word], None],
    *,
    expanded: bool = False,
) -> None:
    """Put findings into the Intent.

    `nested` reads a text of the same language; `expanded`: a shell puts something in the place of
    what stands behind `$` and in backquotes.
    """
    place = advised(place)
    codes: set[str] = set()
    for each in found:
        # Lines of a text inside another would mean nothing to who wrote the request.
        line = each["line"] if place.depth <= 1 else place.line
        at = replace(place, line=line)
        kind = each["kind"]
        if kind == "construct":
            readers.found.construct(each["name"], at)
        elif kind == "argv":
            words = tuple(_word(word, expanded, many=word[0] == "…") for word in each["words"])
            stdin = each.get("stdin")
            readers.command(Call(words, at, stdin=Word(stdin) if stdin is not None else None))
        elif kind == "code":
            if each["text"] not in codes and not expanded:
                nested(Word(each["text"]))
            codes.add(each["text"])
        else:
            _note_word(readers, kind, each, at, _word(each["word"], expanded))


def _note_word(readers: Readers, kind: str, each: Finding, place: Place, word: Word) -> None:
    if kind == "shell":
        readers.shell(word, place)
    elif kind == "sql":
        sql.read_sql(readers, word, place, "sql")
    elif kind == "path":
        readers.found.paths.append(PathUse(word, Access(each["access"])))
    elif kind == "url":
        host = _url_host(word)
        if host is not None:
            readers.found.hosts.append(host)
    elif kind == "host":
        readers.found.hosts.append(word)


def _word(parts: list[object], expanded: bool, *, many: bool = False) -> Word:
    text, dynamic, prefix, suffix = str(parts[0]), bool(parts[1]), str(parts[2]), str(parts[3])
    if expanded and not dynamic and (found := _EXPANDED.search(text)):
        return Word(text, True, text[: found.start()], "", many=False)
    return Word(text, dynamic, prefix, suffix, many=many) if dynamic else Word(text)


def _url_host(url: Word) -> Word | None:
    """The host of a URL, which a dynamic one shows too once its literal head reaches past it."""
    known = url.prefix if url.dynamic else url.text
    try:
        host = urlsplit(known).hostname
    except ValueError:
        return None
    if url.dynamic:
        past = re.match(r"[A-Za-z][\w+.-]*://[^/?#]*[/?#]", known)
        return Word(host) if host and past else url
    return Word(host) if host else None
