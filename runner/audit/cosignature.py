"""Cosignatures of checkpoints (C2SP tlog-cosignature, https://c2sp.org/tlog-cosignature).

A witness's signature line under somebody else's checkpoint. It says that, as of a time, the tree is
the largest one of this log that the witness has seen, and that it follows all those before.
"""

from __future__ import annotations

import hashlib

from runner.audit.note import (
    KEY_BYTES,
    NoteError,
    PublicKey,
    Signer,
    decoded,
    encoded,
    parse_note,
)

COSIGNATURE_V1 = 4
"""The signature type of Ed25519 cosignatures (C2SP signed-note, "Signature types")."""

_TIME_BYTES = 8
_HASH_BYTES = 4


def cosigner_vkey(signer: Signer) -> str:
    """The public key of a witness that signs with this key, which must sign nothing else."""
    typed = bytes([COSIGNATURE_V1]) + signer.public
    return f"{signer.name}+{_hash(signer.name, typed).hex()}+{encoded(typed)}"


def cosigned(note: str, signer: Signer, now_s: int) -> str:
    """The note with one more line. `now_s`: seconds since the epoch. NoteError: it is none."""
    if not 0 < now_s < 1 << 63:
        raise NoteError(f"the clock says {now_s}, which is no time for a cosignature")
    signature = signer.signature(_message(parse_note(note).text, now_s))
    key_hash = _hash(signer.name, bytes([COSIGNATURE_V1]) + signer.public)
    line = encoded(key_hash + now_s.to_bytes(_TIME_BYTES, "big") + signature)
    return f"{note}\u2014 {signer.name} {line}\n"


def parse_cosigner(vkey: str) -> PublicKey:
    """Take a witness's public key apart. NoteError: it is none."""
    name, _, rest = vkey.partition("+")
    told, _, encoded_key = rest.partition("+")
    typed = decoded(encoded_key)
    if not name or len(typed) != 1 + KEY_BYTES or typed[0] != COSIGNATURE_V1:
        raise NoteError("it is no key of a witness, which would be like example.org/w+1a2b3c4d+BA…")
    key_hash = _hash(name, typed)
    if key_hash.hex() != told:
        raise NoteError("it is a damaged key: its hash is not that of the rest")
    return PublicKey(name, key_hash, typed[1:])


def cosigned_at(note: str, vkey: str) -> int | None:
    """When a witness cosigned it, in seconds since the epoch: the last time, if it did so twice.

    None: it did not. NoteError: it is no note, or a cosignature by this witness does not hold.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    key, parsed = parse_cosigner(vkey), parse_note(note)
    times = []
    for each in parsed.signatures:
        if (each.name, each.key_hash) != (key.name, key.key_hash):
            continue
        time_s = int.from_bytes(each.signature[:_TIME_BYTES], "big")
        try:
            Ed25519PublicKey.from_public_bytes(key.key).verify(
                each.signature[_TIME_BYTES:], _message(parsed.text, time_s)
            )
        except (InvalidSignature, ValueError):
            raise NoteError(f"the cosignature by {key.name} does not hold") from None
        times.append(time_s)
    return max(times, default=None)


def _message(text: str, now_s: int) -> bytes:
    return f"cosignature/v1\ntime {now_s}\n{text}".encode()


def _hash(name: str, typed_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + typed_key).digest()[:_HASH_BYTES]
