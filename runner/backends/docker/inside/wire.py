"""The frames that supervisor and init exchange over the container's attached stdin and stdout.

A frame is one byte of kind, four bytes of length (big endian), and so many bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

HEADER = struct.Struct(">BI")
PAYLOAD_MAX_BYTES = 1 << 20
"""No honest side sends more in one frame; more means that the stream is not what it should be."""
STDIN_CREDIT_BYTES = 256 * 1024
"""How much of the program's input may be under way that it has not taken yet."""


class Kind(IntEnum):
    """What a frame holds. To init first, from init after `READY`."""

    CONFIG = 1
    """JSON: what to run and within which limits."""
    ENTRY = 2
    """JSON: one path of the workspace; a file's bytes follow as `CONTENT`."""
    CONTENT = 3
    START = 4
    """The workspace is complete: get ready (sent by `acquire`)."""
    GO = 5
    """JSON: `[rows, columns]` or null. Run the program (sent by `run`)."""
    STDIN = 6
    STDIN_END = 7
    WINDOW = 8
    """JSON: `[rows, columns]` of the caller's terminal."""
    KILL = 9
    FETCH = 10
    """JSON: a changed file's path; its content comes as `KEPT` and ends with `KEPT_END`."""
    METER = 11
    """Tell what the program has used, as `USED`, at every look."""

    READY = 32
    """JSON: what is in force around init, as it found it."""
    STDOUT = 33
    STDERR = 34
    STDIN_TAKEN = 35
    """JSON: how many bytes of input the program has taken since the last such frame."""
    ENDED = 36
    """JSON: how it ended and what it used; nothing of the program is alive any more."""
    CHANGES = 37
    """JSON: a list of workspace changes; several of these may come."""
    DONE = 38
    """JSON: whether the list of changes was cut."""
    FATAL = 39
    """JSON: a sentence; init could not do its work."""
    KEPT = 40
    """Bytes of the file that was asked for."""
    KEPT_END = 41
    """JSON: whether all of it came."""
    USED = 42
    """JSON: what the program has used so far."""


class WireError(Exception):
    """The other side sent what is no frame."""


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(payload)) + payload


def encode_json(kind: Kind, value: object) -> bytes:
    """One frame of JSON; surrogate escapes survive as `\\udcXX`."""
    return encode(kind, json.dumps(value, separators=(",", ":")).encode("ascii"))


def decode_json(payload: bytes) -> Any:
    """The value of a JSON frame. WireError: it is none."""
    try:
        return json.loads(payload)
    except ValueError as error:
        raise WireError("a frame that should hold JSON does not") from error


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        """Starts at a frame's first byte."""
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Every frame that is complete with `data`. WireError: unknown kind or absurd length."""
        self._held += data
        at = 0
        try:
            while len(self._held) - at >= HEADER.size:
                number, length = HEADER.unpack_from(self._held, at)
                if length > PAYLOAD_MAX_BYTES:
                    raise WireError(f"a frame claims to have {length} bytes")
                end = at + HEADER.size + length
                if len(self._held) < end:
                    return
                try:
                    kind = Kind(number)
                except ValueError:
                    raise WireError(f"a frame has the unknown kind {number}") from None
                payload = bytes(memoryview(self._held)[at + HEADER.size : end])
                at = end
                yield kind, payload
        finally:
            del self._held[:at]
