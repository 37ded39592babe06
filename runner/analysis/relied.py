"""Whether what reading relied on holds: that `echo` is `echo`, and a variable what it was set to.

A text can define `echo` as a function, set `IFS`, or have a trap run before each command. That is
looked for when all is read, since it may stand in any text of the request, also in one that is run
later or out of a file.
"""

from __future__ import annotations

import posixpath
import re

from runner.analysis.context import Collector, Place, Readers
from runner.analysis.shell.constants import VARIABLES, VARIABLES_WITHIN
from runner.model.intent import SimpleCommand, Word

_SETS = frozenset({"read", "printf", "export", "readonly", "declare", "test"})
"""Builtins by which variables were followed."""
_HARMLESS_SIGNALS = re.compile(
    r"(?i)(?:SIG)?(?:EXIT|HUP|INT|QUIT|TERM|PIPE|USR1|USR2|CHLD|WINCH|ALRM|CONT|TSTP)|\d|1[0-5]"
)
"""What a trap may wait for without running before a command or inside a substitution."""
_MEDDLING = frozenset({"enable", "xpg_echo"})
_ATTRIBUTES = frozenset({"readonly", "declare", "typeset", "local"})


def settle(readers: Readers) -> None:
    """Note that anything may run when what was relied on may not hold."""
    found = readers.found
    if not found.relied:
        return
    reason = _redefined(found)
    if reason is not None:
        readers.unknown(f"{reason} (redefined here)", Place())


def _redefined(found: Collector) -> str | None:
    names = set(found.relied)
    within = VARIABLES_WITHIN in names
    if within or VARIABLES in names:
        names |= _SETS
    redefined = names & found.functions
    if redefined:
        return min(redefined)
    for command in found.commands:
        reason = _meddling(command, within=within)
        if reason is not None:
            return reason
    return None


def _meddling(command: SimpleCommand, *, within: bool) -> str | None:
    base = _base(command)
    if base in _MEDDLING or (base == "trap" and not _harmless_trap(command.words[2:])):
        return base
    # A nested text may share variables with the one around it: attributes of theirs, and what
    # handles a signal that it sends itself.
    if within and (base == "kill" or (base in _ATTRIBUTES and _has_options(command))):
        return base
    set_before = any(_is_special(each.name) for each in command.assignments) and base != "read"
    by_name = any(_is_special(word.text.partition("=")[0]) for word in command.words[1:])
    return "IFS" if set_before or by_name else None


def _is_special(name: str) -> bool:
    return name in ("IFS", "BASH_XTRACEFD", "xpg_echo")


def _harmless_trap(signals: tuple[Word, ...]) -> bool:
    return all(not word.dynamic and _HARMLESS_SIGNALS.fullmatch(word.text) for word in signals)


def _has_options(command: SimpleCommand) -> bool:
    words = command.words[1:]
    return posixpath.basename(command.words[0].text) == "readonly" or any(
        word.dynamic or word.text.startswith(("-", "+")) for word in words
    )


def _base(command: SimpleCommand) -> str:
    first = command.words[0] if command.words else None
    return posixpath.basename(first.text) if first is not None and not first.dynamic else ""
