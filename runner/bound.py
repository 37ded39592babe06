"""What a run on the host's folder itself (`workspace: bind`) asks beyond any other. Pure.

What such a run writes is there at once, for whoever comes after it: so nothing holds its size, and
the folder must hold nothing that decides about the next run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.errors import RequestError
from runner.model.limits import LIMIT_KEYS, LimitOverrides, Limits, Unlimited

UNHELD = ("workspace", "inodes")
"""Limits that nothing can hold there: the folder lies on a file system of the host."""


def stated(limits: Limits | LimitOverrides) -> Iterator[str]:
    """Keys of `UNHELD` that are given a bound."""
    for key in UNHELD:
        bound = getattr(limits, LIMIT_KEYS[key])
        if bound is not None and not isinstance(bound, Unlimited):
            yield key


def unheld(keys: Sequence[str]) -> str:
    """Why these limits are refused, as a clause, and what to do."""
    one = len(keys) == 1
    return (
        f"{' and '.join(map(repr, keys))} can't be held in a folder that is bound; say "
        f"'unlimited' for {'it' if one else 'them'} there, or use a profile with workspace: cow"
    )


def check_bound(directory: str, kept: Sequence[tuple[str, str]]) -> None:
    """RequestError when a run on this folder could change what decides about later runs.

    `kept`: what something is, in words, and its path. All paths are absolute and resolved.
    """
    for what, path in kept:
        if _within(path, directory) or _within(directory, path):
            relation = "holds" if _within(path, directory) else "lies in"
            raise RequestError(
                f"workspace {directory!r} {relation} {what} ({path}), which a run with "
                "workspace: bind could change; move one of them, or use workspace: cow"
            )


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
