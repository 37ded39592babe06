"""`runner guard`: commands that have to pause, and letting them be tried again."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from runner.surfaces.cli.event_lines import shown, take_any_text

guard_app = typer.Typer(
    help="The loop guard: commands that are tried again and again and have to pause.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(guard_app, name="guard")


@guard_app.command()
def show(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that are counted and do not pause.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Commands that have to pause now: by id, whose they are, why, and until when.

    A command is known by a keyed digest only. What was tried is told by the events of its runs:
    `runner audit search --kind guard.paused`, then `runner audit show RUN`.
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.granting import moment  # noqa: PLC0415

    take_any_text()
    with Runner() as runner:
        guards = runner.guards
        found = guards.all() if everything else guards.paused()
        rows = [
            {
                "command": each.id,
                "whose": each.whose,
                "uid": each.uid,
                "trigger": each.looped.trigger.value,
                "count": each.looped.count,
                "pauses": each.looped.pauses,
                "until": moment(each.looped.until_s) if guards.is_paused(each) else None,
            }
            for each in found
        ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("no command is counted" if everything else "no command has to pause")
        return
    print(f"{'command':12} {'whose':24} {'why':8} {'times':>5} {'pauses':>6}  until")
    for row in rows:
        whose = shown(str(row["whose"]))
        told = f"{str(row['command'])[:12]} {whose:24} {row['trigger']:8} {row['count']:>5}"
        print(f"{told} {row['pauses']:>6}  {row['until'] or '-'}")


@guard_app.command()
def reset(
    command: Annotated[
        str | None,
        typer.Argument(metavar="COMMAND", help="Its id, or the first 8 digits or more of that."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All commands, of everybody.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")] = "",
) -> None:
    """Let a command be tried again: its pause ends, and its tries so far do not count.

    Recorded as `guard.reset`.
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.errors import RequestError  # noqa: PLC0415

    if (command is None) != everything:
        raise RequestError("say which command, by the id that `runner guard show` has, or --all")
    with Runner() as runner:
        for each in runner.guards.reset(command, reason):
            print(f"begun anew: {each}")
