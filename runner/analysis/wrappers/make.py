"""What make(1) runs of what stands on its command line: `--eval`, `$(shell …)`, `-f -`.

The recipes of a makefile are a file's text, unread as that of any script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from runner.analysis import feeds
from runner.analysis.context import APPENDED, STREAMS, Call, Place, Readers, shown
from runner.analysis.shell import plain
from runner.analysis.wrappers import options
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Word

_TEXT_LIMIT = 64 * 1024
_MAKEFILES = (Word("GNUmakefile"), Word("makefile"), Word("Makefile"))
"""What is read when no `-f` names another (make(1))."""
_SHELL = re.compile(r"\$[({]shell\s+")
_VARIABLE = re.compile(r"\$(?:\([^()\s]*\)|\{[^{}\s]*\}|[@<^+?*%|])")
_FUNCTION = re.compile(r"\$[({][a-z-]{1,32}\s[^(){}]*[)}]")
_ASSIGNED = re.compile(r"\s*[\w.-]+\s*!=(.*)", re.DOTALL)
_PAIRS = {"(": ")", "{": "}"}


def unwrap_make(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`make --eval TEXT`, `make VAR='$(shell CMD)'`, `make SHELL=CMD`, `make -f - <<EOF`."""
    taken = options.take(row, call.words[1:])
    inner = replace(place, language="sh", advice=True)
    for text in taken.values(row.text):
        if text.dynamic:
            readers.unknown(text.text, place)
        else:
            _makefile(readers, text.text, inner)
    for word in (*taken.operands, *taken.rest):
        name, equals, value = word.text.partition("=")
        if word.dynamic or not equals:
            continue
        for command in _called(value):
            readers.shell(Word(command), inner)
        if name.rstrip(":?+") == "SHELL":
            _shell(readers, value, inner)
    files = taken.values(row.code)
    for file in files or _MAKEFILES:
        feeds.run_file(readers, file, call, place)
    if any(STREAMS.fullmatch(file.text) for file in files):
        if call.given is not None and not call.given.dynamic:
            _makefile(readers, call.given.text, inner)
        else:
            feeds.run_input(readers, call, place)
            readers.unknown(shown(call), place)


def _shell(readers: Readers, value: str, place: Place) -> None:
    """What runs the recipes: a shell, whose texts are unread, or anything else."""
    words = plain.words(value)
    row = readers.table.find(words[0].text) if words else None
    if words is None:
        readers.shell(Word(value), place)
    elif row is None or row.kind != "shell":
        readers.command(Call((*words, APPENDED), place))


def _makefile(readers: Readers, text: str, place: Place) -> None:
    """The commands of recipes, in whatever rule they stand, and of `$(shell …)` and `!=`."""
    if len(text) > _TEXT_LIMIT:
        readers.unknown(text, place)
    # The shell joins such lines itself, without a blank; make takes the tab off.
    text = text[:_TEXT_LIMIT].replace("\\\n\t", "").replace("\\\n", "")
    for command in _called(text):
        readers.shell(Word(command), place)
    for line in text.split("\n"):
        assigned = _ASSIGNED.fullmatch(line)
        recipe = line[1:] if line.startswith("\t") else line.partition(";")[2]
        if assigned:
            recipe = assigned[1]
        recipe = recipe.lstrip(" \t@+-")
        if recipe:
            readers.shell(Word(_expanded(recipe)), place)


def _expanded(recipe: str) -> str:
    """A recipe as the shell gets it; in the place of make's variables stand the shell's."""
    pieces = recipe.split("$$")
    return "$".join(_VARIABLE.sub("${make}", _FUNCTION.sub("${make}", p)) for p in pieces)


def _called(text: str) -> Iterator[str]:
    """The commands of `$(shell …)`, to the bracket that closes it."""
    end = 0
    for match in _SHELL.finditer(text[:_TEXT_LIMIT]):
        if match.start() < end:
            continue  # within the last one
        opening = match[0][1]
        closing, depth, end = _PAIRS[opening], 1, match.end()
        while end < len(text) and depth:
            depth += (text[end] == opening) - (text[end] == closing)
            end += 1
        yield text[match.end() : end - (not depth)].replace("$$", "$")
