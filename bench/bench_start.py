"""What a start costs: a governed, isolated, recorded run beside a plain one and a bare bwrap.

All contenders take turns in one run (A B C, A B C, …), so that a busy neighbour slows all alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import machine
import phases
import tables
from results import destination, parser, write

from runner import Runner

WARM_UP = 5
CLI_SHARE = 5
"""The command line's own start is measured in every fifth turn: it takes that much longer."""
CLI = (
    sys.executable,
    "-c",
    "import sys; from runner.surfaces.cli.main import main; sys.exit(main())",
)
SYSTEM_PATH = "/usr/bin:/bin"


@dataclass
class Contender:
    """One way to run one program."""

    name: str
    program: str
    once: Callable[[], object]
    every: int = 1
    times_ms: list[float] = field(default_factory=list)

    def measure(self) -> None:
        began_s = time.perf_counter()
        self.once()
        self.times_ms.append((time.perf_counter() - began_s) * 1e3)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def p99_ms(self) -> float:
        return sorted(self.times_ms)[min(len(self.times_ms) - 1, int(len(self.times_ms) * 0.99))]


def bwrap(folder: str) -> list[str]:
    """All namespaces, a read-only /usr, a writable workspace: what it takes to compare."""
    return [
        "bwrap", "--unshare-user", "--unshare-all", "--die-with-parent", "--new-session",
        "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
        "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
        "--bind", folder, folder, "--chdir", folder, "--clearenv", "--setenv", "PATH", SYSTEM_PATH,
        "--",
    ]  # fmt: skip


def plain(argv: list[str], folder: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(
        argv,
        cwd=folder,
        env=environment or {"PATH": SYSTEM_PATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )


def governed(runner: Runner, argv: list[str], folder: str) -> None:
    outcome = runner.run(argv, cwd=folder)
    if not outcome.ok:
        raise SystemExit(f"bench: {argv} ended as {outcome.termination}: {outcome.failure}")


def programs() -> dict[str, list[str]]:
    """By name; the system's own, so that every contender starts the same file."""
    found = {"true": shutil.which("true", path=SYSTEM_PATH)}
    found["python3 -c pass"] = shutil.which("python3", path=SYSTEM_PATH)
    for name, path in found.items():
        if path is None:
            print(f"skipped: {name} (not in {SYSTEM_PATH})")
    return {n: [p, *(["-c", "pass"] if "python" in n else [])] for n, p in found.items() if p}


def contenders(runner: Runner, folder: str, home: str) -> list[Contender]:
    """In the order in which they take turns."""
    found = []
    sandbox = bwrap(folder)
    why_not = _no_bwrap(sandbox, folder)
    if why_not:
        print(f"skipped: bwrap ({why_not})")
    for name, argv in programs().items():
        found.append(Contender("plain subprocess", name, lambda argv=argv: plain(argv, folder)))
        if not why_not:
            inside = [*sandbox, *argv]
            found.append(Contender("bwrap", name, lambda argv=inside: plain(argv, folder)))
        found.append(Contender("library", name, lambda argv=argv: governed(runner, argv, folder)))
    environment = {"PATH": SYSTEM_PATH, "HOME": home, "RUNNER_HOME": f"{home}/state"}
    # As pip leaves an installed package: with its bytecode, which a checkout may not have.
    environment["PYTHONPYCACHEPREFIX"] = f"{home}/bytecode"
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    for words in (["run", "--", "true"], ["--help"]):
        argv = [*CLI, *words]
        found.append(
            Contender(
                "command line",
                " ".join(["runner", *words]),
                lambda argv=argv: plain(argv, folder, environment),
                CLI_SHARE,
            )
        )
    return found


def _no_bwrap(sandbox: list[str], folder: str) -> str | None:
    if shutil.which("bwrap") is None:
        return "not installed"
    try:
        plain([*sandbox, "true"], folder)
    except subprocess.CalledProcessError as error:
        return f"does not work here: {error.stderr.decode(errors='replace').strip()}"
    return None


def rows(found: list[Contender]) -> list[dict[str, object]]:
    """A row each, with the ratios of medians to the two ungoverned ways."""
    medians = {(c.name, c.program): c.median_ms for c in found}
    table = []
    for c in found:
        row: dict[str, object] = {
            "contender": c.name, "program": c.program, "runs": len(c.times_ms),
            "median_ms": round(c.median_ms, 3), "p99_ms": round(c.p99_ms, 3),
        }  # fmt: skip
        for other, key in (("plain subprocess", "to_plain"), ("bwrap", "to_bwrap")):
            base = medians.get((other, c.program))
            row[key] = round(c.median_ms / base, 2) if base else None
        table.append(row)
    return table


def measure_phases(runner: Runner, folder: str, runs: int) -> dict[str, float]:
    """Median milliseconds by phase of `true`."""
    found = [phases.one(runner, ["true"], folder) for _ in range(runs)]
    return {name: round(statistics.median(f[name] for f in found), 3) for name in phases.NAMES}


def main() -> int:
    options_of = parser("start", __doc__)
    options_of.add_argument("--runs", type=int, default=100, metavar="N", help="turns; default 100")
    options_of.add_argument("--phases", action="store_true", help="also where a run's time goes")
    options = options_of.parse_args()
    if options.show:
        print(tables.markdown(json.loads(options.show.read_text())))
        return 0
    described = machine.describe()
    out = destination("start", options.out, described)
    document: dict[str, object] = {
        "command": f"scripts/bench start --runs {options.runs}{' --phases' * options.phases}"
    }
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="runner-bench-"))
        folder = f"{home}/work"
        Path(folder).mkdir()
        runner = stack.enter_context(Runner(home=f"{home}/state"))
        outcome = runner.run(["true"], cwd=folder)
        document["machine"] = described
        document["sandbox"] = {
            "backend": outcome.backend, "profile": outcome.profile,
            "protections": outcome.protections, "degraded": outcome.degraded,
        }  # fmt: skip
        found = contenders(runner, folder, home)
        for turn in range(-WARM_UP, options.runs):
            for contender in found:
                if turn < 0:
                    contender.once()
                elif turn >= 0 and turn % contender.every == 0:
                    contender.measure()
        table = rows(found)
        document["rows"] = table
        tables.print_rows(table)
        if options.phases:
            took_ms = measure_phases(runner, folder, options.runs)
            document["phases_ms"] = took_ms
            tables.print_phases(took_ms)
    described["load_1m_after"] = os.getloadavg()[0]
    write(out, document)
    print(f"\nwritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
