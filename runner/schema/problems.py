"""What is wrong in a file: where, what, and what would be right; all of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from runner.errors import BadInputError

Path = tuple[str | int, ...]
"""The way to a value in a document: keys and list positions."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    source: str
    mark: Mark
    path: Path
    message: str

    def __str__(self) -> str:
        """`FILE:LINE:COLUMN: key.path: what is wrong; what would be right`."""
        where = f"{self.source}:{self.mark.line}:{self.mark.column}: "
        return where + (f"{spell_path(self.path)}: " if self.path else "") + self.message


def spell_path(path: Path) -> str:
    """`rules.list[0].match.command`; list positions count from 0."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def raise_problems(problems: Iterable[Problem], error: type[BadInputError]) -> None:
    """Raise `error` with one line a problem, in the file's order; nothing when there is none."""
    found = sorted(set(problems), key=lambda p: (p.source, p.mark.line, p.mark.column, p.message))
    if found:
        raise error("\n".join(str(problem) for problem in found))


def nearest(word: str, known: Sequence[str]) -> str:
    """A clause that offers the known word nearest to `word`, or nothing."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def unknown(what: str, word: str, known: Sequence[str]) -> str:
    """The message for a word that is not on a closed list."""
    guess = nearest(word, known)
    return f"unknown {what} {word!r}{guess or ';'} allowed: {', '.join(known)}"
