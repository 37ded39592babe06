"""Signed notes (C2SP signed-note, https://c2sp.org/signed-note): a text, and who signed it.

    <text, ends with a newline>
    <empty line>
    — <key name> <base64 of 4 bytes of key hash and the signature>

Signatures are Ed25519. A key is known by its vkey, `<name>+<hash>+<base64 of 0x01 and the key>`; a
private one is written as Go's `note` package does, with `PRIVATE+KEY+` before it and its seed.
`cryptography`, which takes 20 ms to load, is loaded by what signs or verifies.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ED25519 = 1
"""The signature type of an Ed25519 key (C2SP signed-note, "Signature types")."""
KEY_BYTES = 32
"""Of a public key and of a seed (RFC 8032, 5.1.5)."""
MAX_NOTE_CHARACTERS = 1_000_000
"""A longer note is refused, as Go's package does."""
MAX_SIGNATURES = 100
"""More are refused, as Go's package does."""

_SIGNATURE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_NAME = re.compile(r"[^\s+]+")
_HASH_BYTES = 4
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PRIVATE = "PRIVATE+KEY+"


class NoteError(ValueError):
    """A note or a key is malformed, or a signature does not hold; the message is a clause."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A line below a note's text."""

    name: str
    key_hash: bytes
    """Four bytes that tell keys of one name apart."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note that was read; nothing of it is verified."""

    text: str
    """With its last newline: the bytes that were signed, as UTF-8."""
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a vkey says."""

    name: str
    key_hash: bytes
    key: bytes


class Signer:
    """A private key."""

    def __init__(self, name: str, seed: bytes) -> None:
        """`seed`: 32 random bytes. NoteError: no name for a key, or no seed."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PrivateKey,
        )

        if not _NAME.fullmatch(name) or len(seed) != KEY_BYTES:
            raise NoteError(f"{name!r} is no name of a key, or its seed is not {KEY_BYTES} bytes")
        self.name = name
        self._seed = seed
        self._key: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        typed = bytes([ED25519]) + self.public
        self._hash = _hash(name, typed)
        self.vkey = f"{name}+{self._hash.hex()}+{encoded(typed)}"

    @staticmethod
    def parse(text: str) -> Signer:
        """Read what `private` gives. NoteError: it is no private key."""
        parts = text.removeprefix(_PRIVATE).split("+", 2)
        if not text.startswith(_PRIVATE) or len(parts) != 3:
            raise NoteError("it is no private key")
        seed = decoded(parts[2])
        if len(seed) != 1 + KEY_BYTES or seed[0] != ED25519:
            raise NoteError("it is no private key for Ed25519")
        signer = Signer(parts[0], seed[1:])
        if signer._hash.hex() != parts[1]:
            raise NoteError("it is a damaged private key")
        return signer

    @property
    def private(self) -> str:
        """The private key as a text; it must not be shown."""
        seed = encoded(bytes([ED25519]) + self._seed)
        return f"{_PRIVATE}{self.name}+{self._hash.hex()}+{seed}"

    def signature(self, message: bytes) -> bytes:
        """64 bytes (RFC 8032, 5.1.6)."""
        return self._key.sign(message)

    def line(self, text: str) -> str:
        """The signature's line for a note's text."""
        signature = self.signature(text.encode())
        return f"\u2014 {self.name} {encoded(self._hash + signature)}\n"


def sign(text: str, signers: Iterable[Signer]) -> str:
    """A note of a text, which ends with a newline. NoteError: it can't be one."""
    _check_text(text)
    return f"{text}\n{''.join(signer.line(text) for signer in signers)}"


def parse_note(note: str) -> Note:
    """Take a note apart. NoteError: it is none."""
    if len(note) > MAX_NOTE_CHARACTERS:
        raise NoteError("it is too long for a note")
    above, found, below = note.rpartition("\n\n")
    if not found or not below.endswith("\n"):
        raise NoteError("it has no signatures")
    text = f"{above}\n"
    _check_text(text)
    lines = below[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError("it has too many signatures")
    return Note(text, tuple(_signature(line) for line in lines))


def parse_vkey(vkey: str) -> PublicKey:
    """Take a vkey apart. NoteError: it is none, or not one for Ed25519."""
    parts = vkey.split("+", 2)
    if len(parts) != 3 or not _NAME.fullmatch(parts[0]):
        raise NoteError("it is no key, which would be like example.org/log+1a2b3c4d+AQ…")
    key = decoded(parts[2])
    if len(key) != 1 + KEY_BYTES or key[0] != ED25519:
        raise NoteError("it is no key for Ed25519")
    key_hash = _hash(parts[0], key)
    if key_hash.hex() != parts[1]:
        raise NoteError("it is a damaged key: its hash is not that of the rest")
    return PublicKey(parts[0], key_hash, key[1:])


def open_note(note: str, vkeys: Sequence[str]) -> str:
    """The text of a note that every one of these keys has signed; others are not looked at.

    NoteError: it is no note, one has not signed it, or a signature by one of them does not hold.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    parsed = parse_note(note)
    for vkey in vkeys:
        key = parse_vkey(vkey)
        signed = [
            each.signature
            for each in parsed.signatures
            if (each.name, each.key_hash) == (key.name, key.key_hash)
        ]
        if not signed:
            raise NoteError(f"{vkey} has not signed it")
        try:
            public = Ed25519PublicKey.from_public_bytes(key.key)
            for signature in signed:
                public.verify(signature, parsed.text.encode())
        except (InvalidSignature, ValueError):
            raise NoteError(f"its signature by {vkey} does not hold") from None
    return parsed.text


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteError("its text has control characters, or no end of line")


def _signature(line: str) -> Signature:
    found = _SIGNATURE.fullmatch(line)
    if found is None:
        raise NoteError("a line below its text is no signature")
    data = decoded(found[2])
    if len(data) <= _HASH_BYTES:
        raise NoteError("a signature of it is too short")
    return Signature(found[1], data[:_HASH_BYTES], data[_HASH_BYTES:])


def _hash(name: str, typed_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + typed_key).digest()[:_HASH_BYTES]


def encoded(data: bytes) -> str:
    """Base64 as notes have it (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def decoded(text: str) -> bytes:
    """Of base64 in the one form that `encoded` writes. NoteError: it is in another, or none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("it is not base64") from None
    if encoded(data) != text:
        raise NoteError("its base64 is not in the one form that is written")
    return data
