"""Text patterns on commands, in which `*` stands for any text, as matches of simple commands.

What allows is carried over only where the match holds for no command that the text pattern would
not allow: the words are compared one by one, by their place, with a condition in CEL. What refuses
may hold for more: the words are looked for wherever they stand, so that `git -C x push` is a
`git push` too.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from runner.policy.cel import TEXT_LIMIT
from runner.schema.foreign.draft import Carried, escaped

_BEYOND = re.compile(r"[|&;<>()$`{}\n\r\0]")
"""What a simple command of plain words does not hold."""
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_BUNDLE = re.compile(r"-[A-Za-z]{2,3}")
"""Flags of one letter each, most likely; in another order they mean the same."""
_UNPLAIN = re.compile(r"[*?\[~]")
"""What a shell expands: the command's own word may be written so, and is dynamic then."""
EVERYTHING = {"command": "*"}
_PLAIN_ENVIRONMENT = {"not": [{"environment": "*"}]}
"""A variable in front of a command can make it run another (`GIT_PAGER`)."""


def allowed(pattern: str) -> Carried:
    """A match that holds for nothing that the pattern does not match."""
    pattern = pattern.strip()
    if pattern.strip("*") == "":
        return Carried(EVERYTHING)
    words = None if _BEYOND.search(pattern) else _words(pattern)
    if words is None:
        return Carried(None, "it holds more than the words of one command")
    name, rest = words[0], words[1:]
    why = _unsayable(words)
    if why:
        return Carried(None, why)
    condition, why = _by_place(rest, open_end=name.endswith("*") and not rest)
    command = "*" if name == "*" else escaped(name.rstrip("*")) + ("*" if "*" in name else "")
    match: dict[str, Any] = {"command": command}
    if condition:
        if len(condition) > TEXT_LIMIT:
            return Carried(None, f"it is longer than the {TEXT_LIMIT} characters of a condition")
        match["when"] = condition
    return Carried({**match, **_PLAIN_ENVIRONMENT}, why)


def _unsayable(words: list[str]) -> str:
    """Why no words can be compared one by one with these, or nothing."""
    name, rest = words[0], words[1:]
    if not name:
        return "it names no command"
    if _ASSIGNMENT.match(name):
        return "variables in front of a command are not allowed by name"
    if sum(word.count("*") for word in words) > 1:
        return "it holds more than one *"
    if "*" in name and not (name == "*" or (name.endswith("*") and not rest)):
        return "a * within the command's name may stand for several words"
    return ""


def refused(pattern: str) -> Carried:
    """A match that holds for all that the pattern matches, as far as words tell; maybe for more."""
    pattern = pattern.strip()
    if pattern.strip("*") == "":
        return Carried(EVERYTHING)
    words, why = _head(pattern)
    if words and not words[0]:
        return Carried(None, "it names no command")
    if all(word.strip("*") == "" for word in words):
        if why:
            return Carried(None, "it begins with no words of one command")
        return Carried(EVERYTHING, "it counts for a command without arguments too")
    if not why and not any("*" in word for word in words):
        exact = _exactly(words)
        if exact is not None:
            return exact
    name, rest = words[0], words[1:]
    chunks = [chunk for word in rest for chunk in _chunks(word)]
    match: dict[str, Any] = {"command": escaped(name.partition("*")[0]) + "*" * ("*" in name)}
    if chunks:
        match["args"] = chunks
        why = why or "the words count wherever they stand among the arguments"
    if within := [piece for piece in name.split("*")[1:] if piece]:
        match["all"] = [
            {"any": [{"command": f"*{escaped(piece)}*"}, {"any_args": f"*{escaped(piece)}*"}]}
            for piece in within
        ]
        why = why or "what stands behind a * in the name counts in name and arguments"
    plain = not _UNPLAIN.search("".join(word for word in rest if word != "*"))
    return Carried(match, why, doubtful=bool(chunks or within) and plain)


def _head(pattern: str) -> tuple[list[str], str]:
    """The words of one simple command that it begins with, and why they are not all of it."""
    why = ""
    end = _BEYOND.search(pattern)
    words = None if end else _words(pattern)
    if words is None:
        end = end or re.search(r"['\"\\]", pattern)
        head = pattern[: end.start()] if end else ""
        # What goes on without a space goes on within the word.
        words = (_words(head + ("*" if head[-1:].strip() else " *")) if head else None) or []
        why = "what stands behind its first words does not count"
    while words and _ASSIGNMENT.match(words[0]):
        del words[0]
        why = "variables in front of the command do not count"
    return words, why


def _exactly(words: list[str]) -> Carried | None:
    """A command of just these words; None: it is too long for a condition."""
    condition, _ = _by_place(words[1:], open_end=False)
    if len(condition) > TEXT_LIMIT:
        return None
    return Carried({"command": escaped(words[0]), "when": condition}, doubtful=True)


def _by_place(words: list[str], *, open_end: bool) -> tuple[str, str]:
    """A condition that the arguments are these, one by one; and in what it is narrower."""
    if open_end or words == ["*"]:
        return "", ""
    star = next((index for index, word in enumerate(words) if "*" in word), None)
    if star is None:
        return _all([f"size(command.args) == {len(words)}", *_heads(words)]), ""
    word, before, after = words[star], words[:star], words[star + 1 :]
    if word == "*":
        least = len(before) + len(after) + (1 if after else 0)
        tails = [
            f"command.args[size(command.args) - {len(after) - index}] == {_quoted(each)}"
            for index, each in enumerate(after)
        ]
        return _all([f"size(command.args) >= {least}", *_heads(before), *tails]), ""
    if word.endswith("*") and not after:
        begins = f"command.args[{star}].startsWith({_quoted(word[:-1])})"
        return _all([f"size(command.args) > {star}", *_heads(before), begins]), ""
    head, _, tail = word.partition("*")
    place = f"command.args[{star}]"
    ends = [
        f"size({place}) >= {len(head) + len(tail)}",
        *([f"{place}.startsWith({_quoted(head)})"] if head else ()),
        *([f"{place}.endsWith({_quoted(tail)})"] if tail else ()),
    ]
    others = [
        f"command.args[{index}] == {_quoted(each)}"
        for index, each in enumerate(words)
        if index != star
    ]
    return (
        _all([f"size(command.args) == {len(words)}", *others, *ends]),
        "its * stands for a part of one word",
    )


def _heads(words: list[str]) -> list[str]:
    return [f"command.args[{index}] == {_quoted(word)}" for index, word in enumerate(words)]


def _all(conditions: list[str]) -> str:
    return " && ".join(conditions)


def _quoted(text: str) -> str:
    """A text as a CEL literal, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _chunks(word: str) -> list[str]:
    """Globs of which some argument matches each, if a text matches the word."""
    if "*" not in word:
        flags = _BUNDLE.fullmatch(word)
        return [f"-{letter}" for letter in word[1:]] if flags else [escaped(word)]
    pieces = word.split("*")
    last = len(pieces) - 1
    return [
        ("*" if index else "") + escaped(piece) + ("*" if index < last else "")
        for index, piece in enumerate(pieces)
        if piece
    ]


def _words(text: str) -> list[str] | None:
    try:
        return shlex.split(text)
    except ValueError:
        return None
