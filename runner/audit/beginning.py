"""Where a log begins: at event 0, or behind events that were archived and removed.

What stands for the removed ones is their compact range: the peaks of the tree over them (RFC 9162,
2.1; `merkle.Tree`), and the leaf hash of the last one, which the first event that is left names.
Both are only as good as who vouches for them: `log.archived`, an event of the log that was
written when they were removed, must say the same; and a checkpoint somebody kept, or the
archive itself, shows the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.audit.event import NO_PREVIOUS
from runner.audit.merkle import HASH_BYTES, Tree


@dataclass(frozen=True, slots=True)
class Beginning:
    """The events before the first one: how many, their tree's peaks, the last one's hash."""

    tree: Tree = Tree()
    last_hash: bytes = NO_PREVIOUS

    @property
    def size(self) -> int:
        """Number of the first event that is there."""
        return self.tree.size


WHOLE = Beginning()
"""A log that has all its events."""


def beginning_of(size: object, peaks: object, last_hash: object) -> Beginning:
    """From what a database or a file says, of any type. ValueError: that can't be one."""
    if type(size) is not int or not isinstance(peaks, bytes):
        raise ValueError("the record of the archived events is damaged")
    if not isinstance(last_hash, bytes) or len(last_hash) != HASH_BYTES:
        raise ValueError("the record of the archived events is damaged: no hash of the last one")
    tree = Tree.from_bytes(size, peaks)
    if size == 0 and last_hash != NO_PREVIOUS:
        raise ValueError("before event 0 there is none, and yet there is a hash of one")
    return Beginning(tree, last_hash)


def beginning_data(beginning: Beginning) -> dict[str, object]:
    """As it stands in an event and in a segment; `beginning_from` reads it."""
    return {
        "size": beginning.size,
        "peaks": [peak.hex() for peak in beginning.tree.peaks],
        "head": beginning.last_hash.hex(),
        "root": beginning.tree.root.hex(),
    }


def beginning_from(data: object) -> Beginning:
    """ValueError: `data` is not what `beginning_data` writes."""
    if not isinstance(data, Mapping):
        raise ValueError("it is no tree")
    told: Mapping[str, Any] = data
    try:
        peaks = b"".join(bytes.fromhex(peak) for peak in told["peaks"])
        found = beginning_of(told["size"], peaks, bytes.fromhex(told["head"]))
        if found.tree.root.hex() != told["root"]:
            raise ValueError("its root is not that of its peaks")
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is no tree: {error}") from None
    return found


def archived_up_to(body: bytes) -> Beginning | None:
    """What the bytes of a `log.archived` or `log.repaired` event say is gone; None: nothing."""
    try:
        data = json.loads(body)["data"]
        return beginning_from(data["archived"] if "archived" in data else data["to"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
