"""What a request would do, as far as reading it tells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command after quotes and escapes were resolved.

    `text` is the word's value when it is literal, and its source text when it is `dynamic`: only
    running it would tell (`$x`, `$(…)`, a glob). Of a dynamic word the last three fields tell what
    is known all the same; as they stand by default nothing is.
    """

    text: str
    dynamic: bool = False
    prefix: str = ""
    """Every word that it can become starts with this."""
    suffix: str = ""
    """Every word that it can become ends with this."""
    many: bool = True
    """It can become any number of words, none among them (`$x` unquoted, a glob)."""


class Access(StrEnum):
    """What a redirection or a known command does with a path."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class PathUse:
    """A path that a command names. `path` is dynamic when the word was."""

    path: Word
    access: Access


@dataclass(frozen=True, slots=True)
class Assignment:
    """`NAME=value` in front of a command, or by itself."""

    name: str
    value: Word


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    """One command of a compound one, by itself, with wrappers already taken off."""

    words: tuple[Word, ...]
    """Command name first; empty for a bare assignment or redirection."""
    assignments: tuple[Assignment, ...] = ()
    redirects: tuple[PathUse, ...] = ()
    via: tuple[str, ...] = ()
    """The wrappers it was found behind, outermost first, e.g. `("sudo", "env")`."""
    line: int = 1
    """Line in the request's text, counted from 1."""
    doubtful: bool = False
    """Whether it runs at all, or with these words, only running would tell: `$x` in `find $x` could
    be an action, `find a -name '*.o' -delete` hardly removes `a` itself."""


@dataclass(frozen=True, slots=True)
class Construct:
    """Something that a text does and no command's words tell, named `LANGUAGE:WHAT`.

    `shell:background`, `shell:function`, `shell:pipe-to-shell`, `python:import:socket`,
    `python:call:eval`, `javascript:import:net`, `sql:drop-table`: docs/writing-rules.md lists them.
    """

    name: str
    line: int = 1
    advice: bool = False
    """Found by a reader whose findings are advice."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Intent:
    """Every simple command that was found, and what could not be read.

    A wrapper counts as a command too: `sudo rm x` gives `sudo rm x` and, behind it, `rm x` via
    `("sudo",)`; a rule may match either.
    """

    language: str
    """`argv`, `bash`, `sh`, `python`, …"""
    commands: tuple[SimpleCommand, ...] = ()
    paths: tuple[PathUse, ...] = ()
    """Paths that a script names outside of commands (Python's `open`, …)."""
    hosts: tuple[Word, ...] = ()
    unreadable: str | None = None
    """Why it, or a part of it, could not be read at all (one clause with a line), else None."""
    constructs: tuple[Construct, ...] = ()
    """What its texts do beside running commands; each kind once a line."""

    @property
    def dynamic_commands(self) -> tuple[SimpleCommand, ...]:
        """Commands whose name only running would tell."""
        return tuple(c for c in self.commands if c.words and c.words[0].dynamic)
