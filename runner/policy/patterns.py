"""Patterns that people write and that match nothing, or not what is meant. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.model.rule import Match
from runner.policy.cover import covers_match
from runner.policy.folders import HOME
from runner.policy.globs import is_literal
from runner.policy.languages import disjoint
from runner.policy.notation import from_home, in_workspace, is_local

_SYSTEM_PROGRAM = re.compile(r"/(?:usr/(?:local/)?)?s?bin/([^/*?\[\\]+)")
_PORT = re.compile(r"[^:]+:[0-9*]+")
_PATH_FIELDS = ("paths", "reads", "writes")
_WORD_FIELDS = {"commands": "command", "args": "args", "any_args": "any_args",
                "ordered_args": "args_in_order"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one pattern."""

    what: str
    todo: str
    useless: bool = False
    """It matches nothing that is written out in a command."""


def useless_names(match: Match) -> str | None:
    """Why no command has any of the names that are stated, or None."""
    if match.commands and all(map(_no_name, match.commands)):
        return f"no command's name is spelled {_quoted(match.commands)}"
    return None


def needless(match: Match) -> str | None:
    """Why an `allow` can't match, for what is only so of what is allowed; or None."""
    for field in _PATH_FIELDS:
        stated = getattr(match, field)
        if stated and all(_no_path(each) is not None for each in stated):
            return f"no path is {_quoted(stated)}; {_no_path(stated[0])}"
    for part in match.none_of:
        if covers_match(part, match):
            return "what `not` states holds wherever the rest does"
    return None


def misspelt(match: Match, *, allows: bool, doubtful: bool) -> Iterator[Problem]:
    """Each pattern that is wrong by itself, those of all parts.

    `doubtful`: what only running would tell counts as what it could become.
    """
    found = list(_of_node(match, allows=allows, doubtful=doubtful))
    for part in (*match.any_of, *match.all_of):
        found += misspelt(part, allows=allows, doubtful=doubtful)
    for part in match.none_of:  # there doubt counts the other way round
        found += misspelt(part, allows=True, doubtful=False)
    yield from dict.fromkeys(found)


def _of_node(match: Match, *, allows: bool, doubtful: bool) -> Iterator[Problem]:
    for field, key in _WORD_FIELDS.items():
        for pattern in getattr(match, field):
            yield from _word(pattern, key)
    for pattern in match.commands:
        yield from _name(pattern, allows=allows)
    for field in _PATH_FIELDS:
        for pattern in getattr(match, field):
            yield from _path(pattern, field, doubtful=doubtful)
    for pattern in match.hosts:
        yield from _host(pattern)
    for pattern in match.constructs:
        if is_literal(pattern) and ":" not in pattern:
            yield Problem(
                f"constructs '{pattern}' names no language",
                "write it as LANGUAGE:WHAT, such as shell:pipe-to-shell", useless=True,
            )  # fmt: skip
    fields = (*_WORD_FIELDS, *_PATH_FIELDS, "hosts", "environment", "via", "constructs", "agents",
              "sessions", "tenants")  # fmt: skip
    everywhere = [pattern for field in fields for pattern in getattr(match, field)]
    for pattern in everywhere:
        if _unclosed(pattern) and pattern != "[":
            yield Problem(
                f"the '[' in '{pattern}' is not closed and stands for itself",
                r"close it with ']', or write '\[' if the character is meant",
            )


def _word(pattern: str, key: str) -> Iterator[Problem]:
    if pattern.startswith("$"):
        yield Problem(
            f"{key} '{pattern}' matches only a word that is written so with quotes around it",
            "say what words get that only running would tell with on_dynamic and on_doubt",
        )
    if " " not in pattern.strip():
        return
    first, _, rest = pattern.strip().partition(" ")
    if key == "command":
        yield Problem(
            f"command '{pattern}' is several words, and a command's name is one",
            f"write command: {first}, args: [{', '.join(rest.split())}]", useless=True,
        )  # fmt: skip
    elif first.startswith("-"):
        yield Problem(
            f"{key} '{pattern}' is several words, and an argument is one",
            f"write {key}: [{', '.join(pattern.split())}]",
        )


def _name(pattern: str, *, allows: bool) -> Iterator[Problem]:
    if _no_name(pattern):
        yield Problem(
            f"command '{pattern}' matches nothing: names are compared without '.', '..' and '//'",
            f"write {posixpath.normpath(pattern)}", useless=True,
        )  # fmt: skip
    program = _SYSTEM_PROGRAM.fullmatch(pattern)
    if program and not allows:
        yield Problem(
            f"command '{pattern}' matches only that spelling, and not '{program[1]}'",
            f"write {program[1]}, which matches {pattern} and `busybox {program[1]}` too",
        )


def _path(pattern: str, field: str, *, doubtful: bool) -> Iterator[Problem]:
    why = _no_path(pattern)
    if why is not None:
        clean = posixpath.normpath(pattern)
        what = f"{field} '{pattern}' matches no path that is written out: {why}"
        yield Problem(what, _instead(pattern, clean), useless=True)
    elif doubtful and pattern.rpartition("/")[2] in ("*", "**"):
        yield Problem(
            f"{field} '{pattern}' matches '\"$dir/file\"' as well, because $dir can be there",
            "end it in a name, or say on_doubt: passes",
        )


def _instead(pattern: str, clean: str) -> str:
    """`clean`: the pattern, normalised."""
    climbs = clean == ".." or clean.startswith("../")
    if climbs:
        return "write the absolute path; ./ in front is a place in the workspace, and never above"
    if is_local(pattern):
        return f"write {clean if clean == '.' else './' + clean}"
    if pattern.startswith(("/", "~", "**")):
        return f"write {clean}"
    return (
        f"write **/{clean} for wherever it is, ./{clean} for the one in the workspace, or its "
        "absolute path, or ~/ in front"
    )


def _host(pattern: str) -> Iterator[Problem]:
    if "/" in pattern or _PORT.fullmatch(pattern):
        name = re.sub(r"^[A-Za-z*]+://", "", pattern).partition("/")[0].partition(":")[0]
        yield Problem(
            f"hosts '{pattern}' is compared with names and addresses alone",
            f"write {name or 'the name'}, without scheme, port and path", useless=True,
        )  # fmt: skip


def _no_name(pattern: str) -> bool:
    """Whether no command's name can match: with a `/` the whole path is compared, normalised."""
    return "/" in pattern and is_literal(pattern) and posixpath.normpath(pattern) != pattern


def _no_path(pattern: str) -> str | None:
    """Why no path that is written out matches, or None. Paths are absolute and normalised."""
    absolute = in_workspace(pattern, HOME) if is_local(pattern) else from_home(pattern)
    if disjoint(absolute, "/**", path=True):
        return "paths are compared as absolute ones"
    if "[" in absolute or "\\" in absolute or absolute == "/":
        return None
    if any(part in ("", ".", "..") for part in absolute.split("/")[1:]):
        return "paths are compared without '.', '..', '//' and a '/' at the end"
    return None


def _unclosed(pattern: str) -> bool:
    index = 0
    while index < len(pattern):
        if pattern[index] == "\\":
            index += 1
        elif pattern[index] == "[":
            first = index + 2 if pattern[index + 1 : index + 2] in ("!", "^") else index + 1
            end = pattern.find("]", first + 1)
            if end < 0:
                return True
            index = end
        index += 1
    return False


def _quoted(words: tuple[str, ...]) -> str:
    return " or ".join(f"'{word}'" for word in words[:3])
