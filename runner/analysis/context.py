"""What the readers share: where a command was found, what was collected, and each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from runner.analysis.budget import Budget
from runner.analysis.wrappers.table import Table
from runner.model.intent import Access, Assignment, Construct, PathUse, SimpleCommand, Word

DEPTH_LIMIT = 32
"""Wrappers and texts inside each other; more than anybody writes by hand."""
COMMANDS_LIMIT = 50_000
TEXTS_LIMIT = 512
"""Texts inside one request that are parsed by themselves; each may start a process."""
APPENDED = Word("…", dynamic=True)
"""Stands for the words that xargs and its like append."""
STREAMS = re.compile(r"-|/dev/stdin|/dev/fd/.*|/proc/(?:self|\d+|thread-self)/fd/.*")
"""Script names that are an open descriptor: what is in it can't be told."""
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command was found."""

    via: tuple[str, ...] = ()
    line: int = 1
    depth: int = 0
    language: str = "bash"
    """Of shell text found here: `bash`, `sh`, `ksh`, `zsh`."""
    advice: bool = False
    """It was found in a language that is read for advice: what can't be read is passed over."""
    doubtful: bool = False
    """Whether anything runs here, or with these words, only running would tell."""
    feed: frozenset[str] = NOTHING
    """What a pipe feeds to what stands here (`runner.analysis.feeds`); empty: no pipe does."""
    piped: Word | None = None
    """The text that this pipe feeds, where it is known (`runner.analysis.shell.fed`)."""
    holds: frozenset[str] = NOTHING
    """What the substitutions in the words here bring."""
    fed: Word | None = None
    """All of its input, to the byte, where that is sure and nothing else reads it."""

    def behind(self, wrapper: str) -> Place:
        """The place of what `wrapper` runs."""
        # Each field by itself: `replace` takes four times as long, and every wrapper needs one.
        return Place(
            (*self.via, wrapper),
            self.line,
            self.depth + 1,
            self.language,
            self.advice,
            self.doubtful,
            self.feed,
            self.piped,
            self.holds,
            self.fed,
        )

    @property
    def in_doubt(self) -> Place:
        """The same place for something that may not run at all."""
        return replace(self, doubtful=True)


@dataclass(frozen=True, slots=True)
class Call:
    """One simple command about to be noted and looked into."""

    words: tuple[Word, ...]
    place: Place
    assignments: tuple[Assignment, ...] = ()
    redirects: tuple[PathUse, ...] = ()
    stdin: Word | None = None
    """The heredoc or here-string that it reads, when there is one."""

    @property
    def given(self) -> Word | None:
        """The text on its input, as far as it is known, for what is read as advice."""
        elsewhere = any(use.access is Access.READ for use in self.redirects)
        return self.stdin if self.stdin is not None or elsewhere else self.place.piped


@dataclass(frozen=True, slots=True)
class FileRun:
    """A file that is run; `runner.analysis.written` may tell what is in it when all is read."""

    path: Word
    place: Place
    kind: str
    """As what: `program`, `shell`, `python`, `perl` …; empty: a language that is not read."""
    redirects: tuple[PathUse, ...] = ()
    """Of its own command: what these write was not there before."""


@dataclass(slots=True)
class Collector:
    """Everything found so far."""

    commands: list[SimpleCommand] = field(default_factory=list)
    paths: list[PathUse] = field(default_factory=list)
    hosts: list[Word] = field(default_factory=list)
    constructs: dict[tuple[str, int], Construct] = field(default_factory=dict)
    unreadable: str | None = None
    texts: int = 0
    budget: Budget = field(default_factory=Budget)
    brought: dict[str, frozenset[str]] = field(default_factory=dict)
    """What variables (`$x`), files and functions (`x()`) bring, as far as it is known."""
    runs: list[FileRun] = field(default_factory=list)
    contents: dict[tuple[object, ...], str | None] = field(default_factory=dict)
    """What commands write to the file that they redirect to, by `via`, words and redirections;
    None: it can't be told, or differs."""
    functions: set[str] = field(default_factory=set)
    """Names of the functions and aliases that are defined somewhere."""
    relied: set[str] = field(default_factory=set)
    """What was taken to do what it does everywhere: `echo`, `printf`, variables (`$`)."""

    def add(self, call: Call) -> None:
        """Note a command; beyond the limit the whole is unreadable."""
        if len(self.commands) >= COMMANDS_LIMIT:
            self.fail(f"it holds more than the {COMMANDS_LIMIT} commands that are read")
            return
        self.commands.append(
            SimpleCommand(
                words=call.words,
                assignments=call.assignments,
                redirects=call.redirects,
                via=call.place.via,
                line=call.place.line,
                doubtful=call.place.doubtful,
            )
        )

    def construct(self, name: str, place: Place) -> None:
        """Note that a text does this; each kind once a line, as advice only if always so."""
        key = (name, place.line)
        known = self.constructs.get(key)
        advice = place.advice and (known is None or known.advice)
        self.constructs[key] = Construct(name, place.line, advice)

    def affords(self, text: str) -> bool:
        """Whether one more text in another language is read; if not, the whole is unreadable.

        Else what many harmless texts stand in front of would go unread.
        """
        affordable = self.budget.take(text)
        if not affordable:
            self.fail("it holds more text in other languages than is read")
        return affordable

    def fail(self, reason: str) -> None:
        """Something could not be read; the first reason is kept."""
        self.unreadable = self.unreadable or reason


class Readers(Protocol):
    """The readers of each language, for one another."""

    @property
    def found(self) -> Collector:
        """Where everything goes."""

    @property
    def table(self) -> Table:
        """The commands that run others, and how."""

    def command(self, call: Call) -> None:
        """Note a command and whatever it runs."""

    def shell(self, text: Word, place: Place) -> None:
        """Read shell text; a dynamic one is a dynamic command."""

    def python(self, text: Word, place: Place) -> None:
        """Read Python text, as far as it goes."""

    def unknown(self, source: str, place: Place) -> None:
        """Note that something runs here which only running would tell."""


def join(words: Sequence[Word]) -> Word:
    """The words joined by blanks, as `eval` and `ssh` do."""
    if len(words) == 1:
        return words[0]
    known: list[str] = []
    for word in words:
        if word.dynamic:
            known.append(word.prefix)
            break
        known.append(word.text)
    text = " ".join(word.text for word in words)
    if not any(word.dynamic for word in words):
        return Word(text)
    return Word(text, dynamic=True, prefix=" ".join(known))


def is_glob(word: Word) -> bool:
    """Whether a word is dynamic by globs alone: it becomes names of files that are there."""
    return word.dynamic and word.many and not re.search(r"[$`(…]", word.text)


def placeholder(word: Word, mark: str) -> Word:
    """A word in which what stands for `mark` is put in later."""
    if word.dynamic or mark not in word.text:
        return word
    prefix, _, tail = word.text.partition(mark)
    return Word(word.text, True, prefix, tail.rpartition(mark)[2], many=False)


def until(words: tuple[Word, ...], ends: frozenset[str]) -> tuple[Word, ...]:
    """The words in front of the first of `ends`."""
    for index, word in enumerate(words):
        if not word.dynamic and word.text in ends:
            return words[:index]
    return words


def shown(call: Call) -> str:
    """A command as its words, for a person."""
    return " ".join(word.text for word in call.words)[:200]
