"""Programs and hosts that an intent names, as the log has them: what a search finds a run by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runner.model.intent import Intent
from runner.policy import touched
from runner.policy.folders import base_name

NAMES_LISTED = 64
"""Programs, and hosts, that are written out."""
NAME_CHARACTERS = 255
"""Longer ones are left out: no file has such a name (NAME_MAX), and no host (RFC 1035, 2.3.4)."""


def named(intent: Intent, told: str | None = None) -> dict[str, list[str]]:
    """`programs` without their folders and `hosts`, each once, in the order in which they stand.

    Only what reading tells for sure. `told`: the program's text without its secrets, where there
    were any; then a name has to stand in it, because in a list of names nothing would tell that one
    of them is a password.
    """
    return {"programs": _listed(_programs(intent), told), "hosts": _listed(_hosts(intent), told)}


def _programs(intent: Intent) -> Iterator[str]:
    for command in intent.commands:
        if command.words and not command.words[0].dynamic:
            yield base_name(command)


def _hosts(intent: Intent) -> Iterator[str]:
    for command in intent.commands:
        yield from (host.text for host in touched.hosts(command) if not host.dynamic)
    yield from (touched.clean_host(host.text) for host in intent.hosts if not host.dynamic)


def _listed(names: Iterable[str], told: str | None) -> list[str]:
    lowered = None if told is None else told.lower()  # hosts are in lower case
    found: dict[str, None] = {}
    for name in names:
        if not 0 < len(name) <= NAME_CHARACTERS:
            continue
        if lowered is None or name.lower() in lowered:
            found[name] = None
            if len(found) == NAMES_LISTED:
                break
    return list(found)
