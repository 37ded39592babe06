"""One event as it is stored: does it hold by itself, and does it follow the one before it?

Nothing that is stored is trusted: a column may hold any type that SQLite has. What is checked, in
this order: the event has the number that it should; its leaf hash is that of its bytes; the bytes
are canonical JSON with exactly the fields of an event; each column says what the bytes say; it
names the event before it. `verify.py` checks a whole log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from runner.audit.canonical import parse_canonical
from runner.audit.event import NO_PREVIOUS
from runner.audit.keychain import KEY_KINDS
from runner.audit.merkle import HASH_BYTES, leaf_hash
from runner.model.event import EVENT_VERSION, EventKind

TELLING = KEY_KINDS | {EventKind.LOG_ARCHIVED.value, EventKind.LOG_REPAIRED.value}
"""Kinds of events that say something of the log itself; of these, the bytes are always needed."""

_FIELDS = frozenset({"v", "seq", "time", "kind", "run", "principal", "data", "prev"})
_HEX_HASH = re.compile(r"[0-9a-f]{64}")
_TEXT_OR_NONE = frozenset({str, type(None)})
_PRINCIPAL_FIELDS = frozenset({"agent", "parent", "session", "tenant", "uid"})


class Row(NamedTuple):
    """An event as it is stored: columns of any type, since nobody vouches for them.

    A tuple, since it is made for each event of a log.
    """

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
class Checked:
    """Events that `check_part` has checked: each by itself, and its link to the one before."""

    start: int
    """Number of the first one; the others follow without a gap."""
    previous: bytes
    """What the first one names as the event before it."""
    leaves: bytes
    """Their leaf hashes, one behind the other."""
    telling: tuple[tuple[int, str, bytes], ...]
    """Number, kind and bytes of those that say something of the log itself."""

    @property
    def end(self) -> int:
        """Number of the event behind them."""
        return self.start + len(self.leaves) // HASH_BYTES


class NotHeldError(Exception):
    """The event at hand does not hold; the message is one clause, to be read behind "event 7: "."""


def unreadable(why: str) -> NoReturn:
    """For who feeds `verify`: raised from its iterator, the event at hand counts as failed."""
    raise NotHeldError(why)


def leaf_of(row: Leaf, seq: int) -> bytes:
    """The leaf hash of an event that is not read."""
    if row.seq != seq:
        raise NotHeldError(misplaced(row.seq, seq))
    if not isinstance(row.leaf_hash, bytes) or len(row.leaf_hash) != HASH_BYTES:
        raise NotHeldError("its leaf hash is none")
    return row.leaf_hash


def check_row(row: Row, seq: int, previous: bytes | None) -> bytes:
    """The leaf hash of `row`, once everything about it holds."""
    if row.seq != seq:
        raise NotHeldError(misplaced(row.seq, seq))
    body, leaf = row.body, row.leaf_hash
    if not isinstance(body, bytes):
        raise NotHeldError("its body is not stored as bytes")
    if leaf != leaf_hash(body) or not isinstance(leaf, bytes):
        raise NotHeldError("its bytes are not those that its leaf hash was made of")
    fields = fields_of(body)
    principal = fields["principal"]
    agent = None if principal is None else principal["agent"]
    # Of one type too: 1 equals 1.0, and a number read from an export may be either.
    if (
        row.time != fields["time"]
        or row.kind != fields["kind"]
        or row.run_id != fields["run"]
        or row.agent != agent
        or row.previous != bytes.fromhex(fields["prev"])
        or fields["seq"] != seq
        or type(row.seq) is not int
    ):
        raise NotHeldError(
            f"its column {_contradicting(row, fields)} does not say what its bytes say"
        )
    check_link(row.previous, seq, previous)
    if (seq == 0) != (fields["kind"] == EventKind.LOG_CREATED):
        raise NotHeldError(f"its kind is {fields['kind']}, but the log's creation comes first")
    return leaf


def _contradicting(row: Row, fields: dict[str, Any]) -> str:
    """The first column that does not say what the event's bytes say."""
    principal = fields["principal"]
    told = {
        "time": fields["time"],
        "kind": fields["kind"],
        "run_id": fields["run"],
        "agent": None if principal is None else principal["agent"],
        "previous": bytes.fromhex(fields["prev"]),
    }
    return next((name for name, value in told.items() if getattr(row, name) != value), "seq")


def check_link(names: object, seq: int, previous: bytes | None) -> None:
    """Whether an event that names this one follows it; None: it is not known."""
    if previous is not None and names != previous:
        what = f"event {seq - 1}" if seq else "no event before it"
        raise NotHeldError(f"it does not follow {what}: one of the two was changed")


def misplaced(found: object, expected: int) -> str:
    """What is said where event `found` stands in the place of the expected one."""
    if isinstance(found, int) and found > expected:
        return f"it is missing: event {found} stands in its place"
    return f"an event numbered {found} stands in its place"


def fields_of(body: bytes) -> dict[str, Any]:
    """The fields of an event's bytes, each of the type that `seal` gives it."""
    try:
        value = parse_canonical(body)
    except ValueError as error:
        raise NotHeldError(f"its bytes are {error}") from None
    if not isinstance(value, dict) or value.get("v") != EVENT_VERSION:
        raise NotHeldError(f"its bytes are no event of version {EVENT_VERSION}")
    principal = value.get("principal")
    well_formed = (
        value.keys() == _FIELDS
        and (principal is None or _is_principal(principal))
        and type(value["data"]) is dict
        and type(value["prev"]) is str
        and _HEX_HASH.fullmatch(value["prev"]) is not None
        and type(value["seq"]) is int
        and type(value["time"]) is str
        and type(value["kind"]) is str
        and type(value["run"]) in _TEXT_OR_NONE
    )
    if not well_formed:
        raise NotHeldError("its bytes do not have the fields of an event")
    return value


def _is_principal(value: object) -> bool:
    return (
        type(value) is dict
        and value.keys() == _PRINCIPAL_FIELDS
        and type(value["agent"]) is str
        and type(value["uid"]) is int
        and type(value["parent"]) in _TEXT_OR_NONE
        and type(value["session"]) in _TEXT_OR_NONE
        and type(value["tenant"]) in _TEXT_OR_NONE
    )


def check_part(rows: Iterable[Row], start: int, count: int) -> Checked | None:
    """Check `count` events from number `start` on, all that can be told without those before.

    None: something does not hold; `verify` tells what, of the rows themselves.
    """
    previous: bytes | None = None
    first = NO_PREVIOUS
    leaves: list[bytes] = []
    telling: list[tuple[int, str, bytes]] = []
    try:
        for row in rows:
            leaf = check_row(row, start + len(leaves), previous)
            if previous is None and isinstance(row.previous, bytes):
                first = row.previous
            if row.kind in TELLING and isinstance(row.body, bytes):
                telling.append((start + len(leaves), str(row.kind), row.body))
            leaves.append(leaf)
            previous = leaf
    except NotHeldError:
        return None
    if len(leaves) != count or not leaves:
        return None
    return Checked(start, first, b"".join(leaves), tuple(telling))
