"""A child of `checking.py`: checks parts of a log, each event by itself, as it is asked to.

Reads lines `START COUNT`; answers each with the length of what follows (4 bytes, big-endian) and a
part as `encode` writes it; nothing stands for one that does not hold.
"""

from __future__ import annotations

import gc
import struct
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from runner.audit.merkle import HASH_BYTES
from runner.audit.stored_event import Checked, Row, check_part
from runner.stores.damage import ERRORS
from runner.stores.database import connect

ROWS = (
    "SELECT seq, time, kind, run_id, agent, leaf_hash, previous, body FROM events "
    "WHERE seq BETWEEN ? AND ? ORDER BY seq"
)
LENGTH = struct.Struct(">I")
_HEADER = struct.Struct(">QI")
_TOLD = struct.Struct(">QHI")


def encode(part: Checked | None) -> bytes:
    """A part for a pipe; `decode` reads it."""
    if part is None:
        return b""
    told = [
        _TOLD.pack(seq, len(kind.encode()), len(body)) + kind.encode() + body
        for seq, kind, body in part.telling
    ]
    header = _HEADER.pack(part.start, len(part.leaves))
    return b"".join([header, part.previous, part.leaves, *told])


def decode(data: bytes) -> Checked | None:
    """What `encode` was given."""
    if not data:
        return None
    start, length = _HEADER.unpack_from(data)
    at = _HEADER.size + HASH_BYTES
    previous, leaves = data[_HEADER.size : at], data[at : at + length]
    at += length
    telling = []
    while at < len(data):
        seq, kind_length, body_length = _TOLD.unpack_from(data, at)
        at += _TOLD.size
        kind, body = data[at : at + kind_length], data[at + kind_length :][:body_length]
        telling.append((seq, kind.decode(), body))
        at += kind_length + body_length
    return Checked(start, previous, leaves, tuple(telling))


def undecoded(data: bytes) -> str:
    """For `text_factory`: bytes that are no text must reach the comparison, not end it."""
    return data.decode("utf-8", "surrogateescape")


def main(path: str, mode: str, asked: BinaryIO, answers: BinaryIO) -> None:
    """Serve until there is nothing more to be read."""
    gc.disable()  # events hold no cycles, and looking for some takes a part of the time
    with closing(connect(Path(path), mode)) as connection:
        connection.text_factory = undecoded
        for line in asked:
            start, count = map(int, line.split())
            try:
                rows = connection.execute(ROWS, (start, start + count - 1))
                part = encode(check_part(map(Row._make, rows), start, count))
            except ERRORS:
                part = b""  # who asked reads it again, and says what is wrong
            answers.write(LENGTH.pack(len(part)) + part)
            answers.flush()
