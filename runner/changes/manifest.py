"""The list of what was kept of a run's changes, to bytes and back.

Its digest stands in the run's last event, so that what is applied is what was recorded. The bytes
are JSON with sorted keys in ASCII; names that are not UTF-8 are surrogate escapes (PEP 383).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from runner.errors import StateError
from runner.model.outcome import Change, ChangeKind, Original

VERSION = 1
_SIZE = re.compile(rb'\{"bytes":([0-9]{1,18}),')
SIZE_HEAD_BYTES = 64
"""So much of a manifest is enough for `size_of`."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All changes of a run, and the folder that they belong to."""

    run_id: str
    directory: str
    """Absolute host path of the workspace folder."""
    device: int
    inode: int
    """Of that folder, when the run was given it (stat(2))."""
    changes: tuple[Change, ...]
    truncated: bool
    """Whether the run changed more than is listed."""
    bytes: int
    """Of all contents that are kept."""


def encode(manifest: Manifest) -> bytes:
    """The manifest as it is stored."""
    data = {**asdict(manifest), "version": VERSION}
    data["changes"] = [{**asdict(each), "kind": each.kind.value} for each in manifest.changes]
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


def decode(data: bytes) -> Manifest:
    """What `encode` was given. StateError: it is no manifest of this version."""
    try:
        told = json.loads(data)
        if told.pop("version") != VERSION:
            raise StateError(
                "the list of kept changes is of another version of runner; use that one"
            )
        manifest = Manifest(**told)
        return replace(manifest, changes=tuple(_change(each) for each in told["changes"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(
            "the list of kept changes is damaged; discard it with `runner discard`"
        ) from error


def digest(data: bytes) -> str:
    """SHA-256 of a stored manifest, hex."""
    return hashlib.sha256(data).hexdigest()


def size_of(head: bytes) -> int | None:
    """`bytes` from a stored manifest's first `SIZE_HEAD_BYTES`; None: that is no manifest."""
    found = _SIZE.match(head)
    return int(found[1]) if found else None


def withheld_from(changes: tuple[Change, ...], why: str) -> tuple[Change, ...]:
    """The same changes when nothing of their contents could be kept."""
    return tuple(
        replace(each, withheld=each.withheld or why) if has_content(each) else each
        for each in changes
    )


def has_content(change: Change) -> bool:
    """Whether there is something to keep of it: a file's bytes, a link's target."""
    return change.kind is not ChangeKind.DELETED and change.type in ("file", "symlink")


def _change(told: Mapping[str, Any]) -> Change:
    original = told["original"]
    return Change(
        **{
            **told,
            "kind": ChangeKind(told["kind"]),
            "original": None if original is None else Original(**original),
        }
    )
