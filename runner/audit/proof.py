"""Writing proofs as documents; `verify_proof.py` says what they are, and checks them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner.audit.canonical import canonical_again, parse_canonical
from runner.audit.merkle import leaf_hash
from runner.audit.verify_proof import CONSISTENCY, EVENT, RUN


@dataclass(frozen=True, slots=True)
class ProvedEvent:
    """An event, and how to get from it to the tree's root."""

    seq: int
    body: bytes
    """Its exact bytes."""
    path: Sequence[bytes]
    """RFC 9162 inclusion proof, nearest the leaf first."""


def run_proof(run_id: str, events: Iterable[ProvedEvent], checkpoint: str) -> bytes:
    """The proof of a run's events. ValueError: an event's bytes are no canonical JSON."""
    items = [_item(event) for event in events]
    return _document({"proof": RUN, "run": run_id, "checkpoint": checkpoint, "events": items})


def event_proof(event: ProvedEvent, checkpoint: str) -> bytes:
    """The proof of one event; as above."""
    return _document({"proof": EVENT, "checkpoint": checkpoint, "events": [_item(event)]})


def consistency_document(old: str, new: str, path: Iterable[bytes]) -> bytes:
    """The proof that the tree of one checkpoint extends that of another, both signed notes."""
    steps = [each.hex() for each in path]
    return _document({"proof": CONSISTENCY, "old": old, "new": new, "path": steps})


def _item(event: ProvedEvent) -> dict[str, object]:
    return {
        "seq": event.seq,
        "event": parse_canonical(event.body),
        "leaf": leaf_hash(event.body).hex(),
        "path": [each.hex() for each in event.path],
    }


def _document(value: dict[str, object]) -> bytes:
    return canonical_again(value) + b"\n"
