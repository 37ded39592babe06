"""Sets of events within a block of the log, as small as they come: sorted numbers, or bits.

A block is 4096 events in a row. What a set holds are offsets into one. Up to 255 of them are kept
as numbers of 16 bits (little-endian), more as 512 bytes with a bit for each; so the length tells
which. In memory a set is an integer, bit n for offset n: meeting and joining is `&` and `|`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence

BLOCK = 4096
_BITS_BYTES = BLOCK // 8
_ALL = (1 << BLOCK) - 1


def packed(offsets: Sequence[int]) -> bytes:
    """A set as it is kept."""
    if 2 * len(offsets) < _BITS_BYTES:
        numbers = array("H", offsets)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()
    bits = bytearray(_BITS_BYTES)
    for offset in offsets:
        bits[offset >> 3] |= 1 << (offset & 7)
    return bytes(bits)


def unpacked(data: bytes) -> int:
    """A kept set. ValueError: it is none."""
    if len(data) == _BITS_BYTES:
        return int.from_bytes(data, "little")
    numbers = array("H", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    bits = bytearray(_BITS_BYTES)
    try:
        for offset in numbers:
            bits[offset >> 3] |= 1 << (offset & 7)
    except IndexError:
        raise ValueError("an offset is past the block") from None
    return int.from_bytes(bits, "little")


def within(start: int, end: int) -> int:
    """The set of the offsets from `start` up to, not including, `end`."""
    return _ALL & ((1 << max(end, 0)) - 1) & ~((1 << max(start, 0)) - 1)


def offsets(bits: int, *, newest_first: bool = False) -> Iterator[int]:
    """What is in a set, in order."""
    while bits:
        one = bits.bit_length() - 1 if newest_first else (bits & -bits).bit_length() - 1
        yield one
        bits ^= 1 << one
