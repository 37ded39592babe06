"""`runner policy lint`: what is wrong with rules, found without running anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import PolicyError

if TYPE_CHECKING:
    from runner.workbench import Told

LINT_HELP = """Find rules that can't do what they say.

\b
  runner policy lint                         what is in force here, and the default profile
  runner policy lint team.yaml               a profile or a policy
  runner policy lint org.yaml team.yaml      the policy stands above the profile
  runner policy lint policy.d --strict       a folder; warnings count as errors

Errors are rules that never match, an allow that a stricter rule always beats, patterns that match
nothing that is written out, and rules that do not do what their examples say. Warnings are rules
that change no decision, patterns that hardly mean what they match, and layers that allow nothing.

Policies in Cedar and Rego are not looked into, which is said in a line.

Where it says "never" it is sure: without that rule every decision is the same. A rule that it says
nothing about may still do nothing: `runner policy diff` shows what a change changes in practice.

Exit code 0: no errors; 1: errors, or with --strict warnings; 2: a file is wrong.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lint", help=LINT_HELP)(lint)


def lint(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|FOLDER|PROFILE]...", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look for what is wrong; see LINT_HELP."""
    from runner.adapters import wrappers_in_force  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.workbench import (  # noqa: PLC0415
        foreign_policies,
        in_force,
        lint_sources,
        load_sources,
        load_wrappers,
    )

    settings = load_settings()
    sources = load_sources(targets or in_force(settings), settings.profile_dirs.value)
    folders = [str(folder.path) for folder in settings.policy_dirs.value]
    foreign = foreign_policies(targets or folders)
    if not sources and not foreign:
        raise PolicyError(f"{', '.join(targets or ())} holds no file of rules; name one that does")
    told = lint_sources(sources, load_wrappers(targets) if targets else wrappers_in_force(settings))
    errors = sum(each.finding.severity == "error" for each in told)
    if as_json:
        document = {
            "errors": errors,
            "warnings": len(told) - errors,
            "not_looked_into": foreign,
            "findings": [_document(each) for each in told],
        }
        print(json.dumps(document, indent=2))
    else:
        for each in told:
            print(_line(each))
        number = sum(len(source.own) for source in sources)
        counts = _number(errors, "error"), _number(len(told) - errors, "warning")
        where = _number(len(sources), "file")
        print(f"{_number(number, 'rule')} in {where}: {', '.join(counts)}")
        if foreign:
            print(
                f"not looked into: {', '.join(foreign)}, for only Cedar and Rego can; "
                "`runner policy test` tries them with cases"
            )
    raise typer.Exit(1 if errors or (strict and told) else 0)


def _line(told: Told) -> str:
    finding = told.finding
    rule = f"rule '{finding.rule}' " if finding.rule is not None else ""
    head = f"{told.place}: {finding.severity.value}: {rule}{finding.what}"
    return f"{head}\n    {finding.todo}"


def _document(told: Told) -> dict[str, Any]:
    finding = told.finding
    return {
        "file": told.place.source,
        "line": told.place.line,
        "layer": finding.layer,
        "rule": finding.rule,
        "check": finding.check.value,
        "severity": finding.severity.value,
        "what": finding.what,
        "todo": finding.todo,
    }


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
