"""Every case against what this machine has, as a table: see `scripts/attacks --help`.

As root both halves are run: as root, and again by an unprivileged user. What can't run says why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pwd
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import case_files
import harness

from runner import Runner

WIDTH = len("denied, recorded, next run, twin")

Cells = dict[str, dict[str, dict[str, str]]]
"""Half (`native as root`) -> case -> column -> what came of it."""


def whose() -> str:
    """Which half this process runs."""
    return "root" if os.geteuid() == 0 else "rootless"


def run_here(chosen: list[case_files.Case], targets: list[harness.Target]) -> Cells:
    """Run the cases as this user."""
    found: Cells = {}
    for target in targets:
        rows = found.setdefault(f"{target.name}, {whose()}", {})
        missing = harness.missing(target.name)
        with tempfile.TemporaryDirectory(prefix="attacks-") as name:
            folder = Path(name).resolve()
            with Runner(home=folder / "home", backend=target.backend) as runner:
                for case in chosen:
                    rows[case.name] = _cells(case, target, runner, folder, missing)
                    _tell_progress(case.name, rows[case.name])
    return found


def _cells(
    case: case_files.Case, target: harness.Target, runner: Runner, folder: Path, missing: str | None
) -> dict[str, str]:
    why = missing or case.not_run(target.name)
    if why is not None:
        return dict.fromkeys(harness.COLUMNS, f"not run: {why}")
    place = Path(tempfile.mkdtemp(prefix="case-", dir=folder))
    try:
        return harness.run_case(case, target, runner, place)
    except Exception as error:
        # Runner's own errors are what this looks for, too: the next case is still to be tried.
        return dict.fromkeys(harness.COLUMNS, f"NO: {type(error).__name__}: {error}")


def _tell_progress(name: str, cells: dict[str, str]) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{name}: {', '.join(_short(cell) for cell in cells.values())}")
        sys.stderr.flush()


def run_as(user: str, arguments: list[str]) -> Cells:
    """The other half, by an unprivileged user, in a process of its own."""
    account = pwd.getpwnam(user)
    with tempfile.TemporaryDirectory(prefix="attacks-of-a-user-") as name:
        os.chown(name, account.pw_uid, account.pw_gid)
        out = Path(name, "rows.json")
        runtime = Path(f"/run/user/{account.pw_uid}")
        done = subprocess.run(
            [sys.executable, "-B", __file__, *arguments, "--out", str(out), "--quiet"],
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            cwd="/",
            env={
                "HOME": name,
                "TMPDIR": name,
                "USER": user,
                "LOGNAME": user,
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                **({"XDG_RUNTIME_DIR": str(runtime)} if runtime.is_dir() else {}),
            },
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if out.is_file():
            found: Cells = json.loads(out.read_text())["cells"]
            return found
    why = f"`{user}` can't run this Python or read this folder (exit status {done.returncode})"
    names = [case.name for case in case_files.cases()]
    cells = dict.fromkeys(harness.COLUMNS, f"not run: {why}")
    return {"native, rootless": dict.fromkeys(names, cells)}


def table(cells: Cells) -> str:
    """Rows of cases, four columns for each half; below it, what is no plain `yes`."""
    halves = sorted(cells)
    names = sorted({name for rows in cells.values() for name in rows})
    lines = [
        _line("", halves),
        _line("case", [", ".join(harness.COLUMNS)] * len(halves)),
    ]
    notes: list[str] = []
    not_run: Counter[str] = Counter()
    for name in names:
        parts = []
        for half in halves:
            row = cells[half].get(name) or dict.fromkeys(harness.COLUMNS, "not run: not asked for")
            parts.append("  ".join(_short(row[column]) for column in harness.COLUMNS))
            for column, cell in row.items():
                if cell.startswith("not run"):
                    not_run[f"{half}, {cell}"] += 1
                elif cell != "yes":
                    notes.append(f"{name}, {half}, {column}: {cell}")
        lines.append(_line(name, parts))
    lines += ["", *notes, *(f"{count} cells of {why}" for why, count in sorted(not_run.items()))]
    return "\n".join(lines)


def _line(name: str, parts: list[str]) -> str:
    return " | ".join([f"{name:<28}", *(f"{part:<{WIDTH}}" for part in parts)])


def _short(cell: str) -> str:
    if cell.startswith("gap"):
        return "gap"
    return "not run" if cell.startswith("not run") else cell.partition(":")[0]


def report() -> dict[str, Any]:
    """What the table was made on."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> int:
    """0 when every attack that ran was withstood, or its gap is a stated one; 1 else."""
    parser = argparse.ArgumentParser(
        prog="scripts/attacks",
        description="Runs every case of tests/security/cases against this machine's backends, "
        "as root and as an unprivileged user, and prints what came of each: the attack was "
        "denied, the log tells of it, the next run works, the allowed twin works.",
    )
    parser.add_argument("cases", nargs="*", help="parts of names; all cases without one")
    parser.add_argument("--target", action="append", help="by name; all without one")
    parser.add_argument("--as-user", default="nobody", help="who runs the rootless half (as root)")
    parser.add_argument("--only-own", action="store_true", help="run as this user only")
    parser.add_argument("--out", type=Path, help="write the cells as JSON")
    parser.add_argument("--merge", nargs="+", type=Path, help="print the table of such files")
    parser.add_argument("--quiet", action="store_true", help="print no table")
    asked = parser.parse_args()
    if asked.merge:
        cells: Cells = {}
        for file in asked.merge:
            cells.update(json.loads(file.read_text())["cells"])
    else:
        cells = _run(asked)
    if asked.out:
        asked.out.write_text(json.dumps({**report(), "cells": cells}, indent=1) + "\n")
    if not asked.quiet:
        print(table(cells))
    wrong = any(
        cell.startswith("NO")
        for rows in cells.values()
        for row in rows.values()
        for cell in row.values()
    )
    return int(wrong)


def _run(asked: argparse.Namespace) -> Cells:
    chosen = [
        case
        for case in case_files.cases()
        if not asked.cases or any(part in case.path.name for part in asked.cases)
    ]
    names = {target.name for target in harness.TARGETS}
    if unknown := set(asked.target or ()) - names:
        sys.exit(
            f"scripts/attacks: no target {', '.join(unknown)}; there are {', '.join(sorted(names))}"
        )
    if not chosen:
        sys.exit(f"scripts/attacks: no case is named like {', '.join(asked.cases)}")
    targets = [t for t in harness.TARGETS if not asked.target or t.name in asked.target]
    cells = run_here(chosen, targets)
    if whose() == "root" and not asked.only_own:
        again = [*asked.cases, *(word for t in targets for word in ("--target", t.name))]
        cells.update(run_as(asked.as_user, again))
    return cells


if __name__ == "__main__":
    sys.exit(main())
