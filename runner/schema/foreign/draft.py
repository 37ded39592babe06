"""What an import makes: rules with their sources, what became of each source rule, and the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import yaml

from runner.policy.folders import HOME

ID_WORDS_LIMIT = 40
"""Characters of the source rule in an id; an identifier has at most 64."""
COMMENT_LIMIT = 300
"""Characters of the source rule in a comment or the report."""
FILE_LINE_WIDTH = 10_000
"""A YAML scalar is not folded: a rule's text stays greppable."""


class Fate(Enum):
    """How a source rule was carried over, if not exactly."""

    STRICTER = "stricter"
    """It allows less, or refuses more."""
    LEFT_OUT = "left out"
    """It is not there, and what it allowed is not allowed."""
    LOOSER = "looser"
    """It is not there, or not whole, and what it refused is not refused by it."""


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one source rule, or of one key."""

    place: str
    source: str
    fate: Fate
    why: str


@dataclass(frozen=True, slots=True)
class Carried:
    """A source rule as a match; `match` None: it can't be said."""

    match: Mapping[str, Any] | None
    why: str = ""
    """Why it is not the same; empty: it is."""
    doubtful: bool = False
    """Of what it refuses: whether a command's dynamic words may matter. Then they are asked about
    by a second rule, because a denial for each `"$x"` would deny nearly all."""
    doubt: Mapping[str, Any] | None = None
    """What the second rule matches, if not the same."""


@dataclass(slots=True)
class Draft:
    """A policy in the making."""

    source: str
    """Path of the imported file."""
    kind: str
    """What the file is, for people."""
    default: str = "ask"
    on_unknown: str = "ask"
    """For `on_dynamic` and `on_unreadable`."""
    rules: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """Each with the comment that stands above it."""
    notes: list[Note] = field(default_factory=list)
    told: int = 0
    """Source rules that were looked at."""

    def note(self, place: str, source: str, fate: Fate, why: str) -> None:
        """Say that a source rule was not carried over as it is."""
        self.notes.append(Note(place, source, fate, why))

    def add(
        self, comment: str, name: str, effect: str, match: Mapping[str, Any], **other: Any
    ) -> str:
        """Add a rule, and return its id."""
        words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:ID_WORDS_LIMIT].strip("-")
        identity = f"{effect}-{len(self.rules) + 1}" + (f"-{words}" if words else "")
        rule = {"id": identity, "effect": effect, "match": dict(match), **other}
        self.rules.append((comment, rule))
        return identity

    def refuse(
        self,
        place: str,
        source: str,
        effect: str,
        carried: Carried,
        message: str,
        **other: Any,
    ) -> None:
        """Add a rule that denies or asks, and one that asks where only running would tell.

        `other`: more keys of the rule.
        """
        if carried.match is None:
            self.note(place, source, Fate.LOOSER, carried.why)
            return
        if carried.why:
            self.note(place, source, Fate.STRICTER, carried.why)
        comment = f"{place} {shown(source)}"
        deny_and_ask = effect == "deny" and carried.doubtful
        self.add(comment, source, effect, carried.match, message=message,
                 on_doubt="passes" if deny_and_ask else "matches", **other)  # fmt: skip
        if deny_and_ask:
            self.add(f"{comment}, where only running would tell", source, "ask",
                     carried.doubt or carried.match, on_doubt="matches",
                     message=f"{message} Write the words out so that it can be told.")  # fmt: skip

    def text(self, *, layer: bool) -> str:
        """The file: a profile that extends `agent`, or a policy layer."""
        end = ":" if self.notes else "."
        head = [
            f"# Imported from {shown(self.source)} ({self.kind}) by runner policy import{end}",
            *(f"# {line}" for line in self._told_notes()),
        ]
        if not layer:
            head.append("extends: agent # its own rules hold too")
        head += [
            f"description: {_scalar(f'Imported from {self.kind}')}",
            "rules:",
            f"  default: {self.default}",
            f"  on_dynamic: {self.on_unknown}",
            f"  on_unreadable: {self.on_unknown}",
            "  list:" + ("" if self.rules else " []"),
        ]
        for comment, rule in self.rules:
            head.append(f"    # {comment}")
            head += [f"    {line}" for line in _block([rule])]
        return "\n".join(head) + "\n"

    def report(self) -> str:
        """A line for each source rule that was not carried over as it is, and the sum."""
        rules = {(note.place, note.source) for note in self.notes if note.source}
        plural = "" if self.told == 1 else "s"
        exact = self.told - len(rules)
        heading = f"{self.source}: {self.told} rule{plural}, {exact} carried over as written"
        return "\n".join([heading, *self._told_notes()])

    def _told_notes(self) -> Iterator[str]:
        for note in self.notes:
            source = f" {shown(note.source)}" if note.source else ""
            yield f"  {note.fate.value:8}  {note.place}{source}: {note.why}"


def shown(text: str) -> str:
    """A foreign text in one line of ASCII: it can end neither a comment nor a line."""
    quoted = json.dumps(text)
    return quoted if len(quoted) <= COMMENT_LIMIT else quoted[:COMMENT_LIMIT] + '…"'


def escaped(text: str) -> str:
    """A text as a glob that matches nothing else."""
    return re.sub(r"([*?\[\\])", r"\\\1", text)


def homes(pattern: str) -> tuple[str, ...]:
    """A pattern below `~` for the sandbox's home and for those of the machine."""
    rest = pattern[1:]
    return (f"{HOME}{rest}", f"/home/*{rest}", f"/root{rest}")


def _block(value: object) -> list[str]:
    return _dump(value).splitlines()


def _scalar(text: str) -> str:
    return _dump(text).partition("\n")[0]


def _dump(value: object) -> str:
    dumped: str = yaml.safe_dump(
        value, sort_keys=False, default_flow_style=False, allow_unicode=False, width=FILE_LINE_WIDTH
    )
    return dumped
