"""The command line: the library's first client.

Commands import what they need when they run, so that `runner --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from runner.errors import RunnerError
from runner.surfaces.cli import audit, config, doctor, profile, run

EPILOG = (
    "Exit codes: the program's own; 124 a limit ended it; 125 runner failed or a protection is "
    "missing; 126 the policy denied it; 127 no such program; 128+n signal n; 130 cancelled; "
    "2 the request, a profile or a rule set is wrong."
)


class Group(TyperGroup):
    """Turns runner's own errors into one sentence and their exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RunnerError as error:
            say_error(error)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    name="runner",
    cls=Group,
    help="Decides, contains, meters and records what an AI agent executes.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from runner import __version__  # noqa: PLC0415

        print(f"runner {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


run.register(app)
audit.register(app)
doctor.register(app)
config.register(app)
app.add_typer(profile.app, name="profile")


def say_error(error: RunnerError) -> None:
    """One line for each thing that is wrong, on stderr."""
    for line in str(error).splitlines():
        print(f"runner: error: {line}", file=sys.stderr)


def main() -> None:
    """The console script."""
    app()
