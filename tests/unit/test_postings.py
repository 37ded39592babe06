"""Sets of events within a block, as they are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.stores.postings import BLOCK, offsets, packed, unpacked, within

SETS = st.sets(st.integers(0, BLOCK - 1), max_size=600).map(sorted)


@given(SETS)
def test_what_is_kept_comes_back(numbers):
    data = packed(numbers)
    assert len(data) <= BLOCK // 8
    assert [*offsets(unpacked(data))] == numbers
    assert [*offsets(unpacked(data), newest_first=True)] == numbers[::-1]


@pytest.mark.parametrize("count", [0, 1, 254, 255, 256, 257, BLOCK])
def test_few_are_numbers_and_many_are_bits(count):
    data = packed(range(count))
    assert len(data) == min(2 * count, BLOCK // 8)
    assert [*offsets(unpacked(data))] == [*range(count)]


@pytest.mark.parametrize("data", [b"abc", b"\x00\x10", b"\xff\xff" * 3, bytes(513)])
def test_what_is_none_is_told(data):
    with pytest.raises(ValueError, match=r"size|past"):
        unpacked(data)


def test_bounds():
    assert [*offsets(within(3, 6))] == [3, 4, 5]
    assert within(-5, BLOCK) == within(0, BLOCK) == unpacked(packed(range(BLOCK)))
    assert within(0, -3) == within(BLOCK, BLOCK) == within(5, 5) == 0
