"""What a witness is asked, and what it checks (C2SP tlog-witness, https://c2sp.org/tlog-witness).

    old <number of events of the last checkpoint that the witness has seen>
    <base64 of a hash of the consistency proof>
    …
    <empty line>
    <checkpoint, a signed note>

A witness remembers one checkpoint of each log, the last one that it cosigned. It cosigns another
one only if that follows: so nobody who asks for cosignatures can be shown two logs by one name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runner.audit.checkpoint import Checkpoint, parse_checkpoint
from runner.audit.merkle import EMPTY_ROOT, HASH_BYTES, consistency_holds
from runner.audit.note import NoteError, decoded, encoded, open_note

MAX_PROOF_HASHES = 63
"""More are no request (C2SP tlog-witness, "add-checkpoint"); a tree has not so many levels."""

_OLD = re.compile(r"old (0|[1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True)
class WitnessRequest:
    """What was asked; nothing of it is verified."""

    old: int
    """Number of events that the proof begins with."""
    proof: tuple[bytes, ...]
    note: str


class RefusedError(Exception):
    """A witness must not cosign this; the message is a sentence."""


def request_text(old: int, proof: Sequence[bytes], note: str) -> str:
    """The request as it is sent."""
    return "".join([f"old {old}\n", *(f"{encoded(each)}\n" for each in proof), "\n", note])


def parse_request(text: str) -> WitnessRequest:
    """Take it apart. NoteError: it is none."""
    above, found, note = text.partition("\n\n")
    first, *lines = above.split("\n")
    old = _OLD.fullmatch(first)
    if not found or old is None:
        raise NoteError("it does not begin with `old <number>`, proof lines and an empty line")
    proof = tuple(decoded(line) for line in lines)
    if len(proof) > MAX_PROOF_HASHES or any(len(each) != HASH_BYTES for each in proof):
        raise NoteError("a line of its proof is no hash, or it has too many")
    if int(old[1]) > parse_checkpoint(note).size:
        raise NoteError("its proof begins with more events than its checkpoint is over")
    return WitnessRequest(int(old[1]), proof, note)


def check_request(request: WitnessRequest, vkey: str, seen: Checkpoint | None) -> Checkpoint:
    """What the witness has seen then. RefusedError: it must not cosign.

    `vkey`: the log's key, as the witness knows it. `seen`: the last checkpoint of this origin that
    it cosigned; None: there was none, and the first one is taken on trust.
    """
    try:
        open_note(request.note, [vkey])
    except NoteError as error:
        raise RefusedError(f"the checkpoint is not the log's: {error}") from None
    new = parse_checkpoint(request.note)
    if new.origin != vkey.partition("+")[0]:
        raise RefusedError(
            f"the checkpoint is of the log {new.origin}, and the key is not: it could put another "
            "log in that one's place"
        )
    known = seen or Checkpoint(new.origin, 0, EMPTY_ROOT)
    told = f"{_told(new)}, but {_told(known)} was cosigned before"
    if new.size < known.size:
        raise RefusedError(f"the log was rolled back, or this is an older one of its: {told}")
    if new.size == known.size and new.root != known.root:
        raise RefusedError(f"the log has forked: {told}")
    if request.old != known.size:
        raise RefusedError(
            f"the proof begins with {request.old} events, but the last checkpoint that was "
            f"cosigned is over {known.size}: ask with `runner audit consistency --request --from "
            f"{known.size}`"
        )
    if known.size == 0:
        holds = not request.proof
    else:
        holds = consistency_holds(known.size, known.root, new.size, new.root, request.proof)
    if not holds:
        raise RefusedError(
            f"the log has forked, or the proof is wrong: {told}, and it shows no way"
        )
    return new


def _told(checkpoint: Checkpoint) -> str:
    return f"a tree of {checkpoint.size} events with root {encoded(checkpoint.root)}"
