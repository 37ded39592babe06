"""The Merkle tree of RFC 9162 (and RFC 6962), section 2.1, over SHA-256.

A tree is kept as its *peaks*: the roots of the perfect subtrees that its leaves fall into, largest
first, one for each bit that is set in the number of leaves. That is all appending needs, and all
the root needs. Hashes are 32 bytes each; leaves are given by their leaf hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162, 2.1.1)."""

RangeRoot = Callable[[int, int], bytes]
"""Gives the root over the leaves from index `start` up to, not including, `end`."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data) (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right) (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of `size` leaves by its peaks; appending gives a new one."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def appended(self, leaf: bytes) -> Tree:
        """This tree with one more leaf, whose leaf hash is `leaf`."""
        peaks, bits = self.peaks, self.size
        kept = len(peaks)
        while bits & 1:
            kept -= 1
            leaf = node_hash(peaks[kept], leaf)
            bits >>= 1
        return Tree(self.size + 1, (*peaks[:kept], leaf))

    def extended(self, leaves: Iterable[bytes]) -> Tree:
        """This tree with more leaves, read once, in constant memory."""
        peaks, size = list(self.peaks), self.size
        for leaf in leaves:
            carry, bits = leaf, size
            while bits & 1:
                carry = node_hash(peaks.pop(), carry)
                bits >>= 1
            peaks.append(carry)
            size += 1
        return Tree(size, tuple(peaks))

    @property
    def root(self) -> bytes:
        """The tree's root hash."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def to_bytes(self) -> bytes:
        """The peaks, one behind the other; `from_bytes` reads them."""
        return b"".join(self.peaks)

    @staticmethod
    def from_bytes(size: int, peaks: bytes) -> Tree:
        """A stored tree. ValueError: as many peaks can't belong to a tree of that size."""
        if size < 0 or len(peaks) != HASH_BYTES * size.bit_count():
            raise ValueError(f"{len(peaks)} bytes of peaks can't belong to a tree of {size}")
        parts = range(0, len(peaks), HASH_BYTES)
        return Tree(size, tuple(peaks[i : i + HASH_BYTES] for i in parts))

    def spans(self) -> tuple[tuple[int, int], ...]:
        """For each peak the leaves under it, as (start, end)."""
        spans, start = [], 0
        for bit in range(self.size.bit_length() - 1, -1, -1):
            if self.size >> bit & 1:
                spans.append((start, start + (1 << bit)))
                start += 1 << bit
        return tuple(spans)


def tree_of(leaf_hashes: Iterable[bytes]) -> Tree:
    """The tree over these leaves, read once, in constant memory."""
    return Tree().extended(leaf_hashes)


def inclusion_spans(index: int, size: int) -> list[tuple[int, int]]:
    """Leaf ranges whose roots are the inclusion proof of leaf `index` in a tree of `size`.

    In the order of RFC 9162, 2.1.3.1: nearest the leaf first. ValueError: no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    spans: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[tuple[int, int]]:
    """Leaf ranges whose roots prove that the tree of `new` leaves extends that of `old`.

    In the order of RFC 9162, 2.1.4.1; empty for equal sizes. ValueError: not 0 < old <= new.
    """
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof leads from a tree of {old} to one of {new}")
    spans: list[tuple[int, int]] = []
    start, end = 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    if start > 0:  # else the old tree is a subtree whose root the verifier knows
        spans.append((start, end))
    return spans[::-1]


def range_root(leaf_hashes: Sequence[bytes]) -> RangeRoot:
    """A `RangeRoot` over leaves in memory."""
    return lambda start, end: tree_of(leaf_hashes[start:end]).root


def root_above(base: Tree, leaves: Callable[[int, int], Iterable[bytes]]) -> RangeRoot:
    """A `RangeRoot` where only the leaves from `base.size` on are left, and the peaks before.

    `leaves(start, end)` gives leaf hashes with start >= base.size. It serves every proof for a leaf
    that is left, and between trees that are no smaller than `base`: such a proof names a subtree
    that lies before `base.size` only where its parent does not, so it is a peak; and one that
    straddles is made of the peaks from its start on and the leaves behind them. The `RangeRoot`
    raises ValueError for any other range: what it needs was archived.
    """
    starts = {start: number for number, (start, _) in enumerate(base.spans())}

    def root_of(start: int, end: int) -> bytes:
        if start >= base.size:
            return tree_of(leaves(start, end)).root
        number = starts.get(start)
        if number is not None and end >= base.size:
            tree = Tree(base.size - start, base.peaks[number:])
            return tree.extended(leaves(base.size, end)).root
        if number is not None and base.spans()[number] == (start, end):
            return base.peaks[number]
        raise ValueError(f"it needs events before {base.size}, which were archived; restore them")

    return root_of


def inclusion_proof(root_of: RangeRoot, index: int, size: int) -> list[bytes]:
    """Inclusion proof of leaf `index` in the tree of `size` (RFC 9162, 2.1.3.1)."""
    return [root_of(start, end) for start, end in inclusion_spans(index, size)]


def consistency_proof(root_of: RangeRoot, old: int, new: int) -> list[bytes]:
    """Consistency proof between the trees of `old` and `new` leaves (RFC 9162, 2.1.4.1)."""
    return [root_of(start, end) for start, end in consistency_spans(old, new)]


def inclusion_holds(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows leaf hash `leaf` at `index` under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    return sn == 0 and r == root


def consistency_holds(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the new tree extends the old one (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    path = list(proof)
    if old & (old - 1) == 0:  # a power of two: the old tree is a subtree of the new one
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, c)
        fn >>= 1
        sn >>= 1
    return sn == 0 and fr == old_root and sr == new_root


def _split(count: int) -> int:
    """Largest power of two smaller than `count` (RFC 9162, 2.1.1)."""
    return 1 << (count - 1).bit_length() - 1
