"""Programs with commands of their own, some of which run a shell's: vim, gdb, expect, socat.

A row's `texts` says, by language, which patterns stand in front of a text in that language. They
are looked for where a command can begin, so it is best effort, noted as advice.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from runner.analysis import code, feeds, languages
from runner.analysis.context import Call, Place, Readers
from runner.analysis.wrappers import options
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Word

_TEXT_LIMIT = 64 * 1024
_BEGINS = r"(?:\A|(?<=[\n;|{\[]))(?>[\s:]{0,64})"
"""Where a command of such a program begins. Blanks are taken once, so that none take time."""


def unwrap_scripted(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`vim -c '!CMD'`, `gdb -ex 'shell CMD'`, `gdb --args CMD`, `socat - EXEC:CMD`."""
    taken = options.take(row, call.words[1:])
    if taken.stopped:
        return
    texts = taken.values(row.code)
    operands = [*taken.operands, *taken.rest]
    if row.first:
        texts += operands
    if "+" in row.code:
        texts += [replace(word, text=word.text[1:]) for word in operands if word.text[:1] == "+"]
    if row.bare and call.given is not None:
        texts.append(call.given)
    elif row.bare and not operands and not texts:
        feeds.run_input(readers, call, place)
    if operands and any(option in row.exec for option, _ in taken.options):
        readers.command(Call(tuple(operands), place))
    advised = replace(place, advice=True, language="sh")
    for text in texts:
        if text.dynamic or len(text.text) > _TEXT_LIMIT:
            readers.unknown(text.text, place.in_doubt)
        if text.dynamic:
            continue
        for language, found in _found(row, text.text[:_TEXT_LIMIT]):
            _read(readers, language, Word(_cut(found, row)), advised)
        if row.language is not None:
            code.read_calls(readers, row.language, text, place)


def _read(readers: Readers, language: str, text: Word, place: Place) -> None:
    if language == "sh":
        readers.shell(text, place)
    else:
        languages.read(readers, language, text, place)


def _cut(text: str, row: Wrapper) -> str:
    ends = [at for mark in row.until if (at := text.find(mark)) >= 0]
    return text[: min(ends)] if ends else text


def _found(row: Wrapper, text: str) -> Iterator[tuple[str, str]]:
    """Each text that a command of the program runs, with its language, to the end of the line."""
    for language, pattern in _patterns(row):
        end = 0
        for match in pattern(text):
            if match.start() < end:
                continue  # within what the last one runs
            end = text.find("\n", match.end())
            end = len(text) if end < 0 else end
            yield language, text[match.end() : end]


@functools.cache
def _compiled(pattern: str) -> Callable[[str], Iterator[re.Match[str]]]:
    return re.compile(_BEGINS + f"(?:{pattern})").finditer


def _patterns(row: Wrapper) -> Iterator[tuple[str, Callable[[str], Iterator[re.Match[str]]]]]:
    for language, patterns in sorted(row.texts.items()):
        yield language, _compiled("|".join(sorted(patterns)))
