"""`runner kill`: the kill switch."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runner.kills import Kills
    from runner.model.kill import KillScope

Named = tuple["KillScope", str]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(kill)


def kill(  # noqa: PLR0917  (options are keywords to whoever types them)
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="End these runs.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="ID", help="All runs of an agent and of those that it started."),
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="All of a session.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="ID", help="All of a tenant.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of this state folder.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Let runs begin again instead.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show what is stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """End runs at once, and keep an agent, a session or a tenant, or all, from beginning more.

    They end within a second, whichever process holds them, with the exit code 137. But for single
    runs it holds, across restarts, until it is lifted: what is tried meanwhile is denied (126).

    Recorded as `kill.ordered` and `kill.lifted`. Exit code 125: something could not be ended.
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.errors import RequestError  # noqa: PLC0415

    named = _named(run or (), agent, session, tenant, everything=everything)
    if listing:
        if named or lift:
            raise RequestError("--list shows all that is stopped: give it alone")
        with Runner() as runner:
            _list(runner.kills, as_json=as_json)
        return
    if not named:
        raise RequestError(
            "say what to end: a run that `runner ps` lists, --agent, --session, --tenant, or --all"
        )
    with Runner() as runner:
        if lift:
            _lift(runner.kills, named, reason)
        else:
            _kill(runner.kills, named, reason, as_json=as_json)


def _named(
    runs: list[str] | tuple[str, ...],
    agent: str | None,
    session: str | None,
    tenant: str | None,
    *,
    everything: bool,
) -> list[Named]:
    from runner.model.kill import KillScope  # noqa: PLC0415

    given = [(KillScope.AGENT, agent), (KillScope.SESSION, session), (KillScope.TENANT, tenant)]
    return [
        *((KillScope.RUN, each) for each in runs),
        *((scope, name) for scope, name in given if name is not None),
        *([(KillScope.ALL, "")] if everything else ()),
    ]


def _kill(kills: Kills, named: list[Named], reason: str, *, as_json: bool) -> None:
    from runner.errors import BackendError  # noqa: PLC0415
    from runner.killing import whose  # noqa: PLC0415
    from runner.model.kill import Kill, KillScope  # noqa: PLC0415
    from runner.surfaces.standing import ended_document  # noqa: PLC0415

    began_s = time.monotonic()
    # All are ordered before any is waited for.
    ordered = [(scope, name, kills.order(scope, name, reason)) for scope, name in named]
    ended = [(scope, name, kills.await_end(each)) for scope, name, each in ordered]
    took_s = time.monotonic() - began_s
    if as_json:
        documents = [
            {"scope": scope.value, "name": name, **ended_document(each)}
            for scope, name, each in ended
        ]
        print(json.dumps(documents, indent=2))
    for scope, name, each in ended if not as_json else ():
        what = whose(Kill(scope, name, "", "", 0.0))
        count = len(each.runs)
        print(f"killed: {what}: {count} run{'' if count == 1 else 's'} in {took_s:.2f} s")
        for run_id in each.forced:
            print(f"  {run_id}: its supervisor did not answer; its sandbox was ended past it")
        for run_id in each.unrecorded:
            print(f"  {run_id}: its end is not recorded yet: its supervisor does not answer")
        if scope is not KillScope.RUN:
            option = "--all" if scope is KillScope.ALL else f"--{scope.value} {name}"
            print(f"  nothing of it runs until `runner kill --lift {option}`")
    if failed := [why for _, _, each in ended for why in each.alive]:
        raise BackendError("\n".join(failed))


def _lift(kills: Kills, named: list[Named], reason: str) -> None:
    from runner.killing import whose  # noqa: PLC0415
    from runner.model.kill import Kill  # noqa: PLC0415

    for scope, name in named:
        kills.lift(scope, name, reason)
        print(f"lifted: {whose(Kill(scope, name, '', '', 0.0))} may run again")


def _list(kills: Kills, *, as_json: bool) -> None:
    from runner.audit.event import rfc3339  # noqa: PLC0415
    from runner.killing import whose  # noqa: PLC0415
    from runner.surfaces.cli.event_lines import shown  # noqa: PLC0415
    from runner.surfaces.standing import kill_document  # noqa: PLC0415

    found = kills.all()
    if as_json:
        rows = [kill_document(each) for each in found]
        print(json.dumps(rows, indent=2))
        return
    if not found:
        print("nothing is stopped")
    for each in found:
        since = f"{rfc3339(each.since_s)[:19]}Z"
        print(f"{since}  {shown(whose(each))}, by {shown(each.by)}: {shown(each.reason)}")
