"""Proofs checked by a second implementation, written from the definitions of RFC 9162, 2.1, alone.

runner's own code makes proofs from ranges and checks them with the RFC's loops over bits. Here all
is recursion over lists of leaves, as sections 2.1.1, 2.1.3.1 and 2.1.4.1 define trees and proofs,
and checking a proof is that definition read backwards.
"""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.audit.merkle import (
    consistency_holds,
    consistency_proof,
    inclusion_holds,
    inclusion_proof,
    range_root,
)
from runner.audit.verify_proof import DoesNotHoldError, Tree, check_consistency, root_of

LARGEST = 70


def mth(d: list[bytes]) -> bytes:
    """MTH(D[n]) of 2.1.1."""
    n = len(d)
    if n == 0:
        return sha256().digest()
    if n == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = split(n)
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, d: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of 2.1.3.1."""
    n = len(d)
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: list[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) of 2.1.4.1."""
    return [] if m == len(d) else subproof(m, d, b=True)


def subproof(m: int, d: list[bytes], *, b: bool) -> list[bytes]:
    """SUBPROOF(m, D_n, b) of 2.1.4.1."""
    n = len(d)
    if m == n:
        return [] if b else [mth(d)]
    k = split(n)
    if m <= k:
        return [*subproof(m, d[:k], b=b), mth(d[k:])]
    return [*subproof(m - k, d[k:], b=False), mth(d[:k])]


def root_by(m: int, n: int, leaf: bytes, steps: list[bytes]) -> bytes | None:
    """The root that PATH, read backwards, gives for a leaf's hash; None: it is of no such path."""
    if n == 1:
        return leaf if not steps else None
    if not steps:
        return None
    k, last = split(n), steps[-1]
    below = root_by(m, k, leaf, steps[:-1]) if m < k else root_by(m - k, n - k, leaf, steps[:-1])
    if below is None:
        return None
    return sha256(b"\x01" + (below + last if m < k else last + below)).digest()


def roots_by(
    m: int, n: int, old: bytes, steps: list[bytes], *, b: bool
) -> tuple[bytes, bytes] | None:
    """Old and new root that SUBPROOF, read backwards, gives; None: it is of no such proof."""
    if m == n:
        if b:
            return (old, old) if not steps else None
        return (steps[0], steps[0]) if len(steps) == 1 else None
    if not steps:
        return None
    k, last = split(n), steps[-1]
    if m <= k:
        below = roots_by(m, k, old, steps[:-1], b=b)
        return below and (below[0], sha256(b"\x01" + below[1] + last).digest())
    below = roots_by(m - k, n - k, old, steps[:-1], b=False)
    return below and (
        sha256(b"\x01" + last + below[0]).digest(),
        sha256(b"\x01" + last + below[1]).digest(),
    )


def leaves(count: int) -> list[bytes]:
    return [f"leaf {number}".encode() for number in range(count)]


def hashed(d: list[bytes]) -> list[bytes]:
    return [sha256(b"\x00" + each).digest() for each in d]


def consistent(old: tuple[int, bytes], new: tuple[int, bytes], steps: list[bytes]) -> bool:
    """What the auditor's program says."""
    try:
        check_consistency(Tree("log", *old), Tree("log", *new), steps)
    except DoesNotHoldError:
        return False
    return True


@pytest.mark.parametrize("size", range(1, LARGEST + 1))
def test_every_inclusion_proof_is_that_of_the_definition(size: int) -> None:
    d = leaves(size)
    hashes, root = hashed(d), mth(d)
    for index in range(size):
        made = inclusion_proof(range_root(hashes), index, size)
        assert made == path(index, d)
        assert root_by(index, size, hashes[index], made) == root
        assert root_of(hashes[index], index, size, made) == root
        assert inclusion_holds(hashes[index], index, size, made, root)


@pytest.mark.parametrize("new", range(1, LARGEST + 1))
def test_every_consistency_proof_is_that_of_the_definition(new: int) -> None:
    d = leaves(new)
    hashes, root = hashed(d), mth(d)
    for old in range(1, new + 1):
        old_root = mth(d[:old])
        made = consistency_proof(range_root(hashes), old, new)
        assert made == proof(old, d)
        assert roots_by(old, new, old_root, made, b=True) == (old_root, root)
        assert consistent((old, old_root), (new, root), made)
        assert consistency_holds(old, old_root, new, root, made)


# What is proved wrongly: each checker says the same as the definition, whatever it is shown.


@given(st.data())
def test_the_three_agree_on_any_inclusion_proof(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    d = leaves(size)
    told_size = data.draw(st.integers(1, 44))
    index = data.draw(st.integers(0, told_size - 1))
    steps = changed(data, path(data.draw(st.integers(0, size - 1)), d), hashed(leaves(3)))
    leaf, root = data.draw(st.sampled_from(hashed(d))), mth(d)
    expected = root_by(index, told_size, leaf, steps)
    assert root_of(leaf, index, told_size, steps) == expected
    assert inclusion_holds(leaf, index, told_size, steps, root) == (expected == root)


@given(st.data())
def test_the_three_agree_on_any_consistency_proof(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    d = leaves(size)
    told_new = data.draw(st.integers(1, 44))
    told_old = data.draw(st.integers(1, told_new))
    steps = changed(data, proof(data.draw(st.integers(1, size)), d), hashed(leaves(3)))
    old_root, root = mth(d[: min(told_old, size)]), mth(d)
    expected = roots_by(told_old, told_new, old_root, steps, b=True) == (old_root, root)
    assert consistency_holds(told_old, old_root, told_new, root, steps) == expected
    assert consistent((told_old, old_root), (told_new, root), steps) == expected


def changed(data: st.DataObject, steps: list[bytes], others: list[bytes]) -> list[bytes]:
    """A proof, as it is or with steps dropped, doubled, swapped or put in."""
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(steps)))
        what = data.draw(st.sampled_from(["drop", "put in", "swap", "double"]))
        if what == "put in":
            steps = [*steps[:place], data.draw(st.sampled_from(others)), *steps[place:]]
        elif what == "drop":
            steps = [*steps[:place], *steps[place + 1 :]]
        elif what == "double":
            steps = [*steps[:place], *steps[place : place + 1], *steps[place:]]
        else:
            steps = [*steps[:place], *steps[place : place + 2][::-1], *steps[place + 2 :]]
    return steps
