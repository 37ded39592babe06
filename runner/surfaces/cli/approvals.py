"""`runner approvals`: what rules ask, and answering it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runner.model.approval import Approval

approvals_app = typer.Typer(
    help="Questions that rules ask: looking at them, and answering.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Which = Annotated[
    str, typer.Argument(metavar="ID", help="Of the question; `ask-` and four digits will do.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded, and a no is told.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_PROGRAM = 48  # characters of what would run, in a table


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(approvals_app, name="approvals")


@approvals_app.command("list")
def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were answered or have expired.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Questions that wait for an answer: by id, who asks, until when, and what would run."""
    from runner.app import Runner  # noqa: PLC0415
    from runner.audit.event import rfc3339  # noqa: PLC0415
    from runner.surfaces.cli.event_lines import shown  # noqa: PLC0415
    from runner.surfaces.standing import approval_document  # noqa: PLC0415

    with Runner() as runner:
        found = runner.approvals.all() if everything else runner.approvals.waiting()
    if as_json:
        print(json.dumps([approval_document(each) for each in found], indent=2))
        return
    if not found:
        print("nothing was asked" if everything else "nothing waits for an answer")
        return
    print(f"{'id':20}  {'state':8} {'agent':16} {'until':20}  program")
    for each in found:
        program = shown(each.program.splitlines()[0])
        if len(program) > _PROGRAM:
            program = f"{program[: _PROGRAM - 3]}..."
        until = f"{rfc3339(each.expires_s)[:19]}Z"
        agent = shown(each.principal.agent)
        print(f"{each.id:20}  {each.state.value:8} {agent:16} {until:20}  {program}")


@approvals_app.command()
def show(which: Which, as_json: AsJson = False) -> None:
    """All of a question: who asks for what, where, under which profile, and which rule asks why."""
    from runner.app import Runner  # noqa: PLC0415
    from runner.surfaces.standing import approval_document  # noqa: PLC0415

    with Runner() as runner:
        found = runner.approvals.get(which)
    if as_json:
        print(json.dumps(approval_document(found), indent=2))
    else:
        _print(found)


@approvals_app.command()
def approve(which: Which, reason: Reason = "", as_json: AsJson = False) -> None:
    """Say yes: the very same request runs, once, if it comes before the question expires.

    If the request, the policy or the sandbox that it would get is another one by then, it is asked
    again. Recorded as `approval.answered`, with who answered.
    """
    _answer(which, reason, yes=True, as_json=as_json)


@approvals_app.command()
def deny(which: Which, reason: Reason = "", as_json: AsJson = False) -> None:
    """Say no, and why: whoever asked is told. Until the question expires it is not asked again."""
    _answer(which, reason, yes=False, as_json=as_json)


def _answer(which: str, reason: str, *, yes: bool, as_json: bool) -> None:
    from runner.app import Runner  # noqa: PLC0415
    from runner.surfaces.standing import approval_document  # noqa: PLC0415

    with Runner() as runner:
        found = runner.approvals.answer(which, reason, yes=yes)
    if as_json:
        print(json.dumps(approval_document(found), indent=2))
    else:
        print(f"{found.state.value}: {found.id}")


def _print(approval: Approval) -> None:
    from runner.audit.event import rfc3339  # noqa: PLC0415
    from runner.surfaces.cli.event_lines import shown  # noqa: PLC0415

    who, answer = approval.principal, approval.answer
    names = [("agent", who.agent), ("started by", who.parent), ("session", who.session)]
    names += [("tenant", who.tenant), ("uid", str(who.uid))]
    told = ", ".join(f"{name} {shown(value)}" for name, value in names if value is not None)
    groups = "; and ".join(" or ".join(group) for group in approval.approvers)
    rows = [
        ("who", told),
        ("asked", rfc3339(approval.asked_s)),
        ("open until", rfc3339(approval.expires_s)),
        ("for", shown(groups) or "anyone who may approve"),
        ("profile", shown(approval.profile)),
        ("in", shown(approval.directory)),
        ("why", shown(approval.reason)),
        ("rules", shown(", ".join(approval.rules))),
    ]
    if answer is not None:
        rows.append(
            ("answer", f"by {shown(answer.by)}, {rfc3339(answer.at_s)}: {shown(answer.reason)}")
        )
    if approval.run_id is not None:
        rows.append(("run", approval.run_id))
    print(f"{approval.id}: {approval.state.value}")
    for label, text in rows:
        print(f"  {label:12}{text}")
    print("what would run:")
    for line in approval.program.splitlines():
        print(f"  {shown(line)}")
