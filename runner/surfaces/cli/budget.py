"""`runner budget`: how budgets stand and will stand, setting one for a time, beginning one anew."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import RequestError
from runner.surfaces.cli.event_lines import shown, take_any_text

if TYPE_CHECKING:
    from runner.model.budget import Spent

budget_app = typer.Typer(
    help="Budgets: what was used of them, when it is free again, and what is to come.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Its own budgets, beside those of the policy."),
]

BudgetArgument = Annotated[str, typer.Argument(metavar="BUDGET", help="Its id.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is recorded.")]
ScopeOption = Annotated[
    str | None,
    typer.Option("--of", metavar="WHOSE", help="Only this counter: agent:NAME, session:NAME."),
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
    from runner.granting import moment  # noqa: PLC0415

    take_any_text()
    with Runner() as runner:
        found = runner.budgets.standing(profile)
        overrides = runner.budgets.overrides(profile)
    if as_json:
        until = {spent: moment(override.until_s - 1) for spent, override in overrides}
        told = [{**data(each), "set_until": until.get(each)} for each in found]
        print(json.dumps(told, indent=2))
        return
    if not found:
        print("nothing was charged to any budget that is stated now")
        return
    print(f"{'budget':20} {'whose':24} {'used':>16} {'of':>16}  free again")
    for each in found:
        used = amount(each.resource, each.used or 0)
        spent = each.used is not None and each.used >= each.amount
        when = (free_at(each) or "with the end of a run") if spent else "-"
        whose = shown(each.scope)
        of = amount(each.resource, each.amount)
        print(f"{each.budget_id:20} {whose:24} {used:>16} {of:>16}  {when}")
    for each, override in overrides:
        ends = moment(override.until_s - 1)
        print(f"set: {_of(each)}: {amount(each.resource, override.amount)} until {ends}")


@budget_app.command("set")
def set_amounts(  # noqa: PLR0917  (options are keywords to whoever types them)
    budget: BudgetArgument,
    reason: ReasonOption,
    amounts: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=AMOUNT", help="As a policy has it: calls=10, wall=2h."),
    ] = None,
    scope: ScopeOption = None,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long it holds: 2h, 3d.")
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Let what is stated hold again, before its time.")
    ] = False,
    profile: ProfileOption = None,
) -> None:
    """Let another amount of a budget hold for a time, more or less than is stated.

    Of one counter (`--of agent:NAME`), or of a budget of all. What was used stays used. It ends by
    itself, is recorded as `budget.set`, and can't be done to a budget that is `fixed`. A run that
    goes on takes it with its next slice.
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.charging import amount  # noqa: PLC0415

    given = _amounts(amounts or [])
    if clear and (given or lasting):
        raise RequestError("--clear takes no amount and no --for")
    if not clear and lasting is None:
        raise RequestError("say for how long it is to hold: --for 2h; what is to stay is policy")
    take_any_text()
    with Runner() as runner:
        if clear or lasting is None:
            for charge in runner.budgets.unset(budget, reason, scope=scope, profile=profile):
                print(f"as stated: {budget} of {shown(charge.scope)}")
            return
        runner.budgets.set(budget, given, reason, lasting=lasting, scope=scope, profile=profile)
        for spent, override in runner.budgets.overrides(profile):
            if spent.budget_id == budget and spent.scope == (scope or "all"):
                print(f"set: {_of(spent)}: {amount(spent.resource, override.amount)} for {lasting}")


@budget_app.command()
def forecast(
    scope: ScopeOption = None,
    profile: ProfileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="With a plot of each.")] = True,
) -> None:
    """When each budget will be used up, and what this month comes to, by what was used so far.

    By the means of the same hours before, as docs/budgets.md says; what is in brackets holds four
    times of five, if what comes is like what was.
    """
    from runner.app import Runner  # noqa: PLC0415
    from runner.surfaces.cli.budget_forecast import as_data, plotted, table  # noqa: PLC0415

    take_any_text()
    with Runner() as runner:
        found = [
            each for each in runner.budgets.forecasts(profile) if scope in (None, each.spent.scope)
        ]
    if as_json:
        print(json.dumps([as_data(each) for each in found], indent=2))
        return
    if not found:
        print("nothing was charged to any budget that is stated now")
        return
    for line in table(found):
        print(line)
    for each in found if plot else ():
        for line in plotted(each, plain=not _has_blocks()):
            print(line)


@budget_app.command()
def reset(
    budget: BudgetArgument,
    reason: ReasonOption,
    scope: ScopeOption = None,
    profile: ProfileOption = None,
) -> None:
    """Begin its windows anew: what was used so far does not count any more.

    Runs that are open keep what they hold. Recorded as `budget.reset`.
    """
    from runner.app import Runner  # noqa: PLC0415

    take_any_text()
    with Runner() as runner:
        for each in runner.budgets.reset(budget, reason, scope=scope, profile=profile):
            print(f"begun anew: {budget} of {shown(each)}")


def _amounts(words: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in given:
            raise RequestError(f"{word!r} is no amount; give each once, as in calls=10")
        given[name] = value
    return given


def _of(spent: Spent) -> str:
    return f"{spent.budget_id} of {shown(spent.scope)}"


def _has_blocks() -> bool:
    """Whether what is printed may have block characters."""
    try:
        "\u2588\u2591".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
