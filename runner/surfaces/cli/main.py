"""The command line: the library's first client.

Commands import what they need when they run, so that `runner --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from runner.errors import EXIT_RUNNER, RunnerError
from runner.surfaces.cli import (
    approvals,
    audit,
    budget,
    changes,
    config,
    doctor,
    explain,
    guard,
    keys,
    kill,
    policy,
    profile,
    run,
    running,
    serve,
    session,
)

EPILOG = (
    "Exit codes: the program's own; 124 a limit ended it; 125 runner failed or a protection is "
    "missing; 126 the policy denied it; 127 no such program; 128+n signal n; 130 cancelled; 137 "
    "killed; 2 the request, a profile or a rule set is wrong."
)


class Group(TyperGroup):
    """Turns what went wrong into one sentence and its exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command and see its answer out."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except RunnerError as error:
            say_error(error)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            # What is still buffered must not fail once more when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
            if not isinstance(error, BrokenPipeError):  # `| head` has read what it wanted
                what = error.filename or "the answer can't be written to stdout"
                say_error(RunnerError(f"{what}: {error.strerror}"))
            raise typer.Exit(EXIT_RUNNER) from error


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
explain.register(app)
changes.register(app)
audit.register(app)
budget.register(app)
guard.register(app)
approvals.register(app)
kill.register(app)
running.register(app)
keys.register(app)
doctor.register(app)
config.register(app)
serve.register(app)
app.add_typer(profile.app, name="profile")
app.add_typer(policy.app, name="policy")
app.add_typer(session.app, name="session")


def say_error(error: RunnerError) -> None:
    """One line for each thing that is wrong, on stderr."""
    for line in str(error).splitlines():
        print(f"runner: error: {line}", file=sys.stderr)


def main() -> None:
    """The console script."""
    _hold_standard_streams()
    try:
        app()
    except Exception as error:  # a defect of ours, told as what it is
        import traceback  # noqa: PLC0415

        *_, last = traceback.extract_tb(error.__traceback__)
        where = f"{Path(last.filename).name}, line {last.lineno}"
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        say_error(RunnerError(f"a defect of runner at {where}: {what}; please report it"))
        sys.exit(EXIT_RUNNER)


def _hold_standard_streams() -> None:
    """Open /dev/null where 0, 1 or 2 is closed, or the log might be opened there and printed to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    # Python leaves out those that were closed; these stay open as long as the process lives.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
