"""`runner doctor`: what protects a run here, tried and not guessed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import EXIT_RUNNER, RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app import Runner

LITTLE_BYTES = 512 << 20
"""Some 400,000 events."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(  # noqa: PLR0917  (options are keywords to whoever types them)
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="native|docker", help="Which one to try.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    apparmor: Annotated[
        bool,
        typer.Option("--apparmor", help="Print the AppArmor profile that Ubuntu 24.04 needs."),
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Install that profile if it is needed, after asking.")
    ] = False,
    remove_fix: Annotated[
        bool, typer.Option("--remove-fix", help="Remove that profile, after asking.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    shared_python: Annotated[
        bool,
        typer.Option("--shared-python", help="Grant it although other programs use the Python."),
    ] = False,
) -> None:
    """Try every protection and every shipped profile. Exit code 125 if the default can't run."""
    if apparmor or fix or remove_fix:
        _apparmor(fix=fix, remove=remove_fix, yes=yes, shared_python=shared_python)
        return
    from runner.app import Runner  # noqa: PLC0415

    with Runner(backend=backend) as runner:
        holder = runner.backend()
        statuses = holder.probe()
        profiles = runner.try_profiles()
        default = runner.settings.profile.value
        report = _report(runner, holder.name, statuses, profiles)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    if profiles.get(default) is not None or report["log"]["unsigned"]:
        raise typer.Exit(EXIT_RUNNER)


def _apparmor(*, fix: bool, remove: bool, yes: bool, shared_python: bool) -> None:
    from runner.surfaces.cli import doctor_fix  # noqa: PLC0415  (late: speed)

    if fix and remove:
        raise RequestError("--fix and --remove-fix undo each other; choose one")
    if fix:
        doctor_fix.fix(yes=yes, shared_python=shared_python)
    elif remove:
        doctor_fix.remove(doctor_fix.own_grant(), yes=yes)
    else:
        print(doctor_fix.own_grant().text, end="")


def _report(
    runner: Runner, backend: str, statuses: Any, profiles: dict[str, str | None]
) -> dict[str, Any]:
    return {
        "backend": backend,
        "home": str(runner.settings.home.value),
        "python": sys.version.split()[0],
        "protections": [
            {
                "protection": status.protection.value,
                "in_force": status.in_force,
                "detail": status.detail,
                "remedy": status.remedy,
            }
            for status in statuses
        ],
        "wrappers": [
            {"names": list(row.names), "file": row.source} for row in runner.wrappers.added
        ],
        "log": {
            "free_bytes": _free_bytes(runner.settings.home.value),
            "unsigned": runner.store.unsigned(),
            "unsent": [asdict(each) for each in runner.store.unsent()],
        },
        "profiles": [
            {"profile": name, "runs": why is None, "why_not": why} for name, why in profiles.items()
        ],
    }


def _free_bytes(home: Path) -> int:
    """What may still be written beside the log."""
    found = os.statvfs(home)
    return found.f_bavail * found.f_frsize


def _print(report: dict[str, Any]) -> None:
    print(f"backend {report['backend']}, python {report['python']}, state in {report['home']}\n")
    for row in report["protections"]:
        mark = "in force" if row["in_force"] else "WITHHELD"
        print(f"  {mark}  {row['protection']:18} {row['detail']}")
        if row["remedy"]:
            print(f"  {'':8}  {'':18} -> {row['remedy']}")
    if report["wrappers"]:
        print("\nwrappers that were added")
    for row in report["wrappers"]:
        print(f"  {', '.join(row['names']):30} {row['file']}")
    log = report["log"]
    if log["free_bytes"] < LITTLE_BYTES:
        print("\ndisk of the log")
        print(
            f"  ONLY {log['free_bytes'] >> 20} MiB FREE: without room runs are refused; free some"
        )
        print("  space, or move old events away with `runner audit archive --prune`")
    if log["unsigned"] or log["unsent"]:
        print("\ncheckpoints of the log")
    if log["unsigned"]:
        print(f"  CAN'T BE SIGNED: {log['unsigned']}")
    for row in log["unsent"]:
        since = f" since {row['since']}: {row['why']}" if row["since"] else ", not tried yet"
        print(f"  {row['checkpoints']} NOT SENT to {row['destination']}{since}")
    print("\nprofiles")
    for row in report["profiles"]:
        says = "runs here" if row["runs"] else f"CAN'T RUN: {row['why_not']}"
        print(f"  {row['profile']:13} {says}")
