"""Tokens of an issuer, as OpenID Connect has them: verified, and their claims made an identity.

By PyJWT: a signature of an algorithm on the list by a key of that kind, `exp`, `iat`, `aud`, `iss`
and `sub` there and right, `nbf` where it is there (RFC 7519, 4.1; RFC 8725). What the token's
header says of where to find keys is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jwt

from runner.model.callers import ClaimRule, Issuer
from runner.model.identity import Identity, is_literal, is_name
from runner.ports import Clock
from runner.surfaces.http.issuer_keys import IssuerKeys

TOKEN_CHARACTERS = 8192
"""More than a header line has room for elsewhere."""
LEEWAY_S = 30.0
"""Clocks that are set by NTP differ by less."""


class _RefusedError(Exception):
    """A token is not taken; its text is why."""


# What PyJWT, and Python's own JSON and numbers, answer to what strangers write.
_REFUSING = (
    _RefusedError, jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError
)  # fmt: skip
_WHY: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "ended"),
    (jwt.ImmatureSignatureError, "early"),
    (jwt.InvalidAudienceError, "audience"),
    (jwt.InvalidSignatureError, "signature"),
)
_REQUIRED = ["exp", "iat", "aud", "iss", "sub"]


@dataclass(frozen=True, slots=True)
class RefusedToken:
    """Why a token is not taken: for the log, never for who presented it."""

    why: str
    """`malformed`, `issuer`, `algorithm`, `key`, `ended`, `early`, `audience` or `signature`."""


@dataclass(frozen=True, slots=True)
class Ungranted:
    """A token that holds, and that no rule gives anything."""

    name: str
    """Whose it is, as identities are named."""


class Tokens:
    """Tells whose a token is; for all threads of a server."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        clock: Clock,
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        """`fetch`: as `IssuerKeys` has it."""
        self._issuers = {
            issuer.url: (issuer, IssuerKeys(issuer, clock, fetch)) for issuer in issuers
        }

    def __bool__(self) -> bool:
        """Whether any issuer is stated."""
        return bool(self._issuers)

    def identity(self, token: str) -> Identity | RefusedToken | Ungranted:
        """Who has this token, or why nobody is taken to.

        IssuerUnavailableError: its issuer's keys can't be had. It may wait for those; see there.
        """
        try:
            issuer, claims = self._verified(token)
        except _RefusedError as error:
            return RefusedToken(str(error))
        except _REFUSING as error:
            fits = (why for kind, why in _WHY if isinstance(error, kind))
            return RefusedToken(next(fits, "malformed"))
        return identity_of_claims(claims, issuer)

    def _verified(self, token: str) -> tuple[Issuer, Mapping[str, Any]]:
        """Whose it is, and its claims, proved; one of `_REFUSING` else."""
        if len(token) > TOKEN_CHARACTERS or not token.isascii():
            raise _RefusedError("malformed")
        header = jwt.get_unverified_header(token)
        url = jwt.decode(token, options={"verify_signature": False}).get("iss")
        if not isinstance(url, str) or url not in self._issuers:
            raise _RefusedError("issuer")
        issuer, keys = self._issuers[url]
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms or "crit" in header:
            raise _RefusedError("algorithm")
        key = keys.find(header.get("kid"), str(algorithm))
        if key is None:
            raise _RefusedError("key")
        claims = jwt.decode(
            token,
            key,
            algorithms=list(issuer.algorithms),
            audience=list(issuer.audiences),
            issuer=issuer.url,
            leeway=LEEWAY_S,
            options={"require": _REQUIRED},
        )
        return issuer, claims


def identity_of_claims(claims: Mapping[str, Any], issuer: Issuer) -> Identity | Ungranted:
    """Who has a token with these claims, which are proved.

    The first rule whose `when` fits counts: if a claim that it needs is not there, or is no name,
    nothing is granted, and no later rule is asked.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_name(subject):
        return Ungranted(f"oidc:{issuer.url}")
    name = f"oidc:{issuer.url}#{subject}"
    for rule in issuer.rules:
        if all(_has(claims, claim, wanted) for claim, wanted in rule.when):
            return _granted(claims, rule, name) or Ungranted(name)
    return Ungranted(name)


def _granted(claims: Mapping[str, Any], rule: ClaimRule, name: str) -> Identity | None:
    granted = replace(rule.identity, name=name)
    try:
        if rule.tenant_claim is not None:
            tenant = claims.get(rule.tenant_claim)
            # As a pattern it would be more than one.
            if not isinstance(tenant, str) or not is_literal(tenant):
                return None
            granted = replace(granted, tenants=(tenant,))
        if rule.agent_claim is not None:
            agent = claims.get(rule.agent_claim)
            if not isinstance(agent, str):
                return None
            granted = replace(granted, agent=agent)
    except ValueError:
        return None
    return granted


def _has(claims: Mapping[str, Any], claim: str, wanted: str) -> bool:
    value = claims.get(claim)
    return value == wanted or (isinstance(value, list) and wanted in value)
