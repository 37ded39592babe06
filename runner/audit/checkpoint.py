"""A checkpoint's text (C2SP tlog-checkpoint, https://c2sp.org/tlog-checkpoint), to be signed.

<origin: which log>
<number of leaves, decimal>
<base64 of the tree's root>
<optional lines of others>
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runner.audit.merkle import HASH_BYTES
from runner.audit.note import NoteError, decoded, encoded, parse_note

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree of a log at one time."""

    origin: str
    """Unique name of the log: a URL without its scheme, here also the name of its key."""
    size: int
    """Number of leaves."""
    root: bytes
    """Hash of the tree's root."""

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{encoded(self.root)}\n"


def parse_checkpoint(note: str) -> Checkpoint:
    """What a signed note says of a tree; no signature is verified. NoteError: it says nothing."""
    lines = parse_note(note).text[:-1].split("\n")
    if len(lines) < 3 or "" in lines:
        raise NoteError("it is no checkpoint: it has too few lines, or an empty one")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size):
        raise NoteError("it is no checkpoint: its second line is no number")
    hashed = decoded(root)
    if len(hashed) != HASH_BYTES:
        raise NoteError("it is no checkpoint: its third line is no hash")
    return Checkpoint(origin, int(size), hashed)
