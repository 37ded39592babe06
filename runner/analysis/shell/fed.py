"""The text that a pipe feeds, where the command in front of it tells it: `echo TEXT | psql`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from runner.analysis.context import join
from runner.model.intent import Word

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|0?([0-7]{1,3})|(.))", re.DOTALL)
_LETTERS = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "e": "\x1b",
}
_DIRECTIVE = re.compile(r"%(?:%|[-+ #0]*\d*(?:\.\d+)?[sbdiuxXoqc])")
_ECHO_OPTIONS = re.compile(r"-[neE]+")


def text(words: Sequence[Word], stdin: Word | None) -> Word | None:
    """What `echo`, `printf` and `cat` of a heredoc write, options aside; None: it can't be told.

    `stdin`: the heredoc that the command reads. Shells disagree on what a backslash means to
    `echo`: it is taken as an escape if `-e` asks for it (bash(1)).
    """
    if not words or words[0].dynamic:
        return None
    name, rest = posixpath.basename(words[0].text), list(words[1:])
    if name == "cat":
        return stdin if not rest or rest == [Word("-")] else None
    if name == "echo":
        escapes = False
        while rest and not rest[0].dynamic and _ECHO_OPTIONS.fullmatch(rest[0].text):
            escapes = escapes or "e" in rest.pop(0).text
        return _unescaped(join(rest)) if escapes and rest else join(rest) if rest else None
    if name == "printf" and rest[:1] == [Word("--")]:
        rest = rest[1:]
    if name == "printf" and rest and not rest[0].dynamic:
        return _printed(rest[0].text, rest[1:])
    return None


def _printed(form: str, arguments: list[Word]) -> Word:
    """Each argument in the place of its directive, what is left over behind them (printf(1))."""
    form = _unescaped(Word(form)).text
    pieces, position = [], 0
    for match in _DIRECTIVE.finditer(form):
        pieces.append(Word(form[position : match.start()]))
        position = match.end()
        if match[0] == "%%":
            pieces.append(Word("%"))
        elif arguments:
            pieces.append(arguments.pop(0))
    pieces.append(Word(form[position:]))
    for each in arguments if position else ():
        pieces += [Word("\n"), each]
    known = [each.text for each in pieces]
    first = next((i for i, each in enumerate(pieces) if each.dynamic), None)
    if first is None:
        return Word("".join(known))
    prefix = "".join(known[:first]) + pieces[first].prefix
    return Word("".join(known), dynamic=True, prefix=prefix, many=False)


def _unescaped(word: Word) -> Word:
    return word if word.dynamic else Word(_ESCAPE.sub(_character, word.text))


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    if match[2]:
        return chr(int(match[2], 8) & 0xFF)
    return _LETTERS.get(match[3], match[3] if match[3] in "\\'\"" else match[0])
