"""Options that hold commands: `tar -I CMD`, `ssh -o ProxyCommand=CMD`, `git -c core.pager=CMD`."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase

from runner.analysis.context import APPENDED, Call, Place, Readers
from runner.analysis.shell import plain
from runner.analysis.wrappers.options import Taken
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Word

_LISTED = re.compile(r"""["']([^"']*)["']""")


def settings_and_texts(readers: Readers, row: Wrapper, taken: Taken, place: Place) -> bool:
    """Read the options that hold commands; True when one of them makes anything possible."""
    for text in taken.values(row.text):
        plain_words = plain.words(text.text) if row.appended and not text.dynamic else None
        if plain_words is not None:
            readers.command(Call((*plain_words, APPENDED), texts(place, row)))
        else:
            readers.shell(text, texts(place, row))
            if row.appended:
                readers.unknown(text.text, place.in_doubt)
    for each in taken.values(row.settings):
        setting(readers, row, each, place)
    return bool(taken.values(row.dynamic))


def setting(readers: Readers, row: Wrapper, word: Word, place: Place) -> None:
    """Read one `key=command`, where the row says that the key's value is run."""
    known = word.prefix if word.dynamic else word.text
    separator = re.search(r"[=\s]", known.strip())
    key = (known.strip()[: separator.start()] if separator else known).lower()
    if word.dynamic and separator is None:
        readers.unknown(word.text, place.in_doubt)
        return
    if separator is None or not any(fnmatchcase(key, pattern) for pattern in row.keys):
        return
    value = known.strip()[separator.end() :].lstrip("= ").strip()
    if value[:1] == '"' == value[-1:]:
        value = value.strip('"')
    if word.dynamic or (row.escapes and "\\" in value):
        readers.unknown(word.text, place)
    elif key.startswith("alias.") or key.endswith(".helper"):
        if value.startswith("!"):
            # git puts what it is given behind an alias (git-config(1)).
            given = ' "$@"' if key.startswith("alias.") else ""
            readers.shell(Word(value[1:] + given), replace(place, language="sh"))
        elif key.startswith("alias.") and value:
            # Words of git's own; what the alias is called with follows them.
            readers.shell(Word(f"git {value}"), replace(place, language="sh", advice=True))
    elif value.startswith("["):  # a list of words, as cargo's TOML has them
        pieces = tuple(Word(piece) for piece in _LISTED.findall(value))
        readers.command(Call((*pieces, APPENDED), place))
    elif value and value.lower() not in {"true", "false", "none"}:
        readers.shell(Word(value), replace(place, language="sh"))


def texts(place: Place, row: Wrapper) -> Place:
    """The place of the texts that a wrapper runs: in the language that its row names."""
    return place if row.language is None else replace(place, language=row.language)
