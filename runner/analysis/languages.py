"""The readers of languages other than shell, by the name of the interpreter."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

from runner.analysis import code, feeds
from runner.analysis.context import STREAMS, Call, Place, Readers, shown
from runner.analysis.javascript import reader as javascript
from runner.analysis.python import reader as python
from runner.analysis.wrappers import options
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Word

_DATA = re.compile(r"(?:--[\w-]+=)?data:(?:text|application)/\w+([^,]*),(.*)", re.DOTALL)
"""A module that stands in its own address, `data:TYPE[;base64],TEXT` (RFC 2397)."""


def read(readers: Readers, language: str, text: Word, place: Place) -> str | None:
    """Note what a text would do; returns why (a part of) it can't be read, else None.

    `language` is the name of an interpreter: `python`, `node`, `perl`, `ruby`, `php`, `lua`, `awk`;
    of others nothing is told.
    """
    if language == "python":
        return python.read_python(readers, text, place)
    if language == "node":
        return javascript.read_javascript(readers, text, place)
    code.read_code(readers, language, text, place)
    return None


def unwrap_code(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`perl -e TEXT`, `awk TEXT`, `deno eval TEXT`, `node <<EOF`: read the text."""
    taken = options.take(row, call.words[1:])
    texts = taken.values(row.code)
    operands = [*taken.operands, *taken.rest]
    from_input = any(STREAMS.fullmatch(file.text) for file in taken.values(row.dynamic))
    if from_input and call.given is not None:  # awk -f - <<EOF
        texts = [*texts, call.given]
    elif from_input:
        feeds.run_input(readers, call, place)
        readers.unknown(shown(call), place)
    elif row.dynamic and taken.values(row.dynamic):
        pass  # a file's text; the operands are data
    elif row.appended:
        texts = [join_lines([*texts, *operands])]
    elif row.first and not texts:
        texts = operands[:1]
    elif operands and not operands[0].dynamic and operands[0].text in row.subcommand:
        texts += [word for word in operands[1:] if word.dynamic or word.text[:1] != "-"][:1]
    language = row.language or row.name
    modules = _modules(call.words[1:]) if language == "node" else []
    is_module = bool(modules and operands) and _DATA.fullmatch(operands[0].text) is not None
    if not texts and not row.first and not is_module:
        if operands and not STREAMS.fullmatch(operands[0].text):
            feeds.run_file(readers, operands[0], call, place, language)  # its input is data
        else:
            texts = [call.given] if call.given is not None else []
            if call.stdin is None:
                feeds.run_input(readers, call, place, language)
    for text in (*taken.values(row.text), *texts, *modules):
        read(readers, language, text, place)


def _modules(words: tuple[Word, ...]) -> list[Word]:
    """The texts of modules in words: `node --import data:text/javascript,TEXT`."""
    found = []
    for word in words:
        known = word.prefix if word.dynamic else word.text
        match = _DATA.fullmatch(known)
        if match is None:
            continue
        text = unquote(match[2])
        if match[1].endswith(";base64"):
            try:
                text = base64.b64decode(text).decode("utf-8", "replace")
            except (binascii.Error, ValueError):
                continue  # node refuses it as well
        found.append(Word(text, dynamic=word.dynamic))
    return found


def join_lines(texts: list[Word]) -> Word:
    """Several texts that run one after the other as one."""
    dynamic = any(text.dynamic for text in texts)
    return Word("\n".join(text.text for text in texts), dynamic)
