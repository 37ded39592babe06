"""Variables whose value is run by what follows: `PAGER=CMD`, `NODE_OPTIONS=--require=X`."""

from __future__ import annotations

import re
from dataclasses import replace

from runner.analysis.context import DEPTH_LIMIT, Place, Readers
from runner.analysis.shell import plain
from runner.analysis.wrappers import held, options, table
from runner.model.intent import Assignment, Word

SUBSCRIPT = re.compile(r"\A(?>.*?\w\[).*?(?:\$\(|`)", re.DOTALL)
"""Text that runs a command once it is evaluated as arithmetic: `a[$(cmd)]`.

Looked for behind the first subscript only, so that its time grows with the text and not faster.
"""
_CONFIG_KEY = re.compile(r"GIT_CONFIG_KEY_(\d+)")
_TRACE = "PS4"
_LESS_PIPE = re.compile(r"\|{0,2}-?")
"""less(1), INPUT PREPROCESSOR: bars and a hyphen in front of the command are not part of it."""


def read(readers: Readers, assignments: tuple[Assignment, ...], place: Place) -> None:
    """Note what the values of these variables run."""
    if not assignments:
        return
    rows = readers.table
    _git_settings(readers, assignments, place)
    for each in assignments:
        inner = place.behind(each.name)
        if inner.depth > DEPTH_LIMIT:
            continue
        row = rows.exact.get(each.name)
        if row is not None and row.kind == "variable":
            _options(readers, row, each, inner)
        elif each.name in rows.text_variables and each.value.text:
            readers.shell(_command(each), replace(inner, language="sh"))
        elif each.name in rows.prompt_variables and (
            "$(" in each.value.text or "`" in each.value.text
        ):
            # Only a shell that somebody types into shows a prompt; `set -x` shows PS4 in any.
            if each.name == _TRACE and not each.value.dynamic:
                readers.shell(_shown(each.value), replace(inner, language="bash"))
            readers.unknown(each.value.text, inner.in_doubt)
        elif each.name.startswith("BASH_FUNC_") or (
            each.name in rows.file_variables and each.value.text
        ):
            readers.unknown(f"{each.name}={each.value.text}", inner)
        elif not each.value.dynamic and SUBSCRIPT.search(each.value.text):
            # Arithmetic on it later runs what stands in the subscript.
            readers.unknown(each.value.text, inner)


def _shown(prompt: Word) -> Word:
    """A prompt as text that expands alike: as within double quotes (bash(1), PROMPTING)."""
    return Word(': "' + prompt.text.replace('"', '\\"') + '"')


def _command(variable: Assignment) -> Word:
    if not variable.name.startswith("LESS") or variable.value.dynamic:
        return variable.value
    text = variable.value.text
    mark = _LESS_PIPE.match(text)
    return Word(text[mark.end() :] if mark else text)


def _options(readers: Readers, row: table.Wrapper, variable: Assignment, place: Place) -> None:
    """A variable that holds options of a program; its row tells which of them run something."""
    value = variable.value
    if not value.text:
        return
    words = None if value.dynamic else plain.words(f"{variable.name} {value.text}")
    if words is None:
        readers.unknown(f"{variable.name}={value.text}", place.in_doubt)
        return
    taken = options.take(row, words[1:])
    if held.settings_and_texts(readers, row, taken, place):
        readers.unknown(f"{variable.name}={value.text}", place)


def _git_settings(readers: Readers, assignments: tuple[Assignment, ...], place: Place) -> None:
    """`GIT_CONFIG_KEY_0=core.pager GIT_CONFIG_VALUE_0=CMD` (git-config(1), ENVIRONMENT)."""
    values = {each.name: each.value for each in assignments}
    row = readers.table.exact["git"]
    for name, key in values.items():
        match = _CONFIG_KEY.fullmatch(name)
        if name.startswith("GIT_CONFIG_VALUE_") and name.replace("VALUE", "KEY") not in values:
            readers.unknown(f"{name}={key.text}", place.in_doubt)
        value = values.get(f"GIT_CONFIG_VALUE_{match[1]}") if match else None
        if value is None or place.depth >= DEPTH_LIMIT:
            continue
        if key.dynamic:
            readers.unknown(f"{name}={key.text}", place.behind(name).in_doubt)
            continue
        known = value.prefix if value.dynamic else value.text
        both = Word(f"{key.text}={value.text}", value.dynamic, f"{key.text}={known}")
        held.setting(readers, row, both, place.behind(name))
