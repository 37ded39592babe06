"""The fast path: a command of plain words is read without starting a parser.

One line, one command, words of unquoted safe characters or of simple quotes; no operator, no
expansion, no reserved word in front. What it takes means the same in every shell; all else is left
to the grammar.
"""

from __future__ import annotations

import functools
import re

from runner.model.intent import Word

_TEXT_LIMIT = 8192
# One way only to match each character, so that no text takes time; and no possessive quantifier,
# which Python before 3.11.5 gets wrong (CPython issue 106052).
_PIECE = r"""(?:[A-Za-z0-9_./:@%+,=\-]|'[^'\x00-\x1f\x7f]*'|"[^"$`\\\x00-\x1f\x7f]*")"""
_UNQUOTED = re.compile(r"[A-Za-z0-9_./:@%+,=\- \t]+\n?")
"""Most texts: the same as `_TEXT` takes, without the quotes, and ten times as fast."""
_WORD = re.compile(f"{_PIECE}+")
_TEXT = re.compile(rf"[ \t]*{_PIECE}(?:{_PIECE}|[ \t])*\n?")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)"|([^'"]+)""")
_RESERVED = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for",
     "in", "function", "select", "time", "coproc", "declare", "typeset", "local", "export",
     "readonly", "nameref", "let", "foreach", "end", "repeat", "noglob", "nocorrect"}
)  # fmt: skip


def words(text: str) -> tuple[Word, ...] | None:
    """The words of a plain command, or None when it is not one."""
    if len(text) > _TEXT_LIMIT:
        return None
    unquoted = _UNQUOTED.fullmatch(text) is not None
    if not unquoted and not _TEXT.fullmatch(text):
        return None
    pieces = text.split() if unquoted else _WORD.findall(text)
    if not pieces or "=" in pieces[0] or pieces[0] in _RESERVED:
        return None
    if not unquoted:
        pieces = [_resolve(piece) for piece in pieces]
    return tuple(map(_word, pieces))


@functools.lru_cache(maxsize=512)
def _word(text: str) -> Word:
    """The word of this text; most of what is asked for is names and options, which come again."""
    return Word(text)


def _resolve(piece: str) -> str:
    if "'" not in piece and '"' not in piece:
        return piece
    return "".join(a or b or c for a, b, c in _QUOTED.findall(piece))
