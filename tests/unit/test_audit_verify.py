"""Verification names the first event that does not hold, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from runner.audit.canonical import canonical
from runner.audit.event import NO_PREVIOUS, seal
from runner.audit.merkle import leaf_hash, tree_of
from runner.audit.stored_event import Row
from runner.audit.verify import StoredTree, export_line, verify, verify_jsonl
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.principal import Principal

SIZE = 11


def _events(size: int = SIZE) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    for seq in range(size):
        draft = (
            EventDraft(EventKind.LOG_CREATED, {"log": "ab"})
            if seq == 0
            else EventDraft(
                EventKind.RUN_DECIDED, {"n": seq, "x": 1.0}, Principal(1, f"a{seq}"), f"r{seq}"
            )
        )
        events.append(seal(draft, seq, 1e9 + seq, events[-1].leaf_hash if events else NO_PREVIOUS))
    return events


def _row(event: AuditEvent) -> Row:
    principal = json.loads(event.body)["principal"]
    return Row(
        event.seq,
        event.time,
        event.kind,
        event.run_id,
        principal["agent"] if principal else None,
        event.leaf_hash,
        event.previous,
        event.body,
    )


EVENTS = _events()
ROWS = [_row(e) for e in EVENTS]
TREE = tree_of(e.leaf_hash for e in EVENTS)
STORED = StoredTree(TREE.size, TREE.to_bytes())


def test_a_log_that_holds() -> None:
    found = verify(iter(ROWS), STORED)
    assert found.ok
    assert (found.size, found.head) == (SIZE, EVENTS[-1].leaf_hash.hex())
    assert found.root == TREE.root.hex()


def test_an_empty_log_holds() -> None:
    found = verify([], StoredTree(0, b""))
    assert found.ok
    assert (found.size, found.head) == (0, "0" * 64)


def _resealed(row: Row, **changes: object) -> Row:
    """`row` with other bytes and a leaf hash that fits them: only the chain and tree can tell."""
    body = canonical({**json.loads(row.body), **changes})  # type: ignore[arg-type]
    return row._replace(body=body, leaf_hash=leaf_hash(body))


@pytest.mark.parametrize("seq", [0, 1, 5, SIZE - 1])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r._replace(body=r.body[:-2] + b"2}"), "leaf hash"),
        (lambda r: r._replace(leaf_hash=bytes(32)), "leaf hash"),
        (lambda r: r._replace(leaf_hash=None), "leaf hash"),
        (lambda r: r._replace(leaf_hash="x"), "leaf hash"),
        (lambda r: r._replace(body=r.body.decode()), "not stored as bytes"),
        (lambda r: r._replace(body=None), "not stored as bytes"),
        (lambda r: r._replace(time="1970"), "column time"),
        (lambda r: r._replace(kind="run.started"), "column kind"),
        (lambda r: r._replace(run_id="r99"), "column run_id"),
        (lambda r: r._replace(run_id=b"r1"), "column run_id"),
        (lambda r: r._replace(agent="root"), "column agent"),
        (lambda r: r._replace(previous=b"\x01" * 32), "column previous"),
        (lambda r: r._replace(seq=r.seq + 1), "it is missing"),
        (lambda r: r._replace(seq=-1), "numbered -1"),
        (lambda r: r._replace(seq=float(r.seq) + 0.5), "stands in its place"),
        (
            lambda r: r._replace(body=b" " + r.body, leaf_hash=leaf_hash(b" " + r.body)),
            "not canonical",
        ),
        (lambda r: r._replace(body=b"[]", leaf_hash=leaf_hash(b"[]")), "no event of version"),
        (lambda r: _resealed(r, v=2), "no event of version"),
        (lambda r: _resealed(r, extra=1), "fields of an event"),
        (lambda r: _resealed(r, data=[]), "fields of an event"),
        (lambda r: _resealed(r, prev="AB" * 32), "fields of an event"),
        (lambda r: _resealed(r, prev=7), "fields of an event"),
        (lambda r: _resealed(r, principal={}), "fields of an event"),
        (lambda r: _resealed(r, seq=99), "column seq"),
        (lambda r: _resealed(r, seq=True), "fields of an event"),
    ],
)
def test_a_changed_event_is_named(seq: int, change: Callable[[Row], Row], said: str) -> None:
    rows = [*ROWS]
    rows[seq] = change(rows[seq])
    found = verify(rows, STORED)
    assert found.failure is not None
    assert found.failure.seq == seq
    assert said in found.failure.why
    assert found.size == seq


def test_an_event_changed_with_its_hash_breaks_the_next_link() -> None:
    rows = [*ROWS]
    rows[4] = _resealed(rows[4], data={"n": "other"})
    found = verify(rows, STORED)
    assert found.failure is not None
    assert found.failure.seq == 5
    assert "does not follow event 4" in found.failure.why


def test_the_last_event_changed_with_its_hash_breaks_the_tree() -> None:
    rows = [*ROWS]
    rows[-1] = _resealed(rows[-1], data={"n": "other"})
    found = verify(rows, STORED)
    assert found.failure is not None
    assert found.failure.seq == SIZE - 1
    assert "the tree was not made of this event" in found.failure.why


def test_a_log_rewritten_from_an_event_on_breaks_the_tree() -> None:
    events = EVENTS[:3]
    for seq in range(3, SIZE):
        draft = EventDraft(EventKind.RUN_ENDED, {"n": -seq}, None, None)
        events.append(seal(draft, seq, 1e9, events[-1].leaf_hash))
    found = verify([_row(e) for e in events], STORED)
    assert found.failure is not None
    assert found.failure.seq == 0  # 11 leaves: peaks over 0-7, 8-9 and 10; 3 is in the first
    assert "up to 7" in found.failure.why


def test_a_log_created_twice_or_not_at_all() -> None:
    second = seal(EventDraft(EventKind.LOG_CREATED, {}), 1, 1e9, EVENTS[0].leaf_hash)
    found = verify([ROWS[0], _row(second)])
    assert found.failure is not None
    assert found.failure.seq == 1
    assert "creation comes first" in found.failure.why
    first = seal(EventDraft(EventKind.RUN_ENDED, {}), 0, 1e9, NO_PREVIOUS)
    found = verify([_row(first)])
    assert found.failure is not None
    assert found.failure.seq == 0


@pytest.mark.parametrize("gone", [0, 1, 6])
def test_a_missing_event_is_named(gone: int) -> None:
    found = verify([*ROWS[:gone], *ROWS[gone + 1 :]], STORED)
    assert found.failure is not None
    assert found.failure.seq == gone
    assert "it is missing" in found.failure.why


@pytest.mark.parametrize("left", [0, 1, 10])
def test_a_cut_tail_is_named(left: int) -> None:
    found = verify(ROWS[:left], STORED)
    assert found.failure is not None
    assert found.failure.seq == left
    assert "the tree was made of 11" in found.failure.why


@pytest.mark.parametrize(
    ("stored", "seq", "said"),
    [
        (StoredTree(None, None), 0, "missing or unreadable"),
        (StoredTree("11", STORED.peaks), 0, "missing or unreadable"),
        (StoredTree(11, b"short"), 0, "damaged"),
        (StoredTree(-1, b""), 0, "not in the tree"),
        (StoredTree(9, STORED.peaks), 9, "not in the tree"),
        (StoredTree(11, bytes(32) + TREE.to_bytes()[32:]), 0, "up to 7"),
        (StoredTree(11, TREE.to_bytes()[:32] + bytes(32) + TREE.to_bytes()[64:]), 8, "up to 9"),
    ],
)
def test_a_changed_tree_is_named(stored: StoredTree, seq: int, said: str) -> None:
    found = verify(ROWS, stored)
    assert found.failure is not None
    assert found.failure.seq == seq
    assert said in found.failure.why


def test_events_are_read_once_and_not_past_the_first_that_fails() -> None:
    taken = 0

    def rows() -> Iterator[Row]:
        nonlocal taken
        for row in ROWS:
            taken += 1
            yield row._replace(agent="x") if row.seq == 2 else row

    verify(rows(), STORED)
    assert taken == 3


def _lines(start: int = 0) -> list[bytes]:
    return [export_line(e.seq, e.leaf_hash, e.body) for e in EVENTS[start:]]


def test_an_export_verifies_by_itself() -> None:
    root = TREE.root.hex()
    assert verify_jsonl(_lines(), size=SIZE, root=root).ok
    assert verify_jsonl([line.decode() for line in _lines()], root=root).ok
    assert verify_jsonl(_lines()).head == EVENTS[-1].leaf_hash.hex()


def test_a_stranger_can_check_a_line_with_json_and_sha256_alone() -> None:
    value = json.loads(_lines()[3])
    body = json.dumps(
        value["body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    assert leaf_hash(body).hex() == value["leaf_hash"]


def test_a_part_of_an_export_verifies_but_has_no_root() -> None:
    found = verify_jsonl(_lines(4), start=4, size=SIZE)
    assert found.ok
    assert found.size == SIZE - 4
    assert found.root is None


@pytest.mark.parametrize(
    ("change", "seq", "said"),
    [
        (lambda ls: ls[:6] + ls[7:], 6, "it is missing"),
        (lambda ls: ls[:-1], 10, "it is missing: the log had 11"),
        (lambda ls: [*ls[:3], b"{}\n", *ls[4:]], 3, "can't be read"),
        (lambda ls: [*ls[:3], b"[1]\n", *ls[4:]], 3, "can't be read"),
        (lambda ls: [*ls[:3], b"\xff\n", *ls[4:]], 3, "can't be read"),
        (lambda ls: [*ls[:3], ls[3].replace(b'"n":3', b'"n":4'), *ls[4:]], 3, "leaf hash"),
        (lambda ls: [*ls[:3], ls[3].replace(b'"seq":3', b'"seq":4'), *ls[4:]], 3, "missing"),
        (lambda ls: [*ls[:3], ls[4], ls[3], *ls[5:]], 3, "stands in its place"),
    ],
)
def test_a_changed_export_is_named(
    change: Callable[[list[bytes]], list[bytes]], seq: int, said: str
) -> None:
    found = verify_jsonl(change(_lines()), size=SIZE)
    assert found.failure is not None
    assert found.failure.seq == seq
    assert said in found.failure.why


def test_an_export_of_another_log() -> None:
    found = verify_jsonl(_lines(), root="00" * 32)
    assert found.failure is not None
    assert "root" in found.failure.why
    longer = verify_jsonl(_lines(), size=5)
    assert longer.failure is not None
    assert longer.failure.seq == 5
