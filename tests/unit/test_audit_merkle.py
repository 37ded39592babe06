"""RFC 9162 trees: the known answers of the certificate transparency log's own test suite, and
agreement of proofs, roots and peaks over every small tree."""

from __future__ import annotations

import hashlib

import pytest

from runner.audit.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_holds,
    consistency_proof,
    inclusion_holds,
    inclusion_proof,
    leaf_hash,
    range_root,
    tree_of,
)

# Leaves, roots and proofs of the reference implementation's tests
# (google/certificate-transparency, merkletree/merkle_tree_test.cc), in hex.
LEAVES = [
    bytes.fromhex(h)
    for h in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]


def test_the_empty_tree() -> None:
    assert Tree().root == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(1, 9))
def test_known_roots(size: int) -> None:
    assert tree_of(HASHES[:size]).root.hex() == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_known_inclusion_proofs(index: int, size: int, proof: list[str]) -> None:
    assert [h.hex() for h in inclusion_proof(range_root(HASHES), index, size)] == proof


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_known_consistency_proofs(old: int, new: int, proof: list[str]) -> None:
    assert [h.hex() for h in consistency_proof(range_root(HASHES), old, new)] == proof


def _leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % i) for i in range(count)]


def _root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = _root_by_definition(leaves[:k]), _root_by_definition(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize("size", range(40))
def test_peaks_give_the_root_of_the_definition(size: int) -> None:
    leaves = _leaves(size)
    tree = tree_of(leaves)
    assert tree.root == _root_by_definition(leaves)
    assert Tree.from_bytes(size, tree.to_bytes()) == tree
    assert [tree_of(leaves[a:b]).root for a, b in tree.spans()] == list(tree.peaks)


@pytest.mark.parametrize("size", range(1, 20))
def test_every_inclusion_proof_holds_and_no_changed_one_does(size: int) -> None:
    leaves = _leaves(size)
    root = tree_of(leaves).root
    for index in range(size):
        proof = inclusion_proof(range_root(leaves), index, size)
        assert inclusion_holds(leaves[index], index, size, proof, root)
        assert not inclusion_holds(leaf_hash(b"other"), index, size, proof, root)
        assert not inclusion_holds(leaves[index], index, size, [*proof, root], root)
        assert not inclusion_holds(leaves[index], size, size, proof, root)
        for i in range(len(proof)):
            changed = [*proof[:i], bytes(32), *proof[i + 1 :]]
            assert not inclusion_holds(leaves[index], index, size, changed, root)
            assert not inclusion_holds(leaves[index], index, size, proof[:i], root)


@pytest.mark.parametrize("new", range(1, 20))
def test_every_consistency_proof_holds_and_no_changed_one_does(new: int) -> None:
    leaves = _leaves(new)
    root = tree_of(leaves).root
    for old in range(1, new + 1):
        old_root = tree_of(leaves[:old]).root
        proof = consistency_proof(range_root(leaves), old, new)
        assert consistency_holds(old, old_root, new, root, proof)
        assert not consistency_holds(old, bytes(32), new, root, proof)
        assert not consistency_holds(old, old_root, new, bytes(32), proof)
        assert not consistency_holds(old, old_root, new, root, [*proof, root])
        for i in range(len(proof)):
            changed = [*proof[:i], bytes(32), *proof[i + 1 :]]
            assert not consistency_holds(old, old_root, new, root, changed)
            assert not consistency_holds(old, old_root, new, root, proof[:i])


def test_what_does_not_exist_has_no_proof() -> None:
    with pytest.raises(ValueError, match="no leaf 3"):
        inclusion_proof(range_root(HASHES), 3, 3)
    with pytest.raises(ValueError, match="no consistency proof"):
        consistency_proof(range_root(HASHES), 0, 3)
    with pytest.raises(ValueError, match="no consistency proof"):
        consistency_proof(range_root(HASHES), 4, 3)
    assert not consistency_holds(0, EMPTY_ROOT, 3, tree_of(HASHES[:3]).root, [])


@pytest.mark.parametrize(("size", "peaks"), [(1, b""), (3, bytes(32)), (0, bytes(32)), (-1, b"")])
def test_peaks_that_can_not_be(size: int, peaks: bytes) -> None:
    with pytest.raises(ValueError, match="can't belong"):
        Tree.from_bytes(size, peaks)
