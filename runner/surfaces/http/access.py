"""Who calls, and what they may do: the one place that every route goes through.

`create_app` is given an `Authenticate`; each route declares its verb with `needs(Verb.…)` and gets
the identity. What an identity does not reach is answered as what does not exist.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from runner.errors import ForbiddenError, NotFoundError, RunnerError
from runner.model.identity import NO_TENANT, Identity, Verb
from runner.model.principal import Principal
from runner.schema.profiles import is_path

Authenticate = Callable[[HTTPConnection], Awaitable[Identity]]
"""Who calls; UnauthenticatedError: nobody knows. Of a unix socket's peer, `state["peer"]` of the
scope is a `Peer`."""


class Needs:
    """A dependency: the caller's identity, which has this verb."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb

    async def __call__(self, connection: HTTPConnection) -> Identity:
        """ForbiddenError: it does not have the verb."""
        authenticate: Authenticate = connection.app.state.authenticate
        identity = await authenticate(connection)
        if not identity.may(self.verb):
            raise ForbiddenError(f"{identity.name} does not have the verb '{self.verb.value}'")
        return identity


async def is_still(connection: HTTPConnection, identity: Identity) -> bool:
    """Whether who began this request would be taken for the same now: the key may be revoked."""
    authenticate: Authenticate = connection.app.state.authenticate
    try:
        return await authenticate(connection) == identity
    except RunnerError:
        return False


def needs(verb: Verb) -> Any:
    """For a route's parameter: `identity: Annotated[Identity, needs(Verb.RUN)]`."""
    return Depends(Needs(verb))


def check_reach(identity: Identity, what: str, agent: str, tenant: str | None) -> None:
    """NotFoundError: it is no business of the caller; word for word as if it were not there."""
    if not identity.reaches(agent, tenant):
        raise not_there(what)


def not_there(what: str) -> NotFoundError:
    """What is answered for what does not exist, and for what is none of the caller's business."""
    return NotFoundError(f"there is no {what}")


def reaches_all(identity: Identity) -> bool:
    """Whether nothing of this server is hidden from it."""
    return identity.agent is None and "*" in identity.agents and "*" in identity.tenants


def reaches_tenant(identity: Identity, tenant: str) -> bool:
    """Whether nothing of this tenant is hidden from it."""
    return identity.agent is None and "*" in identity.agents and identity.reaches("x", tenant)


def is_own_user(identity: Identity) -> bool:
    """Whether it is the user that this server runs as, or root, on the kernel's word."""
    own = (f"uid:{os.geteuid()}", "uid:0")
    return identity.name in own and reaches_all(identity) and identity.verbs == frozenset(Verb)


def check_own(identity: Identity, what: str) -> None:
    """ForbiddenError: it says what is only for the user that this server runs as."""
    if not is_own_user(identity):
        raise ForbiddenError(f"{what} is for the server's own user, at its unix socket")


def check_profile(identity: Identity, profile: str, *, stated: bool) -> None:
    """ForbiddenError: its runs may not be under it; said so too where there is no such profile.

    `stated`: whether the caller named it; the server's default may be a file.
    """
    usable = "*" in identity.profiles if is_path(profile) else identity.may_use(profile)
    if not usable or (stated and is_path(profile)):
        raise ForbiddenError(f"{identity.name} can't use the profile {profile!r}")


def own_principal(identity: Identity) -> Principal | None:
    """In whose name a caller's refusal is recorded that asked in a name that is not its own.

    An agent's own; None: nobody's, where it speaks for many. Never the name that was asked for: its
    owner did nothing.
    """
    if identity.agent is None:
        return None
    tenant = next((each for each in identity.tenants if each != NO_TENANT), None)
    return Principal(uid=os.getuid(), agent=identity.agent, tenant=tenant)


def acting_agent(
    identity: Identity, agent: str | None, parent: str | None, tenant: str | None
) -> str:
    """The agent that a run of this caller is of; the last two are as it says.

    ForbiddenError: it speaks for no such agent, charges another's budget, or is of another tenant.
    """
    chosen = agent or identity.agent or "default"
    if not identity.reaches(chosen, tenant):
        whose = f"the agent {chosen!r}" + (f" of the tenant {tenant!r}" if tenant else "")
        raise ForbiddenError(f"{identity.name} can't run anything as {whose}")
    if parent is not None and not identity.reaches(parent, tenant):
        raise ForbiddenError(f"{identity.name} can't charge a run to the agent {parent!r}")
    return chosen
