"""How rules write paths and options: `~`, `./`, `--option=value`. Pure."""

from __future__ import annotations

import re

from runner.model.intent import Word
from runner.policy.folders import HOME

_SPECIAL = re.compile(r"([*?\[\\])")
_OPTION = re.compile(r"--[^=*?\[\]\\]+=")
"""The head of a pattern on an option with its value, whose name is written out."""
_SPLIT = re.compile(r"--[^=]+")
"""An option whose value, if it takes one, is the next word."""


def from_home(pattern: str) -> str:
    """A pattern on paths, with `~` as the sandbox's home folder."""
    return HOME + pattern[1:] if pattern == "~" or pattern.startswith("~/") else pattern


def is_local(pattern: str) -> bool:
    """Whether a pattern on paths says where in the workspace: `.`, `./out/**`."""
    return pattern == "." or pattern.startswith("./")


def in_workspace(pattern: str, workspace: str) -> str:
    """A local pattern as an absolute one; `workspace`: absolute, normalised, of any characters."""
    folder = _SPECIAL.sub(r"\\\1", workspace.rstrip("/"))
    return folder + pattern[1:] or "/"


def local(place: str, workspace: str) -> str | None:
    """An absolute, normalised path as a local pattern would write it; None: it is outside."""
    if place == workspace:
        return "."
    folder = workspace.rstrip("/") + "/"
    return "./" + place[len(folder) :] if place.startswith(folder) else None


def option_name(pattern: str) -> str | None:
    """The option that a pattern like `--mode=fast` or `--mode=*` is about; None: it is another."""
    found = _OPTION.match(pattern)
    return found[0][:-1] if found is not None else None


def joined(option: Word, value: Word) -> Word | None:
    """Two words as the one that `--option=value` would be; None: the first is no such option."""
    if not option.dynamic:
        if not (option.text.startswith("--") and _SPLIT.fullmatch(option.text)):
            return None
        head = option.text + "="
        if not value.dynamic:
            return Word(head + value.text)
        return Word(f"{head}{value.text}", True, head + value.prefix, value.suffix, many=value.many)
    if value.dynamic:
        end, many = value.suffix, option.many or value.many
    else:
        end, many = f"{option.suffix}={value.text}", option.many
    return Word(f"{option.text}={value.text}", True, option.prefix, end, many=many)
