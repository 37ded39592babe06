"""`runner keys`: keys of the API, for agents and for services that speak for agents."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import RequestError

if TYPE_CHECKING:
    from runner.keys import Keys
    from runner.model.api_key import ApiKey
    from runner.model.identity import Identity

DEFAULT_EXPIRES = "90d"

keys_app = typer.Typer(
    help="Keys of the API: who may call it, as whom, and for what.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys_app, name="keys")


@keys_app.command()
def create(  # noqa: PLR0917  (options are keywords to whoever types them)
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call the key: ci, bot-1.")],
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent",
            metavar="NAME",
            help="The key is this agent's: it runs under this name only, and governs nothing.",
        ),
    ] = None,
    agents: Annotated[
        list[str] | None,
        typer.Option(
            "--agents",
            metavar="GLOB",
            help="The key is a service's that speaks for these agents: 'ci-*', or '*' for all.",
        ),
    ] = None,
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant",
            metavar="GLOB",
            help="Within these tenants; '*' for all. Default: what belongs to no tenant.",
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--profile", metavar="GLOB", help="Its runs are under these profiles; '*' for all."
        ),
    ] = None,
    verb: Annotated[
        list[str] | None,
        typer.Option(
            "--verb",
            metavar="VERB",
            help="It may: run, read, apply; and no agent may: approve, budget, kill, admin. "
            "Default for an agent: run, read, apply.",
        ),
    ] = None,
    expires: Annotated[
        str,
        typer.Option("--expires", metavar="TIME", help="When it ends: 30d, 2027-01-31, or never."),
    ] = DEFAULT_EXPIRES,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Make a key and show it, this once: only a digest of it is kept.

    What is not given is not granted: a key that may run needs a profile, and an agent or agents.
    A call has it in its header: `Authorization: Bearer KEY`. Recorded as `apikey.created`.

    An agent's key, and one of an operator who answers what rules ask in the tenant acme:

    \b
    runner keys create bot --agent bot --profile agent
    runner keys create op --agents '*' --tenant acme --verb read --verb approve
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.model.callers import spell_scope  # noqa: PLC0415

    identity = _identity(agent, agents or [], tenant, profile or [], verb)

    with Runner() as runner:
        key, text = runner.keys.create(name, identity, expires)
        told = _told(key, runner.keys)
    if as_json:
        print(json.dumps({**told, "key": text}, indent=2))
        return
    print(text)
    _say(f"this is the key {name!r}, shown once; it may: {spell_scope(key.identity)}")
    _say(f"it ends {told['expires'] or 'when it is revoked'}: runner keys revoke {name}")


@keys_app.command("list")
def list_keys(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that are revoked or have ended.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """The keys that are taken now: id, name, when each ends, and what it may do.

    The keys themselves are not kept, so nobody can list those.
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.model.callers import spell_scope  # noqa: PLC0415

    with Runner() as runner:
        found = runner.keys.all() if everything else runner.keys.in_force()
        rows = [_told(key, runner.keys) for key in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("there is no key" if everything else "no key is in force")
        return
    print(f"{'id':16} {'name':16} {'state':8} {'ends':20}  may")
    for key, row in zip(found, rows, strict=True):
        may = spell_scope(key.identity)
        ends = row["expires"] or "never"
        print(f"{row['id']:16} {row['name']:16} {row['state']:8} {ends:20}  {may}")


@keys_app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID|NAME", help="As `runner keys list` has it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")] = "",
) -> None:
    """Take a key no more, at once and for good: a running server refuses it within a second.

    What was begun with it goes on. It is recorded as `apikey.revoked`.
    """
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        revoked = runner.keys.revoke(key, reason)
    print(f"revoked: {revoked.id} {revoked.name}")


def _identity(
    agent: str | None,
    agents: list[str],
    tenants: list[str] | None,
    profiles: list[str],
    verbs: list[str] | None,
) -> Identity:
    from runner.model.identity import AGENT_VERBS, NO_TENANT, Identity, Verb  # noqa: PLC0415
    from runner.schema.problems import unknown  # noqa: PLC0415

    for each in verbs or []:
        if each not in set(Verb):
            raise RequestError(unknown("verb", each, tuple(Verb)))
    chosen = frozenset(map(Verb, verbs)) if verbs else AGENT_VERBS if agent else frozenset()
    try:
        return Identity(
            "",
            chosen,
            agent,
            tuple(agents),
            (NO_TENANT,) if tenants is None else tuple(tenants),
            tuple(profiles),
        )
    except ValueError as error:
        raise RequestError(f"no such key can be made: {error}") from None


def _told(key: ApiKey, keys: Keys) -> dict[str, Any]:
    from runner.keys import told_time  # noqa: PLC0415

    identity = key.identity
    return {
        "id": key.id,
        "name": key.name,
        "state": keys.state(key),
        "created": told_time(key.created_s),
        "expires": told_time(key.expires_s),
        "revoked": None if key.revoked_s is None else told_time(key.revoked_s),
        "verbs": sorted(identity.verbs),
        "agent": identity.agent,
        "agents": list(identity.agents),
        "tenants": list(identity.tenants),
        "profiles": list(identity.profiles),
    }


def _say(text: str) -> None:
    print(f"runner: {text}", file=sys.stderr)
