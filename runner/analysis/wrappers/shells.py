"""Shells as commands: `sh -c TEXT`, `sh FILE`, `sh` at the end of a pipe, `source`, `alias`."""

from __future__ import annotations

import re
from dataclasses import replace

from runner.analysis import feeds
from runner.analysis.context import APPENDED, STREAMS, Call, Place, Readers, shown
from runner.analysis.wrappers import options
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Access, Word

_SUBSHELLS = {"sh": "sh", "dash": "sh", "ash": "sh", "posh": "sh", "yash": "sh", "bash": "bash",
              "rbash": "bash", "zsh": "zsh"}  # fmt: skip
_TAKES_INPUT = frozenset(
    {"read", "mapfile", "readarray", "head", "dd", "sed", "gsed", "awk", "gawk", "mawk", "grep",
     "line", "select", "python", "python3", "perl", "ruby", "ssh", "xargs", "nc", "cut", "busybox"}
)  # fmt: skip
"""Commands that may leave a part of their input for the next."""
_TAKES_PARTS = re.compile(r"dd$|-[A-Za-z]*[nNdc]\d*$|--bytes.*")
"""Words by which they take less than lines."""


def unwrap_shell(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """`sh -c TEXT`, `sh FILE`, `sh` (dash(1), bash(1) INVOCATION)."""
    name = place.via[-1]
    place = replace(place, language=row.language or _SUBSHELLS.get(name, "ksh"))
    from_text = from_stdin = False
    words = call.words[1:]
    index = 0
    while index < len(words):
        word = words[index]
        known = word.prefix if word.dynamic else word.text
        if word.dynamic and options.may_be_option(word):
            # `bash "$script"` most likely runs a file, whose text is as unknown as any script's.
            sure = from_text or word.text.lstrip('"').startswith("<(")
            if from_stdin:
                feeds.run_input(readers, call, place)
            if from_text:
                feeds.run_text(readers, word, place)
            else:
                feeds.run_file(readers, word, call, place, "shell")
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
    if script is None or (STREAMS.fullmatch(script.text) and not script.dynamic):
        if call.stdin is not None and (script is None or script.text in ("-", "/dev/stdin")):
            read_input(readers, call.stdin, place)
        elif place.fed is not None and not any(u.access is Access.READ for u in call.redirects):
            feeds.run_input(readers, call, place)
            read_input(readers, place.fed, place)
        else:
            feeds.run_input(readers, call, place)
            readers.unknown(f"{place.via[-1]} (reads commands from its input)", place)
        return
    feeds.run_file(readers, script, call, place, "shell")
    if script.dynamic and script.text.startswith(("<(", '"<(')):
        readers.unknown(shown(call), place)


def read_input(readers: Readers, text: Word, place: Place) -> None:
    """Read what a shell reads from its input, which its commands read from as well.

    What they take is not run, so that what is left may begin in the middle of a word or a heredoc.
    """
    commands = readers.found.commands
    start = len(commands)
    readers.shell(text, place)
    taking = [
        command
        for command in commands[start:]
        if command.words and command.words[0].text.rpartition("/")[2] in _TAKES_INPUT
    ]
    hides = "<<" in text.text or "\\\n" in text.text
    hides = hides or any("\n" in word.text for each in commands[start:] for word in each.words)
    parts = any(_TAKES_PARTS.match(word.text) for each in taking for word in each.words)
    if taking and (hides or parts):
        readers.unknown(f"{place.via[-1]} (its input is read by {taking[0].words[0].text})", place)


def unwrap_foreign_shell(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:  # noqa: ARG001
    """A shell whose language is not read: only a script by its name is as good as a program."""
    words = call.words[1:]
    if not words:
        feeds.run_input(readers, call, place)
    else:
        feeds.run_file(readers, words[0], call, place)
    if not words or options.may_be_option(words[0]) or words[0].dynamic:
        readers.unknown(shown(call), place)


def unwrap_source(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:  # noqa: ARG001
    """`. FILE` (bash(1)): text of a descriptor or a substitution; a file is not read here."""
    words = call.words[1:]
    if words and not words[0].dynamic and words[0].text == "--":
        words = words[1:]
    if not words:
        return
    stream = not words[0].dynamic and STREAMS.fullmatch(words[0].text) is not None
    if stream and call.stdin is not None:
        readers.shell(call.stdin, place)
        return
    if stream:
        feeds.run_input(readers, call, place)
    else:
        feeds.run_file(readers, words[0], call, place, "shell")
    if words[0].dynamic and not words[0].text.lstrip('"').startswith("<("):
        # A file, most likely: what is in one is not read here even if its name is known.
        readers.unknown(shown(call), place.in_doubt)
    elif words[0].dynamic or stream:
        readers.unknown(shown(call), place)


def unwrap_alias(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:  # noqa: ARG001
    """Each value is text that stands in front of whatever follows the alias."""
    for word in call.words[1:]:
        if word.dynamic:
            known = word.prefix.partition("=")[2]
            readers.shell(replace(word, prefix=known), place)
            continue
        _, equals, value = word.text.partition("=")
        if not equals or not value.strip():
            continue
        readers.found.functions.add(word.text.partition("=")[0])
        if re.search(r"[^\w ./:@%+,=-]", value):
            # It may begin what only the text behind it ends.
            readers.unknown(value, place.in_doubt)
            readers.shell(Word(value), place)
        else:
            words = tuple(Word(piece) for piece in value.split())
            readers.command(Call((*words, APPENDED), place))
