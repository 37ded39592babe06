"""What a command runs: wrappers are taken off by the table, one layer a call."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from runner.analysis import feeds, languages
from runner.analysis.context import (
    APPENDED,
    DEPTH_LIMIT,
    STREAMS,
    Call,
    Place,
    Readers,
    join,
    placeholder,
    shown,
    until,
)
from runner.analysis.shell import plain
from runner.analysis.sql import reader as sql
from runner.analysis.wrappers import (
    appended,
    find,
    git,
    held,
    make,
    options,
    scripted,
    sed,
    shells,
    tar,
    variables,
)
from runner.analysis.wrappers.options import Taken
from runner.analysis.wrappers.table import Table, Wrapper
from runner.model.intent import Word

SUBSCRIPT = variables.SUBSCRIPT

_ITSELF = re.compile(r"/proc/(?:self|thread-self|\d+)/exe")
"""proc(5): the program that runs a process, such as the shell itself."""
_PYTHON_TEXT = re.compile(r"-[A-VYZabd-ln-z?]*([cm])(.*)", re.DOTALL)
"""`-c TEXT` and `-m MODULE` of python(1), alone or at the end of a bundle; `-W` and `-X` aside."""


def is_alone(words: tuple[Word, ...], rows: Table) -> bool:
    """Whether a command of these literal words is surely all there is, with nothing around it.

    It runs no other and is no construct. False where that takes a closer look: then `unwrap` tells.
    """
    name = words[0].text
    if name in rows.subscripts or _ITSELF.fullmatch(name):
        return False
    row = rows.find(name)
    return row is None or (row.kind == "git" and git.is_alone(row, words))


def unwrap(readers: Readers, call: Call) -> None:
    """Note what `call` runs, and look into that in turn."""
    variables.read(readers, call.assignments, call.place)
    if not call.words or call.words[0].dynamic:
        return
    rows = readers.table
    if call.words[0].text in rows.subscripts:
        for word in call.words[1:]:
            if not word.dynamic and SUBSCRIPT.search(word.text):
                readers.unknown(word.text, call.place.behind(call.words[0].text))
    if "/" in call.words[0].text:
        feeds.run_file(readers, call.words[0], call, call.place, "program")
        if _ITSELF.fullmatch(call.words[0].text):
            readers.unknown(shown(call), call.place)
    row = rows.find(call.words[0].text)
    if row is None:
        return
    if row.construct is not None:
        readers.found.construct(row.construct, call.place)
    if call.place.depth >= DEPTH_LIMIT:
        readers.found.fail(
            f"line {call.place.line} nests more than {DEPTH_LIMIT} commands in each other"
        )
        return
    base = call.words[0].text.rsplit("/", 1)[-1]
    place = call.place.behind(row.known_as or base)
    _KINDS.get(row.kind, _plain)(readers, row, call, place)


def _plain(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    taken = options.take(row, call.words[1:])
    if held.settings_and_texts(readers, row, taken, place):
        readers.unknown(shown(call), place)
    if taken.stopped:
        return
    rest = _behind(row, taken)
    if row.subcommand:
        operands = [*taken.operands, *rest]
        if not operands or (operands[0].text not in row.subcommand):
            return
        rest = rest[1:]
        place = replace(place, via=(*place.via[:-1], row.name))
        _inner_lenient(readers, call, rest, place)
        return
    if row.host and taken.operands:
        readers.found.hosts.append(_host(taken.operands[0]))
    after = rest[0] if rest else None
    if after is not None and not after.dynamic and after.text in row.text_after:
        for text in rest[1:2]:
            readers.shell(text, held.texts(place, row))
        rest = ()
    elif row.rest == "none":
        rest = ()
    if not rest and row.default is not None:
        rest = (Word(row.default),)
    if row.appended and _appends(readers, row, taken, call, rest, place=place):
        return
    if not rest:
        _nothing_left(readers, row, taken, call, place)
        return
    looks_like_option = not rest[0].dynamic and rest[0].text[:1] == "-" and len(rest[0].text) > 1
    if taken.doubtful or looks_like_option:
        readers.unknown(shown(call), place.in_doubt)
    _rest(readers, row, taken, call, rest, place=place)


def _appends(
    readers: Readers,
    row: Wrapper,
    taken: Taken,
    call: Call,
    rest: tuple[Word, ...],
    *,
    place: Place,
) -> bool:
    """Read what xargs or parallel run with words that stand in the text; False: they don't."""
    if row.name == "parallel":
        texts = appended.parallel(row, taken, call, rest)
        for text in texts or ():
            readers.shell(Word(text), replace(held.texts(place, row), fed=None, piped=None))
        return texts is not None
    runs = appended.xargs(row, taken, call, rest)
    for words in runs or ():
        readers.command(Call(tuple(words), replace(place, fed=None, piped=None), call.assignments))
    return runs is not None


def _behind(row: Wrapper, taken: Taken) -> tuple[Word, ...]:
    """The words of the command, behind a wrapper's options and operands."""
    rest = until(taken.rest, row.until)
    if row.interspersed and row.rest == "command" and not rest:
        rest = tuple(taken.operands[1:])
    if row.operands and rest[:1] == (Word("--"),):
        rest = rest[1:]
    return (*taken.values(row.exec)[-1:], *rest)


def _tar(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    words = (call.words[0], *tar.in_new_style(call.words[1:]))
    _plain(readers, replace(row, kind="lenient"), replace(call, words=words), place)


def _subcommands(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`docker exec …`: the row of that name tells what stands behind the subcommand."""
    taken = options.take(row, call.words[1:])
    held.settings_and_texts(readers, row, taken, place)
    rest = () if taken.stopped else taken.rest
    if taken.doubtful and rest:
        readers.unknown(shown(call), place.in_doubt)
    start = 0
    for end, word in enumerate((*rest, None)):  # `tmux new -d ; send-keys …`
        if word is None or (word.text in row.until and not word.dynamic):
            words = (call.words[0], *rest[start:end])
            _subcommand(readers, row, replace(call, words=words), place)
            start = end + 1


def _subcommand(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`words` of `call`: the command, its subcommand, and the subcommand's own."""
    if len(call.words) < 2:
        return
    subcommand, rest = call.words[1], call.words[2:]
    if subcommand.dynamic:
        readers.unknown(shown(call), place.in_doubt)
        return
    rows = readers.table.exact
    base = call.words[0].text.rsplit("/", 1)[-1]
    inner = rows.get(f"{base} {subcommand.text}") or rows.get(f"{row.name} {subcommand.text}")
    if inner is not None:
        words = (Word(inner.name), *rest)
        _KINDS.get(inner.kind, _plain)(readers, inner, replace(call, words=words), place)


def _code(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`perl -e TEXT`; `bun x CMD`, whose row tells what stands behind the subcommand."""
    base = call.words[0].text.rsplit("/", 1)[-1]
    rest = options.take(row, call.words[1:]).rest if row.subcommand else ()
    if rest and f"{base} {rest[0].text}" in readers.table.exact:
        inner = replace(place, via=(*place.via[:-1], base))
        _subcommand(readers, row, replace(call, words=(call.words[0], *rest)), inner)
    else:
        languages.unwrap_code(readers, row, call, place)


def _inner_lenient(readers: Readers, call: Call, rest: tuple[Word, ...], place: Place) -> None:
    """`uv run CMD`: options of the subcommand that the table does not know make it doubtful."""
    if rest and options.may_be_option(rest[0]):
        readers.unknown(shown(call), place if rest[0].dynamic else place.in_doubt)
    elif rest:
        readers.command(replace(call, words=rest, place=place, assignments=()))


def _nothing_left(readers: Readers, row: Wrapper, taken: Taken, call: Call, place: Place) -> None:
    """No command behind the wrapper: some start a shell that reads its standard input."""
    if row.lenient or taken.values(row.text):
        return
    starts_shell = row.bare or any(option in row.interactive for option, _ in taken.options)
    if starts_shell and call.stdin is not None:
        readers.shell(call.stdin, replace(place, language="sh"))
    elif starts_shell or taken.doubtful:
        if starts_shell:
            feeds.run_input(readers, call, place)
        readers.unknown(shown(call), place if starts_shell else place.in_doubt)


def _rest(
    readers: Readers,
    row: Wrapper,
    taken: Taken,
    call: Call,
    rest: tuple[Word, ...],
    *,
    place: Place,
) -> None:
    if row.appended:
        rest = _replaced(rest, taken, row)
    if row.rest == "text" and rest[-1] is APPENDED:
        text = join(rest[:-1])
        words = None if text.dynamic or "{" in text.text else plain.words(text.text)
        if words is not None:
            readers.command(Call((*words, APPENDED), place))
        else:
            readers.unknown(text.text, place.in_doubt)
            readers.shell(text, replace(place, language="sh", advice=True))
    elif row.rest == "text":
        readers.shell(join(rest), held.texts(place, row))
    elif row.rest == "first_text":
        # `trap - SIG`, `trap '' SIG` and `trap SIG` take a handler away.
        if len(rest) > 1 and (rest[0].dynamic or rest[0].text not in ("", "-")):
            readers.shell(rest[0], place)
    else:
        for folder in taken.values(row.chdir):
            readers.found.add(Call((Word("cd"), folder), place))
        readers.command(
            Call(
                words=rest,
                place=place,
                assignments=(*call.assignments, *taken.assignments),
                redirects=call.redirects,
                stdin=call.stdin,
            )
        )


def _python(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    words = call.words[1:]
    index = 0
    while index < len(words):
        text = words[index].text
        if words[index].dynamic or not text.startswith("-") or text == "-":
            break
        if text in row.values:
            index += 2
            continue
        short = _PYTHON_TEXT.fullmatch(text)
        if short is not None:
            following = words[index + 1 :]
            argument = Word(short[2])
            if not argument.text and following:
                argument, following = following[0], following[1:]
            if short[1] == "m":
                _module(readers, argument.text, replace(call, words=following), place)
            elif argument.text:
                readers.python(argument, place)
            return
        index += 1
    rest = words[index:]
    if rest and not STREAMS.fullmatch(rest[0].text):
        feeds.run_file(readers, rest[0], call, place, "python")
        return
    if call.given is not None:
        readers.python(call.given, place)
    if call.stdin is None:
        feeds.run_input(readers, call, place, "python")


def _module(readers: Readers, name: str, call: Call, place: Place) -> None:
    """`python -m MODULE …`, where the module runs code: its row is called so."""
    row = readers.table.exact.get(f"python -m {name}")
    if row is not None:
        words = (Word(row.name), *call.words)
        _KINDS.get(row.kind, _plain)(readers, row, replace(call, words=words), place)


_KINDS: dict[str, Callable[[Readers, Wrapper, Call, Place], None]] = {
    "shell": shells.unwrap_shell, "foreign_shell": shells.unwrap_foreign_shell,
    "source": shells.unwrap_source, "alias": shells.unwrap_alias, "find": find.unwrap_find,
    "python": _python, "code": _code, "sql": sql.unwrap_sql,
    "git": git.unwrap_git, "sed": sed.unwrap_sed, "subcommands": _subcommands,
    "make": make.unwrap_make, "tar": _tar, "scripted": scripted.unwrap_scripted,
}  # fmt: skip


def _replaced(rest: tuple[Word, ...], taken: Taken, row: Wrapper) -> tuple[Word, ...]:
    marks = [value.text or "{}" for value in taken.values(row.replace)]
    if not marks:
        return (*rest, APPENDED)
    for mark in marks:
        rest = tuple(placeholder(word, mark) for word in rest)
    return rest


def _host(word: Word) -> Word:
    if word.dynamic:
        return word
    text = word.text.removeprefix("ssh://").rpartition("@")[2]
    return Word(text.partition(":")[0].partition("/")[0])
