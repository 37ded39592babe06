"""What git(1) runs: pagers, editors, aliases, hooks by settings, helpers by options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from runner.analysis.context import Call, Place, Readers, join, shown
from runner.analysis.wrappers import held, options, table
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Word

_PROGRAMS = frozenset({"--exec-path"})
"""Options that name the folder of git's own programs."""
_TRANSPORT = "ext::"
"""git-remote-ext(1): what follows is a command."""
_CLONED = frozenset({"-c", "--config"})
"""Options of git-clone(1) that set what holds for the new repository."""
_ATTACHED = frozenset({"-O"})
"""Options whose value can only be attached (git-grep(1))."""


def is_alone(row: Wrapper, words: tuple[Word, ...]) -> bool:
    """Whether git surely runs nothing but itself: a subcommand in front, and none of a command."""
    if row.construct is not None or len(words) < 2 or not options.begins_rest(row, words[1]):
        return False
    subcommand, arguments = words[1].text, words[2:]
    if words[0].text.rpartition("/")[2] != "git":  # git-SUBCOMMAND
        return False
    if subcommand == "config" or subcommand in row.commands:
        return False
    if any(_TRANSPORT in word.text for word in arguments):
        return False
    names = row.texts.get(subcommand)
    if names is not None and subcommand == "clone":
        names |= _CLONED
    return names is None or next(_held(names, arguments), None) is None


def unwrap_git(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`git -c alias.x='!CMD'`, `git rebase --exec CMD`, `git bisect run CMD`, `git config …`."""
    base = call.words[0].text.rsplit("/", 1)[-1]
    if base.startswith("git-"):  # git(1) ships its subcommands as programs, too
        words = (Word("git"), Word(base.removeprefix("git-")), *call.words[1:])
        readers.command(replace(call, words=words, place=place, assignments=()))
        return
    taken = options.take(row, call.words[1:])
    sure = held.settings_and_texts(readers, row, taken, place)
    sure = sure or any(path.text for path in taken.values(_PROGRAMS))
    # `url.ext::CMD.insteadOf=x` makes a command of an address.
    sure = sure or any(_TRANSPORT in each.text for each in taken.values(row.settings))
    if sure or taken.doubtful:
        readers.unknown(shown(call), place if sure else place.in_doubt)
    for folder in taken.values(row.chdir):
        readers.found.add(Call((Word("cd"), folder), place))
    rest = taken.rest
    if not rest or rest[0].dynamic or taken.stopped:
        return
    subcommand, arguments = rest[0].text, rest[1:]
    for text in _held(row.texts.get(subcommand, table.NO_OPTIONS), arguments):
        readers.shell(text, replace(place, language="sh"))
    for each in _held(_CLONED, arguments) if subcommand == "clone" else ():
        held.setting(readers, row, each, place)
    for word in arguments:
        _address(readers, word, place)
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
        _kept(readers, row, arguments, place)


def _held(names: frozenset[str], arguments: tuple[Word, ...]) -> Iterator[Word]:
    """Values of the options among `names`: apart, attached, in a bundle or by a shortened name."""
    letters = "".join(name[1] for name in names if len(name) == len("-x"))
    bundle = re.compile(rf"-([A-Za-z]{{0,8}}?)([{letters}])(.*)", re.DOTALL) if letters else None
    for word, following in zip(arguments, (*arguments[1:], Word("")), strict=False):
        known = word.prefix if word.dynamic else word.text
        name, equals, value = known.partition("=")
        short = bundle.fullmatch(known) if bundle and not known.startswith("--") else None
        if short is not None:
            attached = short[3]
            apart = not word.dynamic and f"-{short[2]}" not in _ATTACHED
        elif len(name) > len("--x") and any(each.startswith(name) for each in names):
            attached, apart = value, not equals and not word.dynamic
        else:
            continue
        if attached or word.dynamic:
            yield Word(attached) if not word.dynamic else Word(word.text, True, attached)
        elif apart and following.text:
            yield following


def _address(readers: Readers, word: Word, place: Place) -> None:
    """`ext::CMD`: the command's words stand between blanks, `%` in front of what is put in."""
    known = word.prefix if word.dynamic else word.text
    if not known.startswith((_TRANSPORT, f"url.{_TRANSPORT}")):
        return
    if word.dynamic or not known.startswith(_TRANSPORT):
        readers.unknown(word.text, place)
        return
    command = known.removeprefix(_TRANSPORT)
    words = tuple(
        Word(piece, True, piece.partition("%")[0]) if "%" in piece else Word(piece)
        for piece in command.split()
    )
    if words:
        # Quotes are none to git. Some write them all the same, and mean a shell's.
        place = replace(place, language="sh", advice=True)
        readers.command(Call(words, place))
        readers.shell(Word(command), place)


def _kept(readers: Readers, row: Wrapper, arguments: tuple[Word, ...], place: Place) -> None:
    """`git config KEY CMD`."""
    operands = [w for w in arguments if w.dynamic or not w.text.startswith("-")]
    operands = operands[1:] if operands[:1] == [Word("set")] else operands
    if len(operands) > 1:
        setting = f"{operands[0].text}={operands[1].text}"
        dynamic = operands[1].dynamic
        # An alias that is kept is not called yet.
        own = place.in_doubt if setting.lower().startswith("alias.") else place
        held.setting(readers, row, Word(setting, dynamic, prefix=setting), own)
