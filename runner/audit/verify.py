"""Verification: does every event hold, and does the tree over them?

Reads events once, in order, in constant memory, and trusts nothing: a column may hold any type
that SQLite has. What is checked of each event, in this order: it has the next number; its leaf
hash is that of its bytes; the bytes are canonical JSON with exactly the fields of an event; each
column says what the bytes say; it names the event before it. Then the tree: as many events, and
the same root. A log whose tail was cut *and* whose tree was remade is found out only by somebody
who kept an earlier head, or a checkpoint (`vouching.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from runner.audit.beginning import WHOLE, Beginning, archived_up_to
from runner.audit.canonical import canonical_again, parse_canonical
from runner.audit.event import NO_PREVIOUS
from runner.audit.keychain import KEY_KINDS
from runner.audit.merkle import HASH_BYTES, Tree, leaf_hash
from runner.audit.vouching import NotVouchedError, Vouched, Vouching
from runner.model.event import EVENT_VERSION, EventKind

TELLING = KEY_KINDS | {EventKind.LOG_ARCHIVED.value, EventKind.LOG_REPAIRED.value}
"""Kinds of events that say something of the log itself; of these, the bytes are always needed."""

_FIELDS = frozenset({"v", "seq", "time", "kind", "run", "principal", "data", "prev"})
_HEX_HASH = re.compile(r"[0-9a-f]{64}")
_PRINCIPAL_FIELDS = frozenset({"agent", "parent", "session", "tenant", "uid"})


@dataclass(frozen=True, slots=True)
class Row:
    """An event as it is stored: columns of any type, since nobody vouches for them."""

    seq: object
    time: object
    kind: object
    run_id: object
    agent: object
    leaf_hash: object
    previous: object
    body: object


@dataclass(frozen=True, slots=True)
class Leaf:
    """An event of which only the leaf hash is read, because a checkpoint vouches for it."""

    seq: object
    leaf_hash: object


@dataclass(frozen=True, slots=True)
class StoredTree:
    """The tree as it is stored, of any type."""

    size: object
    peaks: object


@dataclass(frozen=True, slots=True)
class VerificationFailure:
    """The first event that does not hold."""

    seq: int
    """Its number; that of the first missing one when events are missing."""
    why: str
    """One clause, to be read behind "event 7: "."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading a whole log told."""

    size: int
    """Number of events that hold, from the first one on; archived ones are among them."""
    head: str
    """Leaf hash of the last of them, hex; 64 zeros when there is none."""
    root: str | None
    """Tree root over them, hex; None where only a part of a log was read."""
    failure: VerificationFailure | None = None
    archived: int = 0
    """So many of them, the first ones, were archived: only the tree over them was known."""
    vouched: Vouched | None = None
    """What checkpoints told, where they were looked at and everything holds."""

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return self.failure is None


class _NotHeldError(Exception):
    """Internal: the event at hand does not hold; the message is the clause."""


def verify(
    rows: Iterable[Row | Leaf],
    stored: StoredTree | None = None,
    *,
    start: int = 0,
    beginning: Beginning = WHOLE,
    vouched: bool = False,
    vouching: Vouching | None = None,
) -> Verification:
    """Check `rows`, which must be in the order of their numbers, and the tree over them.

    `stored`: the tree to compare with; None when there is none to be had (an export).
    `start`: number of the first event in `rows`; past 0 the link of the first one and the tree
    can't be checked, and `root` is None.
    `beginning`: what is known of archived events, instead of `start`; then both can. An event in
    `rows` must say that they were archived (see `beginning.py`), unless it is `vouched` for.
    `vouching`: checkpoints and keys to be held against the log, if `start` is 0. A `Leaf` is for
    events before a checkpoint that is among them.
    """
    seq, tree = start or beginning.size, beginning.tree
    previous = beginning.last_hash if start == 0 else None
    vouched = vouched or beginning.size == 0
    failure: VerificationFailure | None = None
    told: Vouched | None = None
    try:
        for row in rows:
            previous = _leaf(row, seq) if isinstance(row, Leaf) else _check(row, seq, previous)
            # Behind the next event, whose link tells more exactly what was changed.
            if vouching is not None and vouching.next_size <= seq:
                vouching.at(tree)
            tree = tree.appended(previous)
            seq += 1
            if isinstance(row, Row) and row.kind in TELLING and isinstance(row.body, bytes):
                vouched = vouched or archived_up_to(row.body) == beginning
                if vouching is not None:
                    vouching.event(seq - 1, row.kind, row.body)
        if stored is not None and start == 0:
            failure = _compare(tree, stored)
        if failure is None and vouching is not None:
            told = vouching.finish(tree)
    except _NotHeldError as error:
        failure = VerificationFailure(seq, str(error))
    except NotVouchedError as error:
        failure = VerificationFailure(error.seq, str(error))
    if failure is None and not vouched:
        why = f"no event says that those before {beginning.size} were archived, and they are gone"
        failure = VerificationFailure(beginning.size - 1, why)
    return Verification(
        size=seq - start,
        head=(previous or NO_PREVIOUS).hex(),
        root=tree.root.hex() if start == 0 else None,
        failure=failure,
        archived=beginning.size,
        vouched=told if failure is None else None,
    )


def unreadable(why: str) -> NoReturn:
    """For who feeds `verify`: raised from its iterator, the event at hand counts as failed."""
    raise _NotHeldError(why)


def verify_jsonl(
    lines: Iterable[str | bytes],
    *,
    start: int = 0,
    size: int | None = None,
    root: str | None = None,
    vouching: Vouching | None = None,
) -> Verification:
    """Check an export: lines of `{"body":{…},"leaf_hash":"<hex>","seq":N}`, in order.

    `start`: number of the first event that was exported. `size` and `root` (hex): what the log
    is known to have had, e.g. from `runner audit verify`; without them, or a checkpoint that was
    kept (`vouching`), a cut tail goes unseen.
    """
    found = verify(rows_of(lines), start=start, vouching=vouching)
    if found.failure is not None:
        return found
    end = start + found.size
    if size is not None and size != end:
        why = f"it is missing: the log had {size} events" if size > end else "it was added later"
        return replace(found, failure=VerificationFailure(min(size, end), why))
    if root is not None and found.root is not None and root != found.root:
        why = f"the tree's root over all events is {found.root}, not {root}"
        return replace(found, failure=VerificationFailure(start, why))
    return found


def export_line(seq: int, leaf: bytes, body: bytes) -> bytes:
    """One line of an export, itself canonical JSON; `verify_jsonl` reads it."""
    return b'{"body":%b,"leaf_hash":"%b","seq":%d}\n' % (body, leaf.hex().encode(), seq)


def _leaf(row: Leaf, seq: int) -> bytes:
    """The leaf hash of an event that is not read."""
    if row.seq != seq:
        raise _NotHeldError(_misplaced(row.seq, seq))
    if not isinstance(row.leaf_hash, bytes) or len(row.leaf_hash) != HASH_BYTES:
        raise _NotHeldError("its leaf hash is none")
    return row.leaf_hash


def _check(row: Row, seq: int, previous: bytes | None) -> bytes:
    """The leaf hash of `row`, once everything about it holds."""
    if row.seq != seq:
        raise _NotHeldError(_misplaced(row.seq, seq))
    body, leaf = row.body, row.leaf_hash
    if not isinstance(body, bytes):
        raise _NotHeldError("its body is not stored as bytes")
    if leaf != leaf_hash(body) or not isinstance(leaf, bytes):
        raise _NotHeldError("its bytes are not those that its leaf hash was made of")
    fields = _fields(body)
    agent = fields["principal"]["agent"] if fields["principal"] is not None else None
    columns = {
        "seq": (row.seq, fields["seq"]),
        "time": (row.time, fields["time"]),
        "kind": (row.kind, fields["kind"]),
        "run_id": (row.run_id, fields["run"]),
        "agent": (row.agent, agent),
        "previous": (row.previous, bytes.fromhex(fields["prev"])),
    }
    for name, (column, told) in columns.items():
        if type(column) is not type(told) or column != told:
            raise _NotHeldError(f"its column {name} does not say what its bytes say")
    if previous is not None and row.previous != previous:
        what = f"event {seq - 1}" if seq else "no event before it"
        raise _NotHeldError(f"it does not follow {what}: one of the two was changed")
    if (seq == 0) != (fields["kind"] == EventKind.LOG_CREATED):
        raise _NotHeldError(f"its kind is {fields['kind']}, but the log's creation comes first")
    return leaf


def _misplaced(found: object, expected: int) -> str:
    if isinstance(found, int) and found > expected:
        return f"it is missing: event {found} stands in its place"
    return f"an event numbered {found} stands in its place"


def _fields(body: bytes) -> dict[str, Any]:
    """The fields of an event's bytes, each of the type that `seal` gives it."""
    try:
        value = parse_canonical(body)
    except ValueError as error:
        raise _NotHeldError(f"its bytes are {error}") from None
    if not isinstance(value, dict) or value.get("v") != EVENT_VERSION:
        raise _NotHeldError(f"its bytes are no event of version {EVENT_VERSION}")
    principal = value.get("principal")
    well_formed = (
        value.keys() == _FIELDS
        and (principal is None or _is_principal(principal))
        and isinstance(value["data"], dict)
        and isinstance(value["prev"], str)
        and _HEX_HASH.fullmatch(value["prev"]) is not None
        and type(value["seq"]) is int
        and all(isinstance(value[name], str) for name in ("time", "kind"))
        and (value["run"] is None or isinstance(value["run"], str))
    )
    if not well_formed:
        raise _NotHeldError("its bytes do not have the fields of an event")
    return value


def _is_principal(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _PRINCIPAL_FIELDS
        and isinstance(value["agent"], str)
        and type(value["uid"]) is int
        and all(isinstance(value[k], str | None) for k in ("parent", "session", "tenant"))
    )


def _compare(tree: Tree, stored: StoredTree) -> VerificationFailure | None:
    """Whether the tree made of the events is the stored one."""
    if type(stored.size) is not int or not isinstance(stored.peaks, bytes):
        return VerificationFailure(0, "the tree over the events is missing or unreadable")
    if stored.size > tree.size:
        why = f"it is missing: the tree was made of {stored.size} events"
        return VerificationFailure(tree.size, why)
    if stored.size < tree.size:
        why = f"it is not in the tree, which was made of {stored.size} events"
        return VerificationFailure(max(stored.size, 0), why)
    try:
        known = Tree.from_bytes(stored.size, stored.peaks)
    except ValueError as error:
        return VerificationFailure(0, f"the tree over the events is damaged: {error}")
    for (start, end), peak, told in zip(tree.spans(), tree.peaks, known.peaks, strict=True):
        if peak != told:
            why = f"the tree was not made of this event or another one up to {end - 1}"
            return VerificationFailure(start, why)
    return None


def rows_of(lines: Iterable[str | bytes]) -> Iterator[Row]:
    """The events of an export, for `verify`; columns that it does not have say what bytes say."""
    for line in lines:
        try:
            text = line.decode("utf-8") if isinstance(line, bytes) else line
            data = text.strip().encode("utf-8")
            value: Any = parse_canonical(data)
            body = canonical_again(value["body"])
            leaf, seq = bytes.fromhex(value["leaf_hash"]), value["seq"]
        except (ValueError, KeyError, TypeError) as error:
            unreadable(f"its line can't be read: {error}")
        fields = _fields(body)
        principal = fields["principal"]
        yield Row(
            seq=seq,
            time=fields["time"],
            kind=fields["kind"],
            run_id=fields["run"],
            agent=principal["agent"] if principal is not None else None,
            leaf_hash=leaf,
            previous=bytes.fromhex(fields["prev"]),
            body=body,
        )
