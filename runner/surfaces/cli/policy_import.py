"""`runner policy import`: rules that another tool holds an agent to, as rules of runner."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from runner.errors import RequestError

app = typer.Typer(
    help="Carry over the policies of other tools.", no_args_is_help=True, rich_markup_mode=None
)

CLAUDE_CODE_HELP = """The permissions of Claude Code's settings.json, as a profile.

\b
  runner policy import claude-code .claude/settings.json -o claude.yaml
  runner check --profile ./claude.yaml -c 'git push'

The profile extends `agent`. What it allows, Claude Code allows too; each rule that could not be
carried over, or only stricter or looser, is named on stderr and in the file's head. A condition on
arguments is one in CEL (the extra `[cel]`).
"""
GOVERNANCE_HELP = """A policy of the Agent Governance Toolkit (governance.toolkit/v1), as a profile.

\b
  runner policy import governance policy.yaml -o governed.yaml
  runner check --profile ./governed.yaml --agent builder -- git status

Names of tools are taken as names of commands. Each rule that could not be carried over, or only
stricter or looser, is named on stderr and in the file's head. A condition on arguments is one in
CEL (the extra `[cel]`).
"""
File = Annotated[str, typer.Argument(metavar="FILE", show_default=False)]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write a new file, not stdout."),
]
Layer = Annotated[bool, typer.Option("--layer", help="A policy layer for policy.d, not a profile.")]


def register(policy: typer.Typer) -> None:
    """Add the commands."""
    policy.add_typer(app, name="import")


@app.command("claude-code", help=CLAUDE_CODE_HELP)
def claude_code(file: File, output: Output = None, layer: Layer = False) -> None:
    """Import settings.json; see CLAUDE_CODE_HELP."""
    from runner.schema.foreign.claude_code import import_settings  # noqa: PLC0415

    draft = import_settings(file)
    _write(draft.text(layer=layer), output)
    print(draft.report(), file=sys.stderr)


@app.command("governance", help=GOVERNANCE_HELP)
def governance(file: File, output: Output = None, layer: Layer = False) -> None:
    """Import a policy of the toolkit; see GOVERNANCE_HELP."""
    from runner.schema.foreign.governance import import_policy  # noqa: PLC0415

    draft = import_policy(file)
    _write(draft.text(layer=layer), output)
    print(draft.report(), file=sys.stderr)


def _write(text: str, output: str | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    try:
        # What is there already may be somebody's work.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise RequestError(f"--output {output!r} is there already; choose a new name") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"--output {output!r} can't be written: {error}") from error
    os.close(descriptor)
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--output {output!r} can't be written: {error.strerror}") from error
