"""How an explanation is written: commands, conditions and rows of text."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.model.intent import Word
    from runner.policy.subject import Subject
    from runner.policy.witness import Reason

_WIDTH = 100
_STATED_WIDTH = 90
"""Of a condition's patterns; all of them stand in the rule."""
HOLD = {0: "no", 1: "perhaps", 2: "yes"}
"""How far a condition holds, by `runner.policy.hold.Hold`."""


def command(subject: Subject) -> str:
    """A command as somebody would type it; of what is none, what was read."""
    if subject.name is None:
        return one_line(subject.shown)
    return one_line(" ".join(map(_spelled, (subject.name, *subject.arguments))))


def _spelled(word: Word) -> str:
    return word.text if word.dynamic else shlex.quote(word.text)


def facts(subject: Subject, workspace: str) -> Iterator[tuple[str, str]]:
    """What was read of it, beside its words."""
    from runner.policy.witness import place_of  # noqa: PLC0415

    where = [f"line {subject.line}"] if subject.line > 1 else []
    if subject.via:
        where.append(f"behind {' '.join(subject.via)}")
    if subject.advice:
        where.append("found by a reader whose findings are advice")
    if subject.doubtful:
        where.append("whether it runs like this, only running would tell")
    if where:
        yield "", "; ".join(where)
    words = (subject.name, *subject.arguments) if subject.name is not None else ()
    if unsure := [word for word in words if word.dynamic]:
        yield "unsure", ", ".join(dict.fromkeys(map(_unsure, unsure)))
    written = dict.fromkeys(subject.writes)
    named = [each for each in dict.fromkeys(subject.paths) if each not in written]
    for label, paths in (("paths", named), ("writes", [*written])):
        if paths:
            yield label, _few([near(place_of(path), workspace) for path in paths])
    if subject.hosts:
        yield "hosts", _few([host.text for host in subject.hosts])
    if subject.environment:
        yield "sets", _few(sorted(subject.environment))


def near(path: str, folder: str) -> str:
    """Paths below a folder, from there."""
    return " or ".join(
        f"./{each.removeprefix(f'{folder}/')}" if each.startswith(f"{folder}/") else each
        for each in path.split(" or ")
    )


def _unsure(word: Word) -> str:
    known = [f"begins with {word.prefix}"] if word.prefix else []
    known += [f"ends in {word.suffix}"] if word.suffix else []
    return f"{word.text} ({' and '.join(known)})" if known else word.text


def reason(told: Reason, depth: int) -> Iterator[str]:
    """A condition of a rule, and how far it holds; what it is made of is set in below it."""
    head = f"{' ' * (17 + 2 * depth)}{told.key:<8} "
    because = f": {', '.join(told.because)}" if told.because else ""
    hold = ("no", "perhaps", "yes")[told.hold]
    stated = f"{_short(told.stated)} " if told.stated else ""
    yield from wrapped(head, one_line(f"{stated}- {hold}{because}"))
    for part in told.parts:
        for inner in part:
            yield from reason(inner, depth + 1)


def reason_document(told: Reason) -> dict[str, Any]:
    """The same as JSON values."""
    from runner.schema.outcome import printable  # noqa: PLC0415

    return {
        "key": told.key,
        "stated": printable(told.stated),
        "holds": HOLD[told.hold],
        "because": list(map(printable, told.because)),
        "parts": [list(map(reason_document, part)) for part in told.parts],
    }


def word_document(word: Word) -> dict[str, Any]:
    """A word as JSON values, with what is known of one that only running would tell."""
    from runner.schema.outcome import printable  # noqa: PLC0415

    document: dict[str, Any] = {"text": printable(word.text), "dynamic": word.dynamic}
    if word.dynamic:
        document |= {"prefix": printable(word.prefix), "suffix": printable(word.suffix),
                     "many": word.many}  # fmt: skip
    return document


def row(label: str, text: str) -> Iterator[str]:
    """A line with a word in front that says what it is."""
    yield from wrapped(f"{'':6}{label:<8} ", one_line(text))


def wrapped(head: str, text: str) -> Iterator[str]:
    """Lines of at most 100 columns, the ones that follow set in under the first."""
    indent = " " * min(len(head), 40)
    lines = textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=indent,
                          break_on_hyphens=False, break_long_words=False)  # fmt: skip
    yield from lines or [head.rstrip()]


def _short(stated: str) -> str:
    return stated if len(stated) <= _STATED_WIDTH else f"{stated[: _STATED_WIDTH - 1]}…"


def _few(words: Sequence[str]) -> str:
    shown = ", ".join(words[:8])
    return f"{shown} and {len(words) - 8} more" if len(words) > 8 else shown


def number(count: int, what: str) -> str:
    """`1 command`, `2 commands`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def one_line(text: str) -> str:
    """What an agent wrote must not move the reader's cursor."""
    return text if text.isprintable() else ascii(text)[1:-1]
