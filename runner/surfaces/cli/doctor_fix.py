"""`runner doctor --fix` and `--remove-fix`: the AppArmor profile, after asking."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from runner.errors import EXIT_RUNNER, RequestError

if TYPE_CHECKING:
    from runner.backends.native.apparmor import Grant


def own_grant() -> Grant:
    """The profile of the interpreter that runs this."""
    from runner.backends.native.apparmor import Grant  # noqa: PLC0415  (late: speed)

    # AppArmor goes by the file that is executed, not by the links that lead there.
    return Grant(Path(sys.executable).resolve())


def fix(*, yes: bool, shared_python: bool) -> None:
    """Install what lets sandboxes be built here, if it is AppArmor that withholds it."""
    from runner.backends.native.apparmor import restricts  # noqa: PLC0415

    if not restricts():
        print("nothing to fix: AppArmor does not withhold user namespaces here")
        return
    install(own_grant(), yes=yes, shared_python=shared_python)


def install(grant: Grant, *, yes: bool, shared_python: bool) -> None:
    """Show the file and what it grants, ask, and install it; twice is once.

    RequestError: the interpreter is shared and nobody said that this is meant, or nobody can be
    asked. BackendError: it can't be installed.
    """
    if grant.is_installed:
        print(f"nothing to fix: {grant.file} is there; `runner doctor` tells whether it helps")
        return
    shared = grant.shared_by()
    if shared is not None and not shared_python:
        raise RequestError(
            f"the interpreter {grant.python} {shared}; make the environment with "
            "`python3 -m venv --copies` and run runner from there, or say --shared-python if that "
            "is meant"
        )
    print(f"{grant.file} would be:\n")
    before = grant.file.read_text(encoding="utf-8") if grant.file.exists() else ""
    lines = difflib.unified_diff(before.splitlines(), grant.text.splitlines(), lineterm="", n=99)
    print("\n".join(list(lines)[3:]))
    print(
        f"\nIt lets {grant.python} and what it starts make user namespaces, and so whoever may\n"
        "execute that file. `runner doctor --remove-fix` takes it away again.\n"
    )
    if os.geteuid() != 0:
        _leave_to_root(
            f"runner doctor --apparmor | sudo tee {shlex.quote(str(grant.file))}",
            f"sudo {grant.parser} --replace {shlex.quote(str(grant.file))}",
        )
    _ask("install it?", yes=yes)
    grant.install()
    print(f"installed {grant.file}; run `runner doctor` as the user who will use it")


def remove(grant: Grant, *, yes: bool) -> None:
    """Take it back, after asking."""
    if not grant.file.exists():
        print(f"nothing to remove: there is no {grant.file}")
        return
    file = shlex.quote(str(grant.file))
    print(f"{grant.file} would be taken out of the kernel and removed")
    if os.geteuid() != 0:
        _leave_to_root(f"sudo {grant.parser} --remove {file}", f"sudo rm {file}")
    _ask("remove it?", yes=yes)
    grant.remove()
    print(f"removed {grant.file}")


def _leave_to_root(*commands: str) -> None:
    """No code of a user's environment is to run as root: commands that anybody can read."""
    print("that takes root:\n")
    for command in commands:
        print(f"  {command}")
    raise typer.Exit(EXIT_RUNNER)


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError("there is nobody to ask; say --yes if it is meant")
    if not typer.confirm(question):
        print("left as it is")
        raise typer.Exit(EXIT_RUNNER)
