"""The paths of an action whose links matter to rules. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import islice
from weakref import ref

from runner.analysis.recent import Recent
from runner.model.action import Exec
from runner.model.intent import Intent
from runner.policy.folders import Folders

PATHS_LIMIT = 256
"""Paths of one action that are followed."""
_KNOWN_BYTES = 1 << 20
_PATH_BYTES = 64


def paths(action: Exec) -> tuple[str, ...]:
    """Absolute and not normalised, each once, the first of them if there are many.

    Literal ones, and the folders that globs look in. What a link may be in is not told.
    """
    key = id(action.intent), action.workspace, "HOME" in action.environment
    known = _KNOWN.get(key)
    # An identity means nothing once its object is gone: another may have it then.
    if known is not None and known[0]() is action.intent:
        return known[1]
    found = tuple(islice(dict.fromkeys(_each(action)), PATHS_LIMIT))
    weight = sum(_PATH_BYTES + len(each) for each in found) + _PATH_BYTES
    _KNOWN.put(key, (ref(action.intent), found), weight)
    return found


_KNOWN: Recent[Hashable, tuple[ref[Intent], tuple[str, ...]]] = Recent(_KNOWN_BYTES)


def _each(action: Exec) -> Iterator[str]:
    folders = Folders.of(action)
    for command in islice(action.intent.commands, PATHS_LIMIT):
        for word in islice(command.words[1:], PATHS_LIMIT):
            yield from folders.raw(word)
        for use in command.redirects:
            yield from folders.raw(use.path)
    for use in islice(action.intent.paths, PATHS_LIMIT):
        yield from folders.raw(use.path)
