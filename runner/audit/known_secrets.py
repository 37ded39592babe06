"""Secrets that are known by their value: how else they may be written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

SHORTEST = 8
"""Shorter values are not looked for: they stand in ordinary text by chance."""


def forms(secrets: Iterable[str]) -> Mapping[str, str]:
    """Each way that a secret of these may be written -> the secret; shorter ones are left out.

    As it is, JSON-escaped, URL-encoded, in hexadecimal and in base64, at each of the three places
    that it may have in what was encoded. As text, and as text of its bytes (ISO 8859-1), as
    streams are read.
    """
    found: dict[str, str] = {}
    for secret in secrets:
        if len(secret) < SHORTEST:
            continue
        raw = secret.encode("utf-8", "surrogateescape")
        written = {
            secret,
            raw.decode("latin-1"),
            secret.rstrip("\r\n"),
            raw.hex(),
            raw.hex().upper(),
            *(json.dumps(secret, ensure_ascii=only_ascii)[1:-1] for only_ascii in (True, False)),
        }
        for quoted in (quote(raw, safe=""), quote(raw, safe="/"), quote_plus(raw)):
            written |= {quoted, _lower_escapes(quoted)}
        for before in range(3):
            written |= _base64_within(raw, before)
        for form in written:
            if len(form) >= SHORTEST:
                found.setdefault(form, secret)
    return found


def _base64_within(raw: bytes, before: int) -> set[str]:
    """The digits that depend on `raw` alone when `before` bytes stand in front of it."""
    encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
    whole_bits = (before + len(raw)) * 8
    first = -(-before * 8 // 6)
    inner = encoded[first : whole_bits // 6]
    return {inner, inner.replace("+", "-").replace("/", "_")}


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return head + "".join(f"%{each[:2].lower()}{each[2:]}" for each in rest)
