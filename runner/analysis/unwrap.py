"""What a command runs: wrappers are taken off by the table, one layer a call."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase

from runner.analysis import find, languages, options, plain, sql, table
from runner.analysis.context import (
    DEPTH_LIMIT,
    Call,
    Place,
    Readers,
    join,
    placeholder,
    shown,
    until,
)
from runner.analysis.options import Taken
from runner.analysis.table import Wrapper
from runner.model.intent import Assignment, Word

_STREAMS = re.compile(r"-|/dev/stdin|/dev/fd/.*|/proc/(?:self|\d+|thread-self)/fd/.*")
"""Script names that are an open descriptor: what is in it can't be told."""
SUBSCRIPT = re.compile(r"\A(?>.*?\w\[).*?(?:\$\(|`)", re.DOTALL)
"""Text that runs a command once it is evaluated as arithmetic: `a[$(cmd)]`.

Looked for behind the first subscript only, so that its time grows with the text and not faster.
"""
_SUBSHELLS = {"sh": "sh", "dash": "sh", "ash": "sh", "posh": "sh", "yash": "sh", "bash": "bash",
              "rbash": "bash", "zsh": "zsh"}  # fmt: skip
_APPENDED = Word("…", dynamic=True)
"""Stands for the words that xargs and its like append."""


def unwrap(readers: Readers, call: Call) -> None:
    """Note what `call` runs, and look into that in turn."""
    _variables(readers, call.assignments, call.place)
    if not call.words or call.words[0].dynamic:
        return
    rows = table.load()
    if call.words[0].text in rows.subscripts:
        for word in call.words[1:]:
            if not word.dynamic and SUBSCRIPT.search(word.text):
                readers.unknown(word.text, call.place.behind(call.words[0].text))
    row = rows.find(call.words[0].text)
    if row is None:
        return
    if call.place.depth >= DEPTH_LIMIT:
        readers.found.fail(
            f"line {call.place.line} nests more than {DEPTH_LIMIT} commands in each other"
        )
        return
    base = call.words[0].text.rsplit("/", 1)[-1]
    name = row.name if row.kind in {"python", "code", "git"} else base
    place = call.place.behind(name)
    _KINDS.get(row.kind, _plain)(readers, row, call, place)


def _plain(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    words = call.words[1:]
    taken = options.take(row, words)
    if _settings_and_texts(readers, row, taken, place):
        readers.unknown(shown(call), place)
    if taken.stopped:
        return
    rest = until(taken.rest, row.until)
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
            readers.shell(text, _texts(place, row))
        rest = ()
    elif row.rest == "none":
        rest = ()
    if not rest:
        _nothing_left(readers, row, taken, call, place)
        return
    looks_like_option = not rest[0].dynamic and rest[0].text[:1] == "-" and len(rest[0].text) > 1
    if taken.doubtful or looks_like_option:
        readers.unknown(shown(call), place.in_doubt)
    _rest(readers, row, taken, call, rest, place=place)


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
    if row.rest == "text" and rest[-1] is _APPENDED:
        text = join(rest[:-1])
        words = None if text.dynamic or "{" in text.text else plain.words(text.text)
        if words is not None:
            readers.command(Call((*words, _APPENDED), place))
        else:
            readers.unknown(text.text, place.in_doubt)
            readers.shell(text, replace(place, language="sh", advice=True))
    elif row.rest == "text":
        readers.shell(join(rest), _texts(place, row))
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


def _settings_and_texts(readers: Readers, row: Wrapper, taken: Taken, place: Place) -> bool:
    """Read the options that hold commands; True when one of them makes anything possible."""
    for text in taken.values(row.text):
        readers.shell(text, _texts(place, row))
    for setting in taken.values(row.settings):
        _setting(readers, row, setting, place)
    return bool(taken.values(row.dynamic))


def _setting(readers: Readers, row: Wrapper, setting: Word, place: Place) -> None:
    known = setting.prefix if setting.dynamic else setting.text
    separator = re.search(r"[=\s]", known.strip())
    key = (known.strip()[: separator.start()] if separator else known).lower()
    if setting.dynamic and separator is None:
        readers.unknown(setting.text, place.in_doubt)
        return
    if separator is None or not any(fnmatchcase(key, pattern) for pattern in row.keys):
        return
    value = known.strip()[separator.end() :].lstrip("= ").strip().strip('"')
    if setting.dynamic:
        readers.unknown(setting.text, place)
    elif key.startswith("alias.") or key.endswith(".helper"):
        if value.startswith("!"):
            readers.shell(Word(value[1:]), replace(place, language="sh"))
    elif value and value.lower() not in {"true", "false", "none"}:
        readers.shell(Word(value), replace(place, language="sh"))


def _shell(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`sh -c TEXT`, `sh FILE`, `sh` (dash(1), bash(1) INVOCATION)."""
    name = place.via[-1]
    place = replace(place, language=_SUBSHELLS.get(name, "ksh"))
    from_text = from_stdin = False
    words = call.words[1:]
    index = 0
    while index < len(words):
        word = words[index]
        known = word.prefix if word.dynamic else word.text
        if word.dynamic and options.may_be_option(word):
            # `bash "$script"` most likely runs a file, whose text is as unknown as any script's.
            sure = from_text or word.text.lstrip('"').startswith("<(")
            readers.unknown(shown(call), place if sure else place.in_doubt)
            return
        if known in ("-", "--"):
            index += 1
            break
        if known in row.stop:
            return
        long_name, equals, _ = known.partition("=")
        if long_name in row.values:
            index += 1 if equals else 2
            continue
        if known.startswith("--") and known not in row.flags:
            readers.unknown(shown(call), place.in_doubt)
        elif not known.startswith("--") and known[:1] in ("-", "+") and len(known) > 1:
            from_text = from_text or (known[0] == "-" and "c" in known)
            from_stdin = from_stdin or (known[0] == "-" and "s" in known)
            # `-o pipefail`, `-eo pipefail`, `-O extglob`: a name follows.
            index += known.count("o") + known.count("O")
        elif not known.startswith("--"):
            break
        index += 1
    _shell_operand(readers, call, words[index:], place, from_text=from_text, stdin=from_stdin)


def _shell_operand(
    readers: Readers, call: Call, rest: tuple[Word, ...], place: Place, *, from_text: bool,
    stdin: bool,
) -> None:  # fmt: skip
    if from_text:
        if rest:
            readers.shell(rest[0], place)
        return
    script = rest[0] if rest and not stdin else None
    if script is None or (_STREAMS.fullmatch(script.text) and not script.dynamic):
        if call.stdin is not None and (script is None or script.text in ("-", "/dev/stdin")):
            readers.shell(call.stdin, place)
        else:
            readers.unknown(f"{place.via[-1]} (reads commands from its input)", place)
    elif script.dynamic and script.text.startswith(("<(", '"<(')):
        readers.unknown(shown(call), place)


def _foreign_shell(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:  # noqa: ARG001
    """A shell whose language is not read: only a script by its name is as good as a program."""
    words = call.words[1:]
    if not words or options.may_be_option(words[0]) or words[0].dynamic:
        readers.unknown(shown(call), place)


def _source(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:  # noqa: ARG001
    words = call.words[1:]
    if words and not words[0].dynamic and words[0].text == "--":
        words = words[1:]
    if not words:
        return
    if not words[0].dynamic and _STREAMS.fullmatch(words[0].text) and call.stdin is not None:
        readers.shell(call.stdin, place)
    elif words[0].dynamic and not words[0].text.lstrip('"').startswith("<("):
        # A file, most likely: what is in one is not read here even if its name is known.
        readers.unknown(shown(call), place.in_doubt)
    elif words[0].dynamic or _STREAMS.fullmatch(words[0].text):
        readers.unknown(shown(call), place)


def _alias(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:  # noqa: ARG001
    """Each value is text that stands in front of whatever follows the alias."""
    for word in call.words[1:]:
        if word.dynamic:
            known = word.prefix.partition("=")[2]
            readers.shell(replace(word, prefix=known), place)
            continue
        _, equals, value = word.text.partition("=")
        if not equals or not value.strip():
            continue
        if re.search(r"[^\w ./:@%+,=-]", value):
            # It may begin what only the text behind it ends.
            readers.unknown(value, place.in_doubt)
            readers.shell(Word(value), place)
        else:
            words = tuple(Word(piece) for piece in value.split())
            readers.command(Call((*words, _APPENDED), place))


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
        if not text.startswith("--") and "c" in text and not text.startswith(("-W", "-X", "-m")):
            attached = text[text.index("c") + 1 :]
            if attached:
                readers.python(Word(attached), place)
            elif index + 1 < len(words):
                readers.python(words[index + 1], place)
            return
        if text.startswith("-m"):
            return
        index += 1
    rest = words[index:]
    if call.stdin is not None and (not rest or _STREAMS.fullmatch(rest[0].text)):
        readers.python(call.stdin, place)


def _git(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    taken = options.take(row, call.words[1:])
    sure = _settings_and_texts(readers, row, taken, place)
    if sure or taken.doubtful:
        readers.unknown(shown(call), place if sure else place.in_doubt)
    for folder in taken.values(row.chdir):
        readers.found.add(Call((Word("cd"), folder), place))
    rest = taken.rest
    if not rest or rest[0].dynamic or taken.stopped:
        return
    subcommand, arguments = rest[0].text, rest[1:]
    names = row.texts.get(subcommand, table.NO_OPTIONS)
    for option, following in zip(arguments, (*arguments[1:], Word("")), strict=False):
        name, equals, value = option.text.partition("=")
        if name in names and not option.dynamic:
            text = Word(value) if equals else following
            if text.text:
                readers.shell(text, replace(place, language="sh"))
    verbs = row.commands.get(subcommand, table.NO_OPTIONS)
    for position, word in enumerate(arguments):
        if word.text in verbs and not word.dynamic:
            inner = tuple(w for w in arguments[position + 1 :] if w.text != "--recursive")
            if subcommand == "submodule" and inner:
                readers.shell(join(inner), replace(place, language="sh"))
            elif inner:
                readers.command(Call(inner, place))
            break
    if subcommand == "config":
        operands = [w for w in arguments if w.dynamic or not w.text.startswith("-")]
        operands = operands[1:] if operands[:1] == [Word("set")] else operands
        if len(operands) > 1:
            setting = f"{operands[0].text}={operands[1].text}"
            dynamic = operands[1].dynamic
            _setting(readers, row, Word(setting, dynamic, prefix=setting), place)


_KINDS: dict[str, Callable[[Readers, Wrapper, Call, Place], None]] = {
    "shell": _shell, "foreign_shell": _foreign_shell, "source": _source, "alias": _alias,
    "find": find.unwrap_find, "python": _python, "git": _git,
    "code": languages.unwrap_code, "sql": sql.unwrap_sql,
}  # fmt: skip


def _variables(readers: Readers, assignments: tuple[Assignment, ...], place: Place) -> None:
    """Variables whose value is run by what follows."""
    rows = table.load()
    for each in assignments:
        inner = place.behind(each.name)
        if inner.depth > DEPTH_LIMIT:
            continue
        if each.name in rows.text_variables and each.value.text:
            readers.shell(each.value, replace(inner, language="sh"))
        elif each.name in rows.prompt_variables and (
            "$(" in each.value.text or "`" in each.value.text
        ):
            # Only a shell that somebody types into shows a prompt.
            readers.unknown(each.value.text, inner.in_doubt)
        elif each.name.startswith("BASH_FUNC_") or (
            each.name in rows.file_variables and each.value.text
        ):
            readers.unknown(f"{each.name}={each.value.text}", inner)
        elif not each.value.dynamic and SUBSCRIPT.search(each.value.text):
            # Arithmetic on it later runs what stands in the subscript.
            readers.unknown(each.value.text, inner)


def _replaced(rest: tuple[Word, ...], taken: Taken, row: Wrapper) -> tuple[Word, ...]:
    marks = [value.text or "{}" for value in taken.values(row.replace)]
    if not marks:
        return (*rest, _APPENDED)
    for mark in marks:
        rest = tuple(placeholder(word, mark) for word in rest)
    return rest


def _texts(place: Place, row: Wrapper) -> Place:
    return place if row.language is None else replace(place, language=row.language)


def _host(word: Word) -> Word:
    if word.dynamic:
        return word
    text = word.text.removeprefix("ssh://").rpartition("@")[2]
    return Word(text.partition(":")[0].partition("/")[0])
