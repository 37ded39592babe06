"""Which changes are meant, and in which order they are applied."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from runner.errors import RequestError
from runner.model.outcome import Change, ChangeKind

_PATH_BYTES = 4096
_NAME_BYTES = 255
"""PATH_MAX and NAME_MAX (limits.h)."""


class Fate(StrEnum):
    """What became of one change; closed list."""

    APPLIED = "applied"
    ALREADY = "already"
    """The path is as the run left it; nothing had to be done."""
    DENIED = "denied"
    """A rule on writing refuses it."""
    PROTECTED = "protected"
    """It is executed without being asked for, and no profile says that it may be applied."""
    CHANGED = "changed"
    """The original is not what the run saw."""
    WITHHELD = "withheld"
    """Its content was not kept."""
    UNSUPPORTED = "unsupported"
    """A FIFO, a socket, a device, or the mode of a folder: never applied."""
    FAILED = "failed"
    """It could not be written."""


@dataclass(frozen=True, slots=True)
class Result:
    """One change, and what became of it."""

    change: Change
    fate: Fate
    why: str = ""
    """A clause; empty for what was applied."""


def is_plain(path: str) -> bool:
    """Whether a path leads down from the workspace and nowhere else."""
    names = path.split("/")
    return (
        "\0" not in path
        and len(_raw(path)) < _PATH_BYTES
        and all(name not in ("", ".", "..") and len(_raw(name)) <= _NAME_BYTES for name in names)
    )


def chosen(changes: Sequence[Change], paths: Sequence[str], directory: str) -> list[int]:
    """Numbers of the changes that the paths name; without paths all.

    A path is relative to the workspace, or absolute and in it; a folder means all below it.
    RequestError: one names no change.
    """
    if not paths:
        return [*range(len(changes))]
    found: set[int] = set()
    for given in paths:
        path = _relative(given, directory)
        named = {
            number
            for number, change in enumerate(changes)
            if path in (".", change.path) or change.path.startswith(f"{path}/")
        }
        if not named:
            raise RequestError(
                f"the run changed nothing at {given!r} that is left; "
                "`runner changes` lists what it changed"
            )
        found |= named
    return sorted(found)


def ordered(changes: Iterable[tuple[int, Change]]) -> list[tuple[int, Change]]:
    """Folders first and from the top, files and links, deletions from below, then what stands in a
    folder's place, which has to be empty by then."""
    return sorted(changes, key=lambda each: _rank(each[1]))


def _rank(change: Change) -> tuple[int, int, str]:
    depth = change.path.count("/")
    if change.kind is ChangeKind.DELETED:
        return 2, -depth, change.path
    if change.type == "directory":
        return 0, depth, change.path
    original = change.original
    if original is not None and original.type == "directory":
        return 3, -depth, change.path
    return 1, depth, change.path


def unsupported(change: Change) -> str | None:
    """Why a change is never applied, in a clause; None: it may be."""
    if not is_plain(change.path):
        return "its path leads out of the workspace, or is longer than a path can be"
    if change.kind is ChangeKind.DELETED:
        return None
    if change.type not in ("file", "symlink", "directory"):
        return f"a {change.type} is never applied"
    original = change.original
    if change.type == "directory" and original is not None and original.type == "directory":
        return "the mode of a folder is not kept"
    return None


def leads_out(change: Change, target: str) -> bool:
    """Whether a link at the change's path leads out of the workspace, as far as its words tell."""
    if target.startswith("/"):
        return True
    path = posixpath.normpath(posixpath.join(posixpath.dirname(change.path), target))
    return path == ".." or path.startswith("../")


def _relative(given: str, directory: str) -> str:
    path = posixpath.normpath(given)
    if path.startswith("/"):
        path = posixpath.relpath(path, directory)
    if path == ".." or path.startswith("../"):
        raise RequestError(f"{given!r} is not in the run's workspace {directory!r}")
    return path


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
