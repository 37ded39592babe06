"""Proofs over a log whose first events are gone, and segments that stand for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from runner.audit import merkle
from runner.audit.beginning import Beginning, beginning_data, beginning_from, beginning_of
from runner.audit.canonical import canonical
from runner.audit.event import NO_PREVIOUS, seal
from runner.audit.merkle import Tree, leaf_hash, range_root, root_above, tree_of
from runner.audit.segment import Segment, SegmentError, verify_segment, written
from runner.audit.stored_event import Row
from runner.audit.verify import StoredTree, verify
from runner.model.event import AuditEvent, EventDraft, EventKind

SIZE = 70
LEAVES = [leaf_hash(b"%d" % n) for n in range(SIZE)]


@pytest.mark.parametrize("base", [*range(0, 20), 31, 32, 33, 48, 63, 64, 65, 69, 70])
def test_what_is_left_is_proved_as_if_all_were_there(base: int) -> None:
    read: list[int] = []

    def leaves(start: int, end: int) -> Iterator[bytes]:
        assert start >= base
        read.append(start)
        return iter(LEAVES[start:end])

    whole, left = range_root(LEAVES), root_above(tree_of(LEAVES[:base]), leaves)
    for size in range(max(base, 1), SIZE + 1):
        for index in range(base, size):
            assert merkle.inclusion_proof(left, index, size) == merkle.inclusion_proof(
                whole, index, size
            )
        for old in range(max(base, 1), size + 1):
            assert merkle.consistency_proof(left, old, size) == merkle.consistency_proof(
                whole, old, size
            )
        assert left(0, size) == whole(0, size)


@pytest.mark.parametrize("base", [2, 3, 21, 64])
def test_what_was_archived_is_not_proved(base: int) -> None:
    left = root_above(tree_of(LEAVES[:base]), lambda start, end: LEAVES[start:end])
    refused = 0
    for index in range(base):
        try:
            proof = merkle.inclusion_proof(left, index, SIZE)
        except ValueError:
            refused += 1
        else:  # the peaks are all it needs
            assert proof == merkle.inclusion_proof(range_root(LEAVES), index, SIZE)
    assert refused >= base - 2
    with pytest.raises(ValueError, match="archived; restore them"):
        left(1, 2)


def _events(size: int, archived: Beginning | None = None, at: int = 0) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    for seq in range(size):
        draft = EventDraft(EventKind.RUN_DECIDED, {"n": seq}, None, f"r{seq}")
        if seq == 0:
            draft = EventDraft(EventKind.LOG_CREATED, {"log_id": "ab"})
        elif archived is not None and seq == at:
            draft = EventDraft(EventKind.LOG_ARCHIVED, {"to": beginning_data(archived)})
        events.append(seal(draft, seq, 1e9 + seq, events[-1].leaf_hash if events else NO_PREVIOUS))
    return events


def _row(event: AuditEvent) -> Row:
    return Row(
        event.seq, event.time, event.kind, event.run_id, None, event.leaf_hash, event.previous,
        event.body,
    )  # fmt: skip


def _behind(events: list[AuditEvent]) -> Beginning:
    return Beginning(tree_of(e.leaf_hash for e in events), events[-1].leaf_hash)


FIRST = _events(9)[:6]
EVENTS = _events(11, _behind(FIRST), at=8)
TREE = tree_of(e.leaf_hash for e in EVENTS)


def test_a_log_holds_from_where_it_begins() -> None:
    rows = [_row(e) for e in EVENTS[6:]]
    stored = StoredTree(TREE.size, TREE.to_bytes())
    found = verify(rows, stored, beginning=_behind(FIRST))
    assert found.ok, found.failure
    assert (found.size, found.archived, found.root) == (11, 6, TREE.root.hex())


@pytest.mark.parametrize(
    "beginning",
    [
        replace(_behind(FIRST), last_hash=bytes(32)),
        replace(_behind(FIRST), tree=Tree(6, (bytes(32), bytes(32)))),
        _behind(EVENTS[:5]),
        _behind(EVENTS[:7]),
    ],
)
def test_a_beginning_that_is_another_one_is_found(beginning: Beginning) -> None:
    rows = [_row(e) for e in EVENTS[6:]]
    assert not verify(rows, StoredTree(TREE.size, TREE.to_bytes()), beginning=beginning).ok


def test_events_that_are_gone_and_nobody_archived_are_missed() -> None:
    events = _events(11)
    tree = tree_of(e.leaf_hash for e in events)
    rows = [_row(e) for e in events[6:]]
    found = verify(rows, StoredTree(11, tree.to_bytes()), beginning=_behind(events[:6]))
    assert found.failure is not None
    assert found.failure.seq == 5
    assert "no event says" in found.failure.why


def test_a_beginning_is_read_as_it_was_written() -> None:
    for beginning in (Beginning(), _behind(FIRST)):
        told = json.loads(canonical(beginning_data(beginning)))
        assert beginning_from(told) == beginning
        for change in (
            {"size": 4}, {"size": True}, {"size": -1}, {"peaks": ["00"]}, {"peaks": None},
            {"root": "00" * 32}, {"head": "00"}, {"head": 1},
        ):  # fmt: skip
            with pytest.raises(ValueError, match=r".+"):
                beginning_from({**told, **change})
    for value in (None, [], "x", 1):
        with pytest.raises(ValueError, match=r".+"):
            beginning_from(value)
    with pytest.raises(ValueError, match="no hash"):
        beginning_of(1, bytes(32), "x")


def _segment(start: int, end: int, checkpoint: str | None = None) -> list[bytes]:
    before = _behind(EVENTS[:start]) if start else Beginning()
    told = ((e.seq, e.leaf_hash, e.body) for e in EVENTS[start:end])
    return [*written("ab" * 16, before, end - start, told, lambda _: checkpoint)]


def test_segments_hold_and_lie_end_to_end() -> None:
    at = Beginning()
    for start, end in ((0, 4), (4, 5), (5, 11)):
        segment = Segment(_segment(start, end, "a note"))
        assert (segment.header.start, segment.header.end) == (start, end)
        assert segment.header.before == at
        found = verify_segment(segment)
        assert found.ok, found.failure
        assert segment.seal is not None
        assert segment.seal.checkpoint == "a note"
        at = segment.seal.after
    assert at.tree == TREE


Change = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize(
    ("change", "seq"),
    [
        (lambda x: x[:2] + x[3:], 5),
        (lambda x: x[:-1], 8),
        (lambda x: x[:-2], 7),
        (lambda x: x[:-2] + x[-1:], 7),
        (lambda x: [*x, b"{}\n"], 8),
        (lambda x: [x[0], x[2], x[1], *x[3:]], 4),
        (lambda x: [*x[:3], x[3].replace(b'"n":6', b'"n":7'), *x[4:]], 6),
        (lambda x: [*x[:-1], x[-1].replace(b'"size":8', b'"size":9')], 8),
        (lambda x: [*x[:-1], x[-1].replace(b"null", b'"another note"')], None),
        (lambda x: [x[0].replace(b'"size":4,', b'"size":3,'), *x[1:]], None),
        (lambda x: [*x[:-1], b"\n"], 8),
    ],
)
def test_a_segment_that_was_changed_is_found(change: Change, seq: int | None) -> None:
    try:
        found = verify_segment(Segment(change(_segment(4, 8))))
    except SegmentError:
        assert seq is None
        return
    if seq is None:  # the note is signed by itself; the seal is about the events
        assert found.ok
        return
    assert found.failure is not None
    assert found.failure.seq == seq


@pytest.mark.parametrize(
    "first", [b"", b"\n", b"{}\n", b"[]\n", b'{"from":1,"log":"x","segment":1,"size":4}\n', b"\xff"]
)
def test_what_is_no_segment_is_refused(first: bytes) -> None:
    with pytest.raises(SegmentError):
        Segment([first, *_segment(4, 8)[1:]])


def test_events_that_do_not_follow_are_not_sealed() -> None:
    told = [(e.seq, e.leaf_hash, e.body) for e in EVENTS]
    for events, count in ((told[1:], 3), (told[:2], 3), (told[:1] + told[2:], 3)):
        with pytest.raises(SegmentError, match="is missing"):
            list(written("ab" * 16, Beginning(), count, events))
