"""Who may call the exec API without a key: peers of its socket, and who an issuer vouches for."""

from __future__ import annotations

from dataclasses import dataclass

from runner.model.identity import NO_TENANT, Identity

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Signatures of tokens that are verified at all (RFC 7518, 3.1; RFC 8037); none that needs a
shared secret, and never `none`."""


@dataclass(frozen=True, slots=True)
class PeerRule:
    """What processes of a user, or of a group, may do; exactly one of the two is stated."""

    uid: int | None
    gid: int | None
    identity: Identity
    """Without a name of its own."""

    def __str__(self) -> str:
        """As people read it."""
        whose = f"gid:{self.gid}" if self.uid is None else f"uid:{self.uid}"
        return f"{whose} {spell_scope(self.identity)}"


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """What a token with these claims lets do."""

    when: tuple[tuple[str, str], ...]
    """Claims and values: each is the claim's, or one of its list. Never empty."""
    identity: Identity
    """Without a name of its own, and without what the next two add."""
    agent_claim: str | None = None
    """The claim that says which agent it is; the identity is then that agent's."""
    tenant_claim: str | None = None
    """The claim that says which tenant it belongs to, taken literally."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are taken (OpenID Connect Core 1.0; RFC 7519)."""

    url: str
    """As its tokens have it in `iss`."""
    audiences: tuple[str, ...]
    """One of them stands in a token's `aud`."""
    keys: str
    """URL or absolute path of its JWKS (RFC 7517); empty: its discovery document tells."""
    algorithms: tuple[str, ...]
    rules: tuple[ClaimRule, ...]
    """The first that fits counts."""

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.url} for {' '.join(self.audiences)}, {len(self.rules)} rules"


def spell_scope(identity: Identity) -> str:
    """What an identity may do, in a line for people."""
    tenants = ["no tenant" if each == NO_TENANT else each for each in identity.tenants]
    if identity.agent is not None:
        whose = f"agent {identity.agent}"
    else:
        whose = f"agents {' '.join(identity.agents) or 'none'}"
    profiles = " ".join(identity.profiles) or "none"
    reach = " ".join(tenants) or "no reach"
    return f"{' '.join(sorted(identity.verbs))}; {whose}; {reach}; profiles {profiles}"
