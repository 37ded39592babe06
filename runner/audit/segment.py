"""A sealed segment: a range of the log's events that stands for itself, as lines of text.

The first line is a header, then comes a line for each event as in an export, the last line is the
seal. All are canonical JSON (RFC 8785):

    {"from":{…},"log":"<log id>","segment":1,"size":N}
    {"body":{…},"leaf_hash":"<hex>","seq":A}
    …
    {"checkpoint":"<signed note>"|null,"sha256":"<hex>","to":{…}}

`from` and `to` are the tree over the events before the first and up to the last one: `size`,
`peaks`, `root`, and `head`, the leaf hash of the last event before. `sha256` is over all bytes
before the seal. So segments can be laid end to end, and each shows that it is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from runner.audit.beginning import Beginning, beginning_data, beginning_from
from runner.audit.canonical import canonical, parse_canonical
from runner.audit.merkle import HASH_BYTES
from runner.audit.stored_event import Row, unreadable
from runner.audit.verify import Verification, export_line, rows_of, verify

SEGMENT_VERSION = 1
MAX_LINE_BYTES = 64 * 1024 * 1024
"""A line that is longer is refused; the largest events are some hundred kilobytes."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says it is."""

    log_id: str
    before: Beginning
    count: int

    @property
    def start(self) -> int:
        """Number of the first event."""
        return self.before.size

    @property
    def end(self) -> int:
        """Number of the last event, and one."""
        return self.before.size + self.count


@dataclass(frozen=True, slots=True)
class Seal:
    """What a segment's last line says."""

    after: Beginning
    sha256: str
    checkpoint: str | None


class SegmentError(ValueError):
    """The text is no segment, or a damaged one; the message is a clause."""


def written(
    log_id: str,
    before: Beginning,
    count: int,
    events: Iterable[tuple[int, bytes, bytes]],
    checkpoint: Callable[[Beginning], str | None] = lambda _: None,
) -> Iterator[bytes]:
    """The lines of a segment of `count` events, each as number, leaf hash and bytes.

    `checkpoint`: the newest signed note about the log that covers all of them, given the tree
    behind them. SegmentError: the events are not those that follow `before`.
    """
    header = {
        "segment": SEGMENT_VERSION,
        "log": log_id,
        "from": beginning_data(before),
        "size": count,
    }
    digest, tree, head, seq = hashlib.sha256(), before.tree, before.last_hash, before.size
    line = canonical(header) + b"\n"
    digest.update(line)
    yield line
    for number, leaf, body in events:
        if number != seq:
            raise SegmentError(f"event {seq} is missing")
        line = export_line(number, leaf, body)
        digest.update(line)
        yield line
        tree, head, seq = tree.appended(leaf), leaf, seq + 1
    if seq != before.size + count:
        raise SegmentError(f"event {seq} is missing")
    after = Beginning(tree, head)
    seal = {
        "to": beginning_data(after),
        "sha256": digest.hexdigest(),
        "checkpoint": checkpoint(after),
    }
    yield canonical(seal) + b"\n"


class Segment:
    """A segment that is read, once, from its lines, with their line ends.

    `rows` are for `verify`, for which an event fails that a seal does not hold for.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        """SegmentError: the first line is no header."""
        self._lines = iter(lines)
        first = next(self._lines, b"")
        self.header = _header(first)
        self._digest = hashlib.sha256(first)
        self.seal: Seal | None = None
        """Known when all rows are read."""

    def rows(self) -> Iterator[Row]:
        """The events, in order; after the last one the seal is compared."""
        tree, head = self.header.before.tree, self.header.before.last_hash
        for _ in range(self.header.count):
            line = self._next()
            if not line:
                unreadable("it is missing: the segment ends before it")
            self._digest.update(line)
            for row in rows_of([line]):
                yield row
                # `verify` has found it to be the hash of the bytes, or asks for no more.
                if not isinstance(row.leaf_hash, bytes) or len(row.leaf_hash) != HASH_BYTES:
                    unreadable("it has no leaf hash")
                tree, head = tree.appended(row.leaf_hash), row.leaf_hash
        try:
            seal = _seal(self._next())
        except SegmentError as error:
            unreadable(f"the segment before it is not sealed: {error}")
        if self._next():
            unreadable("something follows the segment's seal")
        if seal.sha256 != self._digest.hexdigest() or seal.after != Beginning(tree, head):
            unreadable("the seal of the segment before it was made of other events")
        self.seal = seal

    def _next(self) -> bytes:
        try:
            return next(self._lines, b"")
        except SegmentError as error:
            unreadable(str(error))


def verify_segment(segment: Segment) -> Verification:
    """Check a segment by itself: events, chain, tree and seal.

    That the events before it are as its header says, only they can show. `size` and `root` of
    what is returned are those of the whole log up to the segment's end.
    """
    return verify(segment.rows(), beginning=segment.header.before, vouched=True)


def _header(line: bytes) -> Header:
    value = _object(line, "header")
    try:
        log_id, count = value["log"], value["size"]
        before = beginning_from(value["from"])
        known = value["segment"] == SEGMENT_VERSION and value.keys() == _HEADER_FIELDS
    except (KeyError, ValueError) as error:
        raise SegmentError(f"it does not begin with the header of a segment: {error}") from None
    if not known or not isinstance(log_id, str) or type(count) is not int or count <= 0:
        raise SegmentError("it does not begin with the header of a segment")
    return Header(log_id, before, count)


def _seal(line: bytes) -> Seal:
    value = _object(line, "seal")
    try:
        after = beginning_from(value["to"])
        digest, checkpoint = value["sha256"], value["checkpoint"]
    except (KeyError, ValueError) as error:
        raise SegmentError(f"its last line is no seal: {error}") from None
    if not isinstance(digest, str) or not isinstance(checkpoint, str | None):
        raise SegmentError("its last line is no seal")
    return Seal(after, digest, checkpoint)


_HEADER_FIELDS = frozenset({"segment", "log", "from", "size"})


def _object(line: bytes, what: str) -> dict[str, Any]:
    try:
        value = parse_canonical(line.removesuffix(b"\n"))
    except ValueError as error:
        raise SegmentError(f"its {what} is {error}") from None
    if not isinstance(value, dict):
        raise SegmentError(f"its {what} is no object")
    return value
