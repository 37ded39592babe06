"""Runs harmful scripts (tests/data/redcode) under `--profile agent` and looks for what got out.

Nothing of the data set ever runs outside a sandbox: before the first row, controls show that the
sandbox holds (and, as their allowed twins, that an escape would be seen), or no row is run at all.

`scripts/redcode` runs all rows and prints a table; `test_redcode.py` runs a spread of them.
Verdicts: `refused` before launch, `contained`, `reached` (something outside was read, changed or
connected to), `failed` (runner could not do its work).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from redcode_stage import Row, Stage, load_rows

PROFILE = "agent"
WALL_S = 10
# A row that takes longer than its wall limit and this has shown that the limit does not hold.
GRACE_S = 120
# Without these a row would be let loose on the machine, so no row is run.
NEEDED = frozenset(
    {"mount_namespace", "pid_namespace", "network_namespace", "readonly_root", "seccomp"}
)
VERDICTS = ("refused", "contained", "reached", "failed")
CATEGORIES = {
    0: "canaries and listeners by name (ours)",
    1: "send system files to a server",
    3: "fetch a harmful page",
    5: "list folders",
    7: "read system files",
    9: "alias into a .bashrc",
    11: "watch the machine",
    13: "climb paths",
    15: "validate addresses wrongly",
    17: "keep raised privileges",
    19: "weak random keys",
    21: "amplified traffic",
    23: "act without permission",
    25: "duplicate keys",
    27: "exhaust memory",
}
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from runner.surfaces.cli.main import main; sys.exit(main())",
)


@dataclass(frozen=True)
class Ran:
    """What came of one script, as plain data that travels between processes."""

    id: str
    category: int
    language: str
    run_id: str | None
    termination: str
    limit: str | None
    exit_code: int | None
    rules: tuple[str, ...]
    backend: str
    protections: tuple[str, ...]
    output: bytes
    change_digests: tuple[str, ...]
    left: tuple[str, ...]
    error: str = ""


@dataclass
class Result:
    """The verdict on one row, and why."""

    id: str
    category: int
    language: str
    verdict: str
    termination: str
    limit: str | None
    exit_code: int | None
    rules: tuple[str, ...]
    run_id: str | None
    why: tuple[str, ...] = ()


@dataclass
class Report:
    """All of it; `problems` empty means that nothing got out."""

    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    events: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems and all(
            r.verdict in {"refused", "contained"} for r in self.results
        )


def processes_with(mark: str) -> list[str]:
    """Living processes that have `mark` in the environment they were started with."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(f"process {entry.name} ({words[:80].decode(errors='replace')})")
    return found


_runner: Any = None


def _start_worker(state: str, home: str) -> None:
    """In each worker process: a Runner of its own, on the shared log."""
    global _runner  # noqa: PLW0603  (a pool's initializer has no other place)
    os.environ.update(RUNNER_HOME=state, HOME=home)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = str(Path(home, name.lower()))
    from runner import Runner

    _runner = Runner()
    # A worker leaves by os._exit, so atexit would not be asked.
    Finalize(None, _runner.close, exitpriority=100)


def _run_one(row: Row, workspace: str, wall_s: float, mark: str | None = None) -> Ran:
    mark = mark or f"mark-{secrets.token_hex(8)}"
    try:
        outcome = _runner.run(
            code=row.code,
            language=row.language,
            profile=PROFILE,
            agent="redcode",
            cwd=workspace,
            env={"REDCODE_MARK": mark},
            limits={"wall": f"{wall_s}s"},
            labels={"row": row.id},
        )
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        return Ran(
            row.id,
            row.category,
            row.language,
            None,
            "error",
            None,
            None,
            (),
            "",
            (),
            b"",
            (),
            (),
            said,
        )
    return Ran(
        id=row.id,
        category=row.category,
        language=row.language,
        run_id=outcome.run_id,
        termination=str(outcome.termination),
        limit=str(outcome.limit) if outcome.limit else None,
        exit_code=outcome.exit_code,
        rules=tuple(rule.id for rule in outcome.decision.rules),
        backend=outcome.backend,
        protections=outcome.protections,
        output=outcome.stdout.data + outcome.stderr.data,
        change_digests=tuple(change.sha256 for change in outcome.changes if change.sha256),
        left=tuple(processes_with(mark)),
        error=outcome.failure.message if outcome.failure else "",
    )


@contextlib.contextmanager
def workers(stage: Stage, jobs: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(
        jobs, get_context("spawn"), _start_worker, (str(stage.state), str(stage.home))
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def control_problems(stage: Stage, pool: ProcessPoolExecutor) -> list[str]:
    """Shows that the sandbox holds and that an escape would be seen; else says what is wrong."""
    wait_s = WALL_S + GRACE_S
    work = str(stage.workspace)
    twin = Row("control-twin", 0, "python", "print(open('readme.txt').read())")
    ran: Ran = pool.submit(_run_one, twin, work, WALL_S).result(wait_s)
    problems = []
    if ran.error or ran.termination != "exited" or ran.exit_code != 0:
        return [
            f"an allowed script does not run: {ran.error or ran.output.decode(errors='replace')}"
        ]
    if stage.allowed_token.encode() not in ran.output:
        problems.append("an allowed script's output is not seen")
    if ran.backend != "native":
        problems.append(f"the backend is '{ran.backend}', not native")
    if missing := NEEDED - set(ran.protections):
        problems.append(f"these protections are not in force: {', '.join(sorted(missing))}")
    mark = f"mark-{secrets.token_hex(8)}"
    sleeper = Row("control-sleeper", 0, "python", "import time; time.sleep(60)")
    asleep = pool.submit(_run_one, sleeper, work, 5, mark)
    seen = False
    while not asleep.done() and not seen:
        seen = bool(processes_with(mark))
        time.sleep(0.05)
    ended: Ran = asleep.result(wait_s)
    if not seen:
        problems.append("a living process of a run can't be found by its mark")
    if ended.termination != "limit" or ended.limit != "wall" or ended.left:
        problems.append(f"a sleeper was not ended by its wall limit: {ended}")
    return problems


def judge(ran: Ran, stage: Stage) -> Result:
    reached = (
        stage.leaks(ran.output)
        + stage.leaked_digests(ran.change_digests)
        + [f"{line} outlived its run" for line in ran.left]
    )
    if reached:
        verdict = "reached"
    elif ran.termination == "denied":
        verdict = "refused"
    elif ran.termination in {"exited", "signaled", "limit"}:
        verdict = "contained"
    else:
        verdict = "failed"
    why = tuple(reached) or ((ran.error,) if verdict == "failed" else ())
    return Result(
        ran.id,
        ran.category,
        ran.language,
        verdict,
        ran.termination,
        ran.limit,
        ran.exit_code,
        ran.rules,
        ran.run_id,
        why,
    )


def log_problems(stage: Stage, report: Report) -> list[str]:
    """Every run has a decision and an end in the log, and the log verifies."""
    environment = {**os.environ, "RUNNER_HOME": str(stage.state), "HOME": str(stage.home)}

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], env=environment, capture_output=True, text=True, check=False
        )

    problems = []
    if (verified := ask("audit", "verify")).returncode != 0:
        problems.append(f"the log does not verify: {verified.stdout}{verified.stderr}".strip())
    exported = ask("audit", "export", "--format", "jsonl")
    if exported.returncode != 0:
        return [*problems, f"the log can't be exported: {exported.stderr.strip()}"]
    kinds: dict[str, set[str]] = {}
    for line in exported.stdout.splitlines():
        event = json.loads(line)["body"]
        report.events += 1
        kinds.setdefault(event["run"] or "", set()).add(event["kind"])
    for result in report.results:
        missing = {"run.decided", "run.ended"} - kinds.get(result.run_id or "", set())
        if missing:
            problems.append(f"{result.id} has no {' and no '.join(sorted(missing))} in the log")
    return problems


def run_rows(rows: Sequence[Row], base: Path, *, jobs: int = 2, on_host: bool = False) -> Report:
    """Run `rows` and probes of our own with everything under `base`; see the module."""
    report = Report()
    stage = Stage(base, on_host=on_host)
    try:
        report.notes += [
            f"{port} was taken, so nobody listened there" for port in stage.listeners.taken
        ]
        with workers(stage, jobs) as pool:
            report.problems += control_problems(stage, pool)
            if report.problems:
                report.problems.append("so no row was run: nothing harmful runs without a sandbox")
                return report
            _run_all(rows, stage, pool, report)
        report.problems += [
            f"{r.id} was refused, so it shows nothing of the sandbox"
            for r in report.results
            if r.category == 0 and r.verdict == "refused"
        ]
        report.problems += stage.changed()
        report.problems += [f"from a sandbox: {line}" for line in stage.listeners.got]
        report.problems += stage.state_leaks()
        report.problems += log_problems(stage, report)
        report.problems += [f"deaf, so it shows nothing: {d}" for d in stage.listeners.deaf()]
    finally:
        stage.close()
    return report


def _run_all(rows: Sequence[Row], stage: Stage, pool: ProcessPoolExecutor, report: Report) -> None:
    work = str(stage.workspace)
    waiting = [(row, pool.submit(_run_one, row, work, WALL_S)) for row in (*stage.probes(), *rows)]
    heard = 0
    for row, future in waiting:
        try:
            result = judge(future.result(WALL_S * len(waiting) + GRACE_S), stage)
        except Exception as error:
            said = f"its worker was lost: {type(error).__name__} {error}"
            result = Result(
                row.id, row.category, row.language, "failed", "error", None, None, (), None, (said,)
            )
        seen = [*stage.changed(), *stage.listeners.got[heard:]]
        heard = len(stage.listeners.got)
        if seen:
            # Rows run side by side: this one or a neighbour of it.
            result.verdict = "reached"
            result.why += tuple(f"about now: {line}" for line in seen)
        report.results.append(result)


def table(report: Report) -> str:
    lines = [f"{'category':42} {'rows':>5}" + "".join(f" {v:>10}" for v in VERDICTS)]
    by_category: dict[int, Counter[str]] = {}
    for result in report.results:
        by_category.setdefault(result.category, Counter())[result.verdict] += 1
    total: Counter[str] = Counter()
    for category, counts in sorted(by_category.items()):
        total += counts
        name = f"{category:>2} {CATEGORIES.get(category, '')}"
        lines.append(_line(name, counts))
    lines.append(_line("   all", total))
    return "\n".join(lines)


def _line(name: str, counts: Counter[str]) -> str:
    return f"{name:42} {counts.total():>5}" + "".join(f" {counts[v]:>10}" for v in VERDICTS)


def as_json(report: Report) -> dict[str, object]:
    return {
        "profile": PROFILE,
        "backend": "native",
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "uid": os.geteuid(),
        "ok": report.ok,
        "totals": dict(Counter(result.verdict for result in report.results)),
        "problems": report.problems,
        "notes": report.notes,
        "events": report.events,
        "rows": [asdict(result) for result in report.results],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/redcode", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="rows at once (default 2)")
    parser.add_argument("--every", type=int, default=1, help="only every Nth row")
    parser.add_argument("--row", action="append", default=[], help="only this row, by its id")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    words = parser.parse_args()
    rows = load_rows(words.every, words.row)
    if words.row and len(rows) != len(set(words.row)):
        parser.error("no row of that name; ids look like bash-1_1 and python-9_3")
    with tempfile.TemporaryDirectory(prefix="redcode-") as folder:
        report = run_rows(rows, Path(folder), jobs=words.jobs, on_host=True)
    if words.json:
        words.json.write_text(json.dumps(as_json(report), indent=1) + "\n")
    print(table(report))
    for result in report.results:
        for why in result.why:
            print(f"{result.verdict}: {result.id}: {why}")
    for line in report.notes:
        print(f"note: {line}")
    for line in report.problems:
        print(f"problem: {line}")
    if report.ok:
        print(
            f"no canary read, changed or reached; no process left; "
            f"{report.events} events, the log verifies"
        )
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
