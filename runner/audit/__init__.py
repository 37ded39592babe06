"""Canonical bytes, hash chain, Merkle tree, verification; pure."""
