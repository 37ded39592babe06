"""From a change as a sandbox tells it, and its bytes, to a change whose content is kept or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runner.model.outcome import Change, ChangeKind, Original
from runner.ports import ContentSink

UNREAD = "it was not read: it is mostly a hole, or larger than what is read of a run"


def kept(
    sink: ContentSink, size_bytes: int, chunks: Iterable[bytes]
) -> tuple[str | None, str | None]:
    """Digest of the bytes (None: they were not read), and why they are not kept, or None."""
    refusal = sink.refusal(size_bytes)
    if refusal is not None:
        return None, refusal
    content = sink.begin()
    for chunk in chunks:
        content.write(chunk)
    return content.finish()


def change_of(
    told: Mapping[str, Any], sha256: str | None = None, withheld: str | None = None
) -> Change:
    """A record of the list as a change; `sha256` instead of the one that it states."""
    original = told.get("original")
    return Change(
        path=told["path"],
        kind=ChangeKind(told["kind"]),
        type=told["type"],
        sha256=sha256 or told.get("sha256"),
        size_bytes=told.get("size_bytes"),
        executable=told.get("executable", False),
        original=None if original is None else Original(**original),
        withheld=withheld,
    )
