"""The public keys of an issuer of tokens: fetched, kept for a time, and fetched anew when needed.

Whoever sends a token can have the server look for a key that is not there; so it looks at most once
in ten seconds, and each look ends within three. What was fetched is used for an hour at most when
the issuer can't be reached: a key that it has withdrawn must end here as well.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import orjson
from jwt import PyJWK

from runner.errors import IssuerUnavailableError
from runner.model.callers import Issuer
from runner.ports import Clock
from runner.schema.callers import check_url
from runner.stores.outgoing import connecting

FETCH_S = 3.0
"""For one document, name resolution aside; there are two where a discovery document tells."""
FRESH_S = 600.0
USED_S = 3600.0
AGAIN_S = 10.0
"""Between two looks for a key that was not there, or at an issuer that could not be reached."""
DOCUMENT_BYTES = 1 << 20
MOST_KEYS = 100

_DISCOVERY = "/.well-known/openid-configuration"
_SMALLEST_RSA_BITS = 2048  # RFC 7518, 3.3


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str | None
    algorithm: str
    key: PyJWK


class IssuerKeys:
    """Those of one issuer, for all threads."""

    def __init__(
        self, issuer: Issuer, clock: Clock, fetch: Callable[[str], bytes] | None = None
    ) -> None:
        """`fetch`: gets the document at a URL, or a file's path; OSError, ValueError: it can't."""
        self._issuer = issuer
        self._clock = clock
        self._fetch = fetch or fetched
        self._lock = threading.Lock()
        self._keys: Sequence[_Key] = ()
        self._fetched_s: float | None = None
        self._tried_s: float | None = None

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key of a token's header; None: the issuer has none such.

        A token without `kid` is taken where one key alone fits. IssuerUnavailableError: nobody
        knows. It may take as long as two documents do.
        """
        if self._age_s() >= FRESH_S:
            self._refresh()
        if self._age_s() >= USED_S:
            raise IssuerUnavailableError(
                "tokens can't be verified now: the keys of their issuer could not be fetched; try "
                "again in some seconds, or use a key"
            )
        found = self._among(kid, algorithm)
        if found is None and self._age_s() > 0:
            self._refresh()
            found = self._among(kid, algorithm)
        return found

    def _among(self, kid: str | None, algorithm: str) -> PyJWK | None:
        fit = [
            each.key
            for each in self._keys
            if each.algorithm == algorithm and (kid is None or each.kid == kid)
        ]
        return fit[0] if len(fit) == 1 else None

    def _age_s(self) -> float:
        if self._fetched_s is None:
            return float("inf")
        return self._clock.monotonic() - self._fetched_s

    def _refresh(self) -> None:
        """Look, unless somebody did a moment ago; those who ask meanwhile wait for the answer."""
        with self._lock:
            now_s = self._clock.monotonic()
            if self._tried_s is not None and now_s - self._tried_s < AGAIN_S:
                return
            self._tried_s = now_s
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._keys = _keys_of(self._document(), self._issuer.algorithms)
                self._fetched_s = self._clock.monotonic()

    def _document(self) -> object:
        if self._issuer.keys:
            return _json(self._fetch(self._issuer.keys))
        told = _json(self._fetch(self._issuer.url.rstrip("/") + _DISCOVERY))
        # OpenID Connect Discovery 1.0, 4.3: another's document says who else it is.
        if not isinstance(told, dict) or told.get("issuer") != self._issuer.url:
            raise ValueError("the discovery document is another issuer's")
        return _json(self._fetch(check_url(str(told.get("jwks_uri")))))


def fetched(place: str) -> bytes:
    """The document at a URL or in a file. No redirect is followed: the place was chosen.

    OSError, ValueError, http.client.HTTPException: it is not to be had.
    """
    if place.startswith("/"):
        with open(Path(place), "rb") as file:
            return _bounded(file.read(DOCUMENT_BYTES + 1))
    parts = urlsplit(place)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "application/json", "User-Agent": "runner", "Connection": "close"}
    deadline_s = time.monotonic() + FETCH_S
    with connecting(parts, FETCH_S) as connection:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"it answered with status {response.status}")
        data = b""
        while True:
            chunk = response.read1(DOCUMENT_BYTES + 1 - len(data))
            if time.monotonic() >= deadline_s:
                raise TimeoutError(f"it did not answer within {FETCH_S:g} s")
            if not chunk:
                break
            data = _bounded(data + chunk)
        if response.length:
            raise ValueError("it was cut off")
        return data


def _keys_of(document: object, algorithms: Sequence[str]) -> Sequence[_Key]:
    """Those that may sign tokens, of a JWK Set (RFC 7517, 5); ValueError: it is none.

    What is not understood is left out, as it says there.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise ValueError("it is no JWK Set")
    found = []
    for each in listed:
        if isinstance(each, dict) and (key := _key(each, algorithms)) is not None:
            found.append(key)
    return found


def _key(told: Mapping[str, Any], algorithms: Sequence[str]) -> _Key | None:
    operations = told.get("key_ops", ["verify"])
    if told.get("use", "sig") != "sig" or "verify" not in operations:
        return None
    kid = told.get("kid")
    if "d" in told or "k" in told or not isinstance(kid, str | None):
        return None  # a private or a shared key has no business there
    try:
        key = PyJWK(dict(told))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    bits = getattr(key.key, "key_size", _SMALLEST_RSA_BITS)
    if key.algorithm_name not in algorithms or (told["kty"] == "RSA" and bits < _SMALLEST_RSA_BITS):
        return None
    return _Key(kid, key.algorithm_name, key)


def _json(data: bytes) -> object:
    return orjson.loads(data)


def _bounded(data: bytes) -> bytes:
    if len(data) > DOCUMENT_BYTES:
        raise ValueError("it is too large")
    return data
