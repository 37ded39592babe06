"""Who calls: by a key, by a token of an issuer, or by the kernel's word on a unix socket's peer.

A credential that is presented is what counts, whoever the peer is; one that is not taken is
refused, and nothing else is tried. A key is told from memory. A token may have to wait for its
issuer's keys, so it is verified in a thread, and not for longer than `TOKEN_S`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.requests import HTTPConnection

from runner.errors import ForbiddenError, IssuerUnavailableError, UnauthenticatedError
from runner.keys import KeyRing, Refused
from runner.model.api_key import PREFIX
from runner.model.callers import Issuer, PeerRule
from runner.model.event import EventDraft
from runner.model.identity import Identity
from runner.ports import Clock, Store
from runner.surfaces.http.failures import Failures
from runner.surfaces.http.issuer_keys import FETCH_S
from runner.surfaces.http.peer_rules import identity_of_peer
from runner.surfaces.http.peers import Peer
from runner.surfaces.http.tokens import RefusedToken, Tokens, Ungranted

TOKEN_S = 2 * FETCH_S + 2.0
"""Two documents, and what name resolution may take."""
TOKENS_AT_ONCE = 8

_NOBODY = (
    "say who calls: with `Authorization: Bearer KEY` (`runner keys create` makes one), a token of "
    "an issuer that the server knows, or over its unix socket as a user whom it lets do something"
)
_NOT_TAKEN = (
    "this credential is not taken: it is not known, has ended, or was revoked; whoever keeps the "
    "server is told by `runner keys list --all` and `runner audit search --kind auth.failed`"
)


class Authenticator:
    """Tells who calls; one for a server. Awaited with a connection, it answers with an identity."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        peers: Sequence[PeerRule] = (),
        issuers: Sequence[Issuer] = (),
        *,
        own_uid: int | None = None,
    ) -> None:
        """`own_uid`: of whom a peer may do all, instead of this process's user."""
        self._ring = KeyRing(store, clock)
        self._tokens = Tokens(issuers, clock)
        self._peers = tuple(peers)
        self._own_uid = own_uid
        self._store = store
        self._limiter: CapacityLimiter | None = None
        self.failures = Failures(self._record, clock)
        """Calls of nobody; `finish` it when the server ends."""

    async def __call__(self, connection: HTTPConnection) -> Identity:
        """Who calls.

        UnauthenticatedError: nobody knows. ForbiddenError: a token holds, and is granted nothing.
        IssuerUnavailableError: a token can't be verified now. RecordError, StateError: keys can't.
        """
        stated = connection.headers.getlist("authorization")
        peer: Peer | None = connection.scope.get("state", {}).get("peer")
        if not stated:
            if peer is None:
                await self._refuse(connection, "none", _NOBODY)
            identity = identity_of_peer(peer, self._peers, self._own_uid)
            if identity is None:
                await self._refuse(connection, "peer unknown", _NOBODY)
            return identity
        scheme, _, credential = stated[0].partition(" ")
        if len(stated) > 1 or scheme.lower() != "bearer" or not credential:
            await self._refuse(connection, "malformed", _NOT_TAKEN, presented=True)
        credential = credential.strip(" ")
        if credential.startswith(PREFIX) or not self._tokens:
            return await self._by_key(connection, credential)
        return await self._by_token(connection, credential)

    async def _by_key(self, connection: HTTPConnection, text: str) -> Identity:
        found = self._ring.identity(text)
        if isinstance(found, Refused):
            why = f"key {found.why}"
            await self._refuse(connection, why, _NOT_TAKEN, key=found.key_id, presented=True)
        return found

    async def _by_token(self, connection: HTTPConnection, token: str) -> Identity:
        if self._limiter is None:
            self._limiter = CapacityLimiter(TOKENS_AT_ONCE)
        try:
            with anyio.fail_after(TOKEN_S):
                found = await to_thread.run_sync(
                    self._tokens.identity, token, abandon_on_cancel=True, limiter=self._limiter
                )
        except TimeoutError:
            raise IssuerUnavailableError(
                f"the token could not be verified within {TOKEN_S:g} s: its issuer does not answer"
            ) from None
        if isinstance(found, RefusedToken):
            await self._refuse(connection, f"token {found.why}", _NOT_TAKEN, presented=True)
        if isinstance(found, Ungranted):
            raise ForbiddenError(
                f"{found.name} is known, and no rule of server_issuers lets it do anything"
            )
        return found

    async def _refuse(
        self,
        connection: HTTPConnection,
        why: str,
        message: str,
        *,
        key: str | None = None,
        presented: bool = False,
    ) -> NoReturn:
        due = self.failures.note(why, key=key, peer=_where(connection))
        if due:
            await to_thread.run_sync(self.failures.record, due)
        raise UnauthenticatedError(message, presented=presented)

    def _record(self, drafts: Sequence[EventDraft]) -> None:
        with self._store.transaction() as tx:
            for draft in drafts:
                tx.append(draft)


def _where(connection: HTTPConnection) -> str | None:
    """As the event has it: an address, or the user at the other end of the socket."""
    peer: Peer | None = connection.scope.get("state", {}).get("peer")
    if peer is not None:
        return f"uid:{peer.uid}"
    return None if connection.client is None else connection.client.host
