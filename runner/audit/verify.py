"""Verification: does every event hold, and does the tree over them?

Reads events once, in order, in constant memory. Each has to hold by itself (`stored_event.py`), and
then the tree: as many events, and the same root. A log whose tail was cut *and* whose tree was
remade is found out only by somebody who kept an earlier head, or a checkpoint (`vouching.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.audit.beginning import WHOLE, Beginning, archived_up_to
from runner.audit.canonical import canonical_again, parse_canonical
from runner.audit.event import NO_PREVIOUS
from runner.audit.merkle import HASH_BYTES, Tree
from runner.audit.stored_event import (
    TELLING,
    Checked,
    Leaf,
    NotHeldError,
    Row,
    check_link,
    check_row,
    fields_of,
    leaf_of,
    misplaced,
    unreadable,
)
from runner.audit.vouching import NotVouchedError, Vouched, Vouching


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


def verify(
    rows: Iterable[Row | Leaf | Checked],
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
    reading = _Reading(beginning, start, vouching, vouched=vouched)
    failure: VerificationFailure | None = None
    told: Vouched | None = None
    try:
        for row in rows:
            if isinstance(row, Checked):
                reading.part(row)
            else:
                reading.row(row)
        if stored is not None and start == 0:
            failure = _compare(reading.tree, stored)
        if failure is None and vouching is not None:
            told = vouching.finish(reading.tree)
    except NotHeldError as error:
        failure = VerificationFailure(reading.seq, str(error))
    except NotVouchedError as error:
        failure = VerificationFailure(error.seq, str(error))
    if failure is None and not reading.vouched:
        why = f"no event says that those before {beginning.size} were archived, and they are gone"
        failure = VerificationFailure(beginning.size - 1, why)
    return Verification(
        size=reading.seq - start,
        head=(reading.previous or NO_PREVIOUS).hex(),
        root=reading.tree.root.hex() if start == 0 else None,
        failure=failure,
        archived=beginning.size,
        vouched=told if failure is None else None,
    )


class _Reading:
    """How far a log was read, and what holds up to there."""

    def __init__(
        self, beginning: Beginning, start: int, vouching: Vouching | None, *, vouched: bool
    ) -> None:
        self.seq = start or beginning.size
        self.tree = beginning.tree
        self.previous = beginning.last_hash if start == 0 else None
        self.vouched = vouched or beginning.size == 0
        self._beginning = beginning
        self._vouching = vouching

    def row(self, row: Row | Leaf) -> None:
        if isinstance(row, Leaf):
            leaf = leaf_of(row, self.seq)
        else:
            leaf = check_row(row, self.seq, self.previous)
        # Behind the next event, whose link tells more exactly what was changed.
        self._look()
        self._hold([leaf])
        if isinstance(row, Row) and row.kind in TELLING and isinstance(row.body, bytes):
            self._tell(row.kind, row.body)

    def part(self, part: Checked) -> None:
        """Many at once, up to each that has something to say and each size that is asked for."""
        if part.start != self.seq:
            raise NotHeldError(misplaced(part.start, self.seq))
        check_link(part.previous, self.seq, self.previous)
        hashes = range(0, len(part.leaves), HASH_BYTES)
        leaves = [part.leaves[at : at + HASH_BYTES] for at in hashes]
        telling = {seq: (kind, body) for seq, kind, body in part.telling}
        stops = [*sorted(seq + 1 for seq in telling), part.start + len(leaves)]
        for stop in stops:
            while self.seq < stop:
                self._look()
                end = stop if self._vouching is None else min(stop, self._vouching.next_size)
                self._hold(leaves[self.seq - part.start : end - part.start])
            if stop - 1 in telling:
                self._tell(*telling[stop - 1])

    def _hold(self, leaves: Sequence[bytes]) -> None:
        self.tree = self.tree.extended(leaves)
        self.seq += len(leaves)
        self.previous = leaves[-1]

    def _look(self) -> None:
        """Hold the tree against the checkpoint that is over so many events, if there is one."""
        if self._vouching is not None and self._vouching.next_size <= self.seq:
            self._vouching.at(self.tree)

    def _tell(self, kind: object, body: bytes) -> None:
        self.vouched = self.vouched or archived_up_to(body) == self._beginning
        if self._vouching is not None:
            self._vouching.event(self.seq - 1, kind, body)


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
        fields = fields_of(body)
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
