"""`runner budget`: how budgets stand, and beginning one anew."""

from __future__ import annotations

import json
from typing import Annotated

import typer

budget_app = typer.Typer(
    help="Budgets: what was used of them, and when it is free again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Its own budgets, beside those of the policy."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(budget_app, name="budget")


@budget_app.command()
def show(
    profile: ProfileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Every counter that something was charged to, of the budgets that are stated now.

    Used is what counts within the window, and what runs that are open hold. A counter that has
    nothing left refuses runs until the time in the last column.
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.charging import amount, data, free_at  # noqa: PLC0415

    with Runner() as runner:
        found = runner.budgets.standing(profile)
    if as_json:
        print(json.dumps([data(each) for each in found], indent=2))
        return
    if not found:
        print("nothing was charged to any budget that is stated now")
        return
    print(f"{'budget':20} {'whose':24} {'used':>16} {'of':>16}  free again")
    for each in found:
        used = amount(each.resource, each.used or 0)
        spent = each.used is not None and each.used >= each.amount
        when = (free_at(each) or "with the end of a run") if spent else "-"
        whose = ascii(each.scope)[1:-1]
        of = amount(each.resource, each.amount)
        print(f"{each.budget_id:20} {whose:24} {used:>16} {of:>16}  {when}")


@budget_app.command()
def reset(
    budget: Annotated[str, typer.Argument(metavar="BUDGET", help="Its id.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    scope: Annotated[
        str | None,
        typer.Option("--of", metavar="WHOSE", help="Only this counter: agent:NAME, session:NAME."),
    ] = None,
    profile: ProfileOption = None,
) -> None:
    """Begin its windows anew: what was used so far does not count any more.

    Runs that are open keep what they hold. Recorded as `budget.reset`.
    """
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        for each in runner.budgets.reset(budget, reason, scope=scope, profile=profile):
            print(f"begun anew: {budget} of {ascii(each)[1:-1]}")
