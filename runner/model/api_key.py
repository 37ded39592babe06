"""A key of the API: what is kept of it, and how it is written.

`rnk_` and twelve characters are its id, which is no secret; 32 characters are, 190 bits; the last
eight are a CRC-32 over what stands before them, so that a typing error, or a text that only looks
like a key, is told from one without asking anybody.

What is kept is SHA-256 of the whole text. A slow hash (scrypt, Argon2) makes guessing a password
dear; nobody guesses one of 2**190 at any price, and a server that is made to compute slow hashes by
strangers is one that they can stop.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass

from runner.model.identity import Identity

PREFIX = "rnk_"
"""Three letters that no word ends in, so that a text without keys is cheap to look through."""
ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
ID_CHARACTERS = 12
SECRET_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"  # noqa: S105
SECRET_CHARACTERS = 32
DIGEST_BYTES = 32

KEY_ID = re.compile(rf"{PREFIX}[a-z2-7]{{{ID_CHARACTERS}}}")
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WRITTEN = re.compile(rf"({KEY_ID.pattern})_[A-Za-z0-9]{{{SECRET_CHARACTERS}}}_[0-9a-f]{{8}}")

NEVER_S = float("inf")
"""When a key ends that does not end by itself."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key. Whoever has it is `identity`."""

    id: str
    """`rnk_` and twelve characters; no secret."""
    name: str
    """What people call it; no two keys in force have the same."""
    digest: bytes
    """SHA-256 of its text, 32 bytes."""
    identity: Identity
    created_s: float
    """Seconds since the epoch, as below."""
    expires_s: float
    """From then on it is not taken; NEVER_S: until it is revoked."""
    revoked_s: float | None = None
    """Since when it is not taken any more; None: nobody revoked it."""

    def is_in_force(self, now_s: float) -> bool:
        """Whether it is taken now."""
        return self.revoked_s is None and now_s < self.expires_s


def identity_name(key_id: str) -> str:
    """As the log has who calls with that key."""
    return f"key:{key_id}"


def written(key_id: str, secret: str) -> str:
    """The key's text."""
    text = f"{key_id}_{secret}"
    return f"{text}_{_crc(text)}"


def id_of(text: str) -> str | None:
    """Id of the key whose text this would be; None: it is no key's."""
    if not text.isascii() or (found := _WRITTEN.fullmatch(text)) is None:
        return None
    before, _, crc = text.rpartition("_")
    return found[1] if hmac.compare_digest(crc, _crc(before)) else None


def digest_of(text: str) -> bytes:
    """What is kept of a key's text."""
    return hashlib.sha256(text.encode()).digest()


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
