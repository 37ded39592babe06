"""What find(1) and fd(1) run and remove: `-exec`, `-delete` and their kin."""

from __future__ import annotations

from dataclasses import replace

from runner.analysis.context import (
    APPENDED,
    Call,
    Place,
    Readers,
    is_glob,
    placeholder,
    shown,
    until,
)
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Access, PathUse, Word

_FOLDERS_LIMIT = 4
"""More starting folders of a find than this are not told apart."""
_NO_TESTS = frozenset({"-maxdepth", "-printf", "-regextype", "-D", "-files0-from"})
"""Options of find's with a value that leave nothing out."""


def unwrap_find(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`find … -exec CMD ; -delete -fprint FILE` (find(1)); fd's `-x CMD`."""
    words = call.words[1:]
    first = next((i for i, w in enumerate(words) if _is_expression(w)), len(words))
    if _is_doubtful(row, words, first):
        readers.unknown(shown(call), place.in_doubt)
    index = 0
    tested = False
    while index < len(words):
        word = words[index]
        index += 1
        tested = tested or (index > first and _is_test(row, words[index - 1 : index + 1]))
        if word.dynamic:
            continue
        name, attached, program = word.text.partition("=")  # fd's `--exec=CMD`
        if word.text in row.exec or (attached and name in row.exec):
            command = until(words[index:], frozenset({";"}))
            if attached:
                command = (Word(program), *command)
            together = False
            for position, part in enumerate(command[:-1]):
                if part.text == "{}" and command[position + 1].text == "+":
                    command = command[: position + 1]
                    together = True
                    break
            index += len(command) + (not attached)
            if together and word.text == "-execdir":
                command = (*command[:-1], APPENDED)
            if row.appended and command and not any("{" in part.text for part in command):
                command = (*command, APPENDED)
            folders = words[:first] or (Word("."),)
            for inner in _found_names(command, () if word.text == "-execdir" else folders):
                own = replace(place, doubtful=place.doubtful or (tested and _names(inner, folders)))
                readers.command(replace(call, words=inner, place=own, assignments=()))
        elif word.text in row.delete:
            folders = words[:first] or (Word("."),)
            own = replace(place, doubtful=place.doubtful or tested)
            readers.command(Call((Word("rm"), Word("-r"), *folders), own))
        elif word.text in row.writes and index < len(words):
            use = PathUse(words[index], Access.WRITE)
            readers.found.add(Call((), place, redirects=(use,)))


def _found_names(command: tuple[Word, ...], folders: tuple[Word, ...]) -> list[tuple[Word, ...]]:
    """The command of `-exec` for what `{}` can be: a folder itself, and names below it.

    `folders` empty: anything.
    """
    if not command:
        return []
    known = [w for w in folders if not w.dynamic and not w.text.startswith("-")]
    if len(known) != len(folders) or not 0 < len(known) <= _FOLDERS_LIMIT:
        return [tuple(placeholder(part, "{}") for part in command)]
    variants = []
    for itself in known:
        below = Word("{}", dynamic=True, prefix=itself.text.rstrip("/") + "/")
        for name in (below, itself):
            words = tuple(
                name if part.text == "{}" and not part.dynamic else placeholder(part, "{}")
                for part in command
            )
            if words not in variants:
                variants.append(words)
    return variants


def _is_test(row: Wrapper, words: tuple[Word, ...]) -> bool:
    """Whether these two words of find's are a test that may exclude its starting folder."""
    name, value = words[0], words[-1]
    if name.dynamic or name.text not in row.values - _NO_TESTS:
        return False
    return not (name.text in ("-type", "-xtype") and value.text == "d")


def _names(command: tuple[Word, ...], folders: tuple[Word, ...]) -> bool:
    """Whether a command is the variant for a folder itself, which tests in front may exclude."""
    return any(word is folder for word in command for folder in folders)


def _is_doubtful(row: Wrapper, words: tuple[Word, ...], first: int) -> bool:
    """Whether a dynamic word could be an action.

    As the value of a test it can't. Among the folders one that stays one word can't be `-exec`
    either, for that needs a terminator: none may stand free, nor a second dynamic word.
    """
    leading = 0
    free = {";", "+", "{}"}
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.dynamic:
            if word.text in row.exec:
                index += len(until(words[index:], frozenset({";", "+"}))) + 1
            elif word.text in row.values | row.writes:
                index += 1
                if index <= len(words) and words[index - 1].dynamic and words[index - 1].many:
                    return True
            elif word.text in free:
                leading += 1
        elif is_glob(word) and not word.prefix:
            leading += not word.suffix
        elif word.prefix and not word.prefix.startswith("-"):
            continue
        elif word.many or word.prefix or index > first:
            return True
        else:
            leading += 1
    return leading > 1


def _is_expression(word: Word) -> bool:
    return not word.dynamic and (word.text[:1] in ("-", "(", "!") or word.text == ")")
