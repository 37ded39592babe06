"""`runner run` and `runner check`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import EXIT_DENIED, RunnerError
from runner.surfaces.cli.program import AsJson, Asked, ProgramCommand, takes_a_program
from runner.surfaces.cli.reporting import (
    SayAsked,
    check_result,
    report,
    report_failure,
    teller,
)

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.caller import Caller
    from runner.model.decision import Decision
    from runner.model.outcome import Outcome
    from runner.model.request import ExecRequest

RUN_HELP = """Run what an agent wrote: decided, contained, metered and recorded.

\b
  runner run fix.py --verbose          a script; its interpreter from its name or `#!`
  runner run - < script.sh             a script from stdin
  runner run -c 'make && make test'    a command line for a shell
  runner run -- pytest -q              a program and its arguments
"""


BackendName = Annotated[
    str | None, typer.Option("--backend", metavar="native|docker", help="Where it runs.")
]

ServerChoice = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="auto|never|always|unix:PATH",
        help="Whether a server of the same user runs it. [default: auto: if one listens]",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    settings = {"allow_interspersed_args": False}
    app.command("run", cls=ProgramCommand, context_settings=settings, help=RUN_HELP)(run)
    app.command("check", cls=ProgramCommand, context_settings=settings)(check)


@takes_a_program
def run(  # noqa: PLR0917  (options are keywords to whoever types them)
    asked: Asked,
    backend: BackendName = None,
    terminal: Annotated[
        bool, typer.Option("-t", "--terminal", help="Give the program a terminal.")
    ] = False,
    result: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the outcome there as JSON.")
    ] = None,
    as_json: AsJson = False,
    ask_wait: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Wait so long for an answer where a rule asks."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show decision and compiled sandbox; run nothing.")
    ] = False,
    server: ServerChoice = None,
) -> None:
    """Run what an agent wrote; see RUN_HELP."""
    from runner.surfaces.cli import served  # noqa: PLC0415

    check_result(result)
    try:
        why_not = _why_here(backend, terminal=terminal, dry_run=dry_run)
        ran = served.run(server, asked, why_not, ask_wait, quiet=as_json)
        if ran is not None:
            report(ran.outcome, result, ran.told, as_json=as_json)
            raise typer.Exit(ran.outcome.status)
        from runner.app import Runner  # noqa: PLC0415

        with Runner() as runner:
            request = asked.request(runner, terminal=terminal)
            if dry_run:
                _show_plan(runner, request, backend)
            wait_s = _wait_s(runner, ask_wait)
            caller = _caller(request, asked.stdin, wait_s, quiet=as_json)
            outcome = _execute(runner, request, backend, caller)
    except RunnerError as error:
        report_failure(error, result, as_json=as_json)
        raise
    report(outcome, result, teller(outcome), as_json=as_json)
    raise typer.Exit(outcome.status)


@takes_a_program
def check(asked: Asked, as_json: AsJson = False, server: ServerChoice = None) -> None:
    """Say what the policy decides, without running. Exit code 0: allowed; 126: not."""
    from runner.surfaces.cli import served  # noqa: PLC0415

    decision, document = served.check(server, asked) or _decided(asked)
    if as_json:
        print(json.dumps({"decision": document}, indent=2))
    else:
        print(f"{document['effect']}: {document['reason']}")
        for rule in decision.rules:
            print(f"  {rule.effect.value:7} {rule.layer} / {rule.id}: {rule.matched}")
        for rule in decision.observed:
            told = f"{rule.layer} / {rule.id}: {rule.matched}"
            print(f"  only observed, {rule.effect.value}: {told}")
    raise typer.Exit(0 if decision.permits else EXIT_DENIED)


def _decided(asked: Asked) -> tuple[Decision, dict[str, Any]]:
    from runner.app import Runner  # noqa: PLC0415
    from runner.schema.outcome import decision_document  # noqa: PLC0415

    with Runner() as runner:
        decision = runner.check(asked.request(runner))
    return decision, decision_document(decision)


def _why_here(backend: str | None, *, terminal: bool, dry_run: bool) -> str | None:
    """Why no server can do it; None: one may."""
    if terminal:
        return "it is to have a terminal"
    if dry_run:
        return "nothing is to be run"
    return None if backend is None else "a backend is named"


def _wait_s(runner: Runner, stated: str | None) -> float:
    from runner.intake import ask_wait_s  # noqa: PLC0415

    return runner.settings.ask_wait.value if stated is None else ask_wait_s(stated)


def _caller(request: ExecRequest, stdin: int | None, wait_s: float, *, quiet: bool) -> Caller:
    from runner.caller import Caller  # noqa: PLC0415
    from runner.streams import FdSink, NullSink  # noqa: PLC0415

    return Caller(
        stdin=stdin,
        stdout=NullSink() if quiet else FdSink(1),
        stderr=NullSink() if quiet else FdSink(2),
        terminal=0 if request.terminal and os.isatty(0) else None,
        ask_wait_s=wait_s,
        observer=SayAsked(),
    )


def _execute(runner: Runner, request: ExecRequest, backend: str | None, caller: Caller) -> Outcome:
    from runner.surfaces.cli.terminal import cancelled_by_signals, raw_terminal  # noqa: PLC0415

    with cancelled_by_signals() as cancel, raw_terminal(caller.terminal):
        return runner.execute(request, caller, cancel, backend=backend)


def _show_plan(runner: Runner, request: ExecRequest, backend: str | None) -> None:
    from runner.compile import spec_document  # noqa: PLC0415
    from runner.schema.outcome import decision_document  # noqa: PLC0415

    plan = runner.plan(request, backend=backend)
    shown = {
        "decision": decision_document(plan.decision),
        "spec": spec_document(plan.spec) if plan.spec is not None else None,
    }
    print(json.dumps(shown, indent=2))
    raise typer.Exit(0 if plan.spec is not None else EXIT_DENIED)
