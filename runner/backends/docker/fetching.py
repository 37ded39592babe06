"""Fetches the contents of what a run changed from init, one by one, as far as there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.backends.contents import UNREAD, change_of, kept
from runner.backends.docker.channel import Channel
from runner.backends.docker.inside.wire import Kind, decode_json, encode_json
from runner.model.outcome import Change
from runner.ports import ContentSink


def fetched(
    channel: Channel, records: Sequence[Mapping[str, Any]], sink: ContentSink, timeout_s: float
) -> tuple[Change, ...]:
    """The records as changes, their contents in `sink`. LostError: init does not answer.

    `timeout_s`: for each piece.
    """
    return tuple(_fetched(channel, record, sink, timeout_s) for record in records)


def _fetched(
    channel: Channel, record: Mapping[str, Any], sink: ContentSink, timeout_s: float
) -> Change:
    if record["kind"] == "deleted" or record["type"] not in ("file", "symlink"):
        return change_of(record)
    if record["sha256"] is None:
        return change_of(record, None, UNREAD)
    if record["type"] == "symlink":
        target = os.fsencode(record["target"])
        digest, withheld = kept(sink, len(target), [target])
    else:
        pieces = _pieces(channel, record["path"], timeout_s)
        digest, withheld = kept(sink, record["size_bytes"], pieces)
    return change_of(record, digest, withheld)


def _pieces(channel: Channel, path: str, timeout_s: float) -> Iterator[bytes]:
    channel.send((encode_json(Kind.FETCH, path),), timeout_s)
    while True:
        for kind, payload in channel.next_frames(timeout_s):
            if kind is Kind.KEPT:
                yield payload
            elif kind is Kind.KEPT_END and decode_json(payload):
                return
            else:
                raise channel.astray(kind)
