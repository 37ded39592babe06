"""What sed(1) runs: GNU's `e` command and the `e` flag of `s`."""

from __future__ import annotations

import re
from dataclasses import replace

from runner.analysis.context import STREAMS, Call, Place, Readers, shown
from runner.analysis.wrappers import options
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Access, PathUse, Word

_SKIPPED = re.compile(r"[\s;{}!,~+\d$]+|[IM](?=[\s,!{a-zA-Z=])")
"""Around commands: blanks, ends, braces, and all of an address but regular expressions."""
_BRACKET = re.compile(r"\[\^?\]?(?:\[[:.=][^\]\n]{0,32}\]|[^\]\n]){0,256}\]")
_LABEL = re.compile(r"[^;\n}]*")
_FLAGS = re.compile(r"[gpiImMe\d]*(?:w[^\n]*)?")
_LINE = re.compile(r"(?:[^\\\n]|\\[\s\S])*")
_TEXT_COMMANDS = frozenset("aicrRwW#")
"""The rest of the line, with lines joined by backslashes, is theirs."""
_LABEL_COMMANDS = frozenset("btT:v")
_PLAIN_COMMANDS = frozenset("=dDgGhHnNpPxqQlLFz")


def unwrap_sed(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`sed '1e CMD'`, `sed 's/x/y/e'`; a script that can't be told is in doubt."""
    words = call.words[1:]
    if any(not word.dynamic and word.text == "--sandbox" for word in words):
        return  # refuses `e` (sed(1))
    taken = options.take(row, words)
    scripts = taken.values(row.text)
    if not scripts and not taken.values(row.dynamic):
        scripts = [*taken.operands, *taken.rest][:1]
    place = replace(place, language="sh")
    streams = any(STREAMS.fullmatch(word.text) for word in taken.values(row.dynamic))
    if streams or any(word.dynamic for word in scripts):
        readers.unknown(shown(call), place.in_doubt)
    script = "\n".join(word.text for word in scripts if not word.dynamic)
    commands, whole, written = run_by(script, brackets=True)
    for name in written:
        readers.found.add(Call((), place, redirects=(PathUse(Word(name), Access.WRITE),)))
    for command in commands:
        if command is None:  # what is in the pattern space is run
            readers.unknown(shown(call), place)
        else:
            readers.shell(Word(command), place)
    others = run_by(script, brackets=False)[0] if "[" in script else []
    if not whole or not set(others) <= set(commands):
        readers.unknown(shown(call), place.in_doubt)


def run_by(script: str, *, brackets: bool) -> tuple[list[str | None], bool, list[str]]:
    """Texts that a script hands to the shell (None: made of its input), if all was understood,
    and the files that it writes.

    `brackets`: a delimiter in `[…]` ends nothing, as in GNU sed; in others it does. In time that
    grows with the script's length.
    """
    found: list[str | None] = []
    written: list[str] = []
    at = 0
    while at < len(script):
        skipped = _SKIPPED.match(script, at)
        letter = script[at]
        if skipped:
            at = skipped.end()
        elif letter in "/\\":  # of an address
            at = _delimited(script, at + (letter == "\\"), brackets=brackets)
        elif letter == "e":
            line = _line(script, at + 1)
            found.append(script[at + 1 : line].strip() or None)
            at = line
        elif letter in _TEXT_COMMANDS:
            line = _line(script, at + 1)
            if letter in "wW":
                written.append(script[at + 1 : line].strip())
            at = line
        elif letter in _LABEL_COMMANDS:
            at = _label(script, at + 1)
        elif letter in "sy":
            at = _delimited(script, at + 1, brackets=brackets and letter == "s")
            at = _delimited(script, at - 1, brackets=False) if at else 0
            flags = _FLAGS.match(script, at) if at else None
            if letter == "s" and flags:
                letters, writes, name = flags[0].partition("w")
                found += [None] * ("e" in letters)
                written += [name.strip()] * bool(writes)
            at = flags.end() if flags else 0
        elif letter in _PLAIN_COMMANDS:
            at += 1
        else:
            return found, "e" not in script[at:], written
        if not at:  # it has no end
            return found, False, written
    return found, True, written


def _line(script: str, at: int) -> int:
    match = _LINE.match(script, at)
    return match.end() if match else len(script)


def _label(script: str, at: int) -> int:
    end = _LABEL.match(script, at)
    return end.end() if end else len(script)


def _delimited(script: str, at: int, *, brackets: bool) -> int:
    """Behind the end of what the delimiter at `at` opens; 0: it does not end."""
    if at >= len(script):
        return 0
    delimiter, at = script[at], at + 1
    while at < len(script):
        if script[at] == delimiter:
            return at + 1
        bracket = _BRACKET.match(script, at) if brackets and script[at] == "[" else None
        if bracket is not None:
            at = bracket.end()
        else:
            at += 2 if script[at] == "\\" else 1
    return 0
