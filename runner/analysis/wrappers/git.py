"""What git(1) runs: pagers, editors, aliases, hooks by settings, helpers by options."""

from __future__ import annotations

from dataclasses import replace

from runner.analysis.context import Call, Place, Readers, join, shown
from runner.analysis.wrappers import held, options, table
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Word


def is_alone(row: Wrapper, words: tuple[Word, ...]) -> bool:
    """Whether git surely runs nothing but itself: a subcommand in front, and none of a command."""
    if row.construct is not None or len(words) < 2 or not options.begins_rest(row, words[1]):
        return False
    subcommand = words[1].text
    if subcommand == "config" or subcommand in row.commands:
        return False
    names = row.texts.get(subcommand)
    return names is None or names.isdisjoint([w.text.partition("=")[0] for w in words[2:]])


def unwrap_git(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`git -c alias.x='!CMD'`, `git rebase --exec CMD`, `git bisect run CMD`, `git config …`."""
    taken = options.take(row, call.words[1:])
    sure = held.settings_and_texts(readers, row, taken, place)
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
            held.setting(readers, row, Word(setting, dynamic, prefix=setting), place)
