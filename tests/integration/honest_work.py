"""Honest work, done outside and inside a sandbox: whether it notices.

Two kinds. Modules of the standard library's own test suite: each test's result outside and inside,
where every difference has to be listed in `tests/data/honest/python-X.Y.yaml` with the protection
that causes it, and every listed difference has to occur. And everyday commands
(`honest_commands.py`): the same exit code, output and files.

A test that differs is run twice more on both sides. One that then agrees is named as unsteady, and
counts as the same: its result hangs on the moment.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import honest_commands
import yaml
from honest_commands import Work
from honest_sides import Desk, Ran
from pydantic import BaseModel, ConfigDict

DATA = Path(__file__).resolve().parents[1] / "data" / "honest"
RECORD = Path(__file__).with_name("honest_record.py")
# The short ones first. What the profile bounds and the kernel gives is asked in most of them:
# processes, signals, terminals, descriptors, limits, memory, users, sockets.
MODULES = (
    "test.test_os",
    "test.test_posix",
    "test.test_pathlib",
    "test.test_tempfile",
    "test.test_shutil",
    "test.test_tarfile",
    "test.test_sqlite3",
    "test.test_fcntl",
    "test.test_mmap",
    "test.test_pty",
    "test.test_openpty",
    "test.test_pwd",
    "test.test_grp",
    "test.test_resource",
    "test.test_fork1",
    "test.test_wait4",
    "test.test_eintr",
    "test.test_select",
    "test.test_selectors",
    "test.test_epoll",
    "test.test_signal",
    "test.test_socket",
    "test.test_subprocess",
    "test.test_threading",
    "test.test_asyncio",
    "test.test_multiprocessing_fork",
    "test.test_multiprocessing_forkserver",
    "test.test_multiprocessing_spawn",
)
MORE_ROUNDS = 2
ABSENT = ("absent", "")


class Listed(BaseModel):
    """A difference that is known, and why there is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tests: str
    """Glob over test ids, module first."""
    outside: str
    inside: str
    why: str
    who: Literal["all", "root", "user"] = "all"
    """Whose runs differ: root's, an ordinary user's, or all."""

    def applies(self, modules: Iterable[str]) -> bool:
        return self.who in ("all", who()) and any(
            self.tests.startswith(f"{module}.") for module in modules
        )

    def covers(self, found: Difference) -> bool:
        return (
            self.who in ("all", who())
            and fnmatch.fnmatchcase(found.test, self.tests)
            and (self.outside, self.inside) == (found.outside, found.inside)
        )


class Known(BaseModel):
    """The whole of a data file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str
    differences: tuple[Listed, ...]


@dataclass(frozen=True)
class Difference:
    """A test whose result is not the same on both sides."""

    test: str
    outside: str
    inside: str
    said: str
    """What the two sides gave as the reason, for people."""


@dataclass(frozen=True)
class Row:
    """What came of one module or one piece of work."""

    name: str
    tests: int = 0
    same: int = 0
    listed: int = 0
    unsteady: tuple[str, ...] = ()
    results: Mapping[str, int] = field(default_factory=dict)
    """Of the inner side."""
    outside_s: float | None = None
    inside_s: float | None = None
    skipped: str = ""
    problems: tuple[str, ...] = ()


def who() -> str:
    """Whose runs these are, in the word of a data file."""
    return "root" if os.geteuid() == 0 else "user"


def known_differences(version: str) -> Known:
    """What is listed for this version of Python; FileNotFoundError: nothing is."""
    with (DATA / f"python-{version}.yaml").open(encoding="utf-8") as file:
        return Known.model_validate(yaml.safe_load(file))


Results = dict[str, tuple[str, str]]
"""Test id -> its result and what it said of it."""


def results_of(ran: Ran) -> tuple[Results, str | None]:
    """The results in what the recorder wrote, and what is wrong with the whole, or None."""
    found: Results = {}
    running: str | None = None
    finished = False
    for line in ran.stdout.splitlines():
        said = json.loads(line)
        if "begins" in said:
            running = said["begins"]
        elif "test" in said:
            found[said["test"]] = said["result"], said["why"]
        else:
            finished = said["finished"]
    if finished and ran.ended == "exited 0":
        return found, None
    tail = ran.stderr[-1000:].decode(errors="replace")
    return found, f"ended as {ran.ended}, last test begun: {running}; {tail}"


def between(outside: Results, inside: Results) -> Iterator[Difference]:
    """Every test that has not the same result."""
    for test in sorted({*outside, *inside}):
        (there, there_said), (here, here_said) = outside.get(test, ABSENT), inside.get(test, ABSENT)
        if there != here:
            said = f"outside: {there_said.strip()[-300:]}; inside: {here_said.strip()[-600:]}"
            yield Difference(test, there, here, said)


def check(
    differences: Iterable[Difference], known: Known, modules: Sequence[str]
) -> tuple[list[Difference], list[Listed]]:
    """Differences that are not listed, and listed ones that did not occur."""
    all_found = list(differences)
    new = [d for d in all_found if not any(each.covers(d) for each in known.differences)]
    stale = [
        each
        for each in known.differences
        if each.applies(modules) and not any(each.covers(d) for d in all_found)
    ]
    return new, stale


def run_module(desk: Desk, python: str, module: str, known: Known) -> Row:
    """One module's tests on both sides."""
    package = module.rpartition(".")[2]
    ask = f"import importlib.util as u, sys; sys.exit(not u.find_spec('test.{package}'))"
    if desk.outside([python, "-c", ask]).ended != "exited 0":
        return Row(module, skipped=f"{python} comes without it")
    inner, outer = both(desk, [python, "record.py", module])
    inside, inner_wrong = results_of(inner)
    outside, outer_wrong = results_of(outer)
    problems = [
        f"{side}: {wrong}"
        for side, wrong in (("inside", inner_wrong), ("outside", outer_wrong))
        if wrong is not None
    ]
    found = list(between(outside, inside))
    steady = found
    new, _ = check(found, known, [module])
    for _ in range(MORE_ROUNDS):
        if not new:
            break
        again = [python, "record.py", module, *(d.test for d in new)]
        inner_again, outer_again = both(desk, again)
        still = between(results_of(outer_again)[0], results_of(inner_again)[0])
        differs = {d.test for d in still}
        # What no single run can tell, such as a class's own fixture, stays as it was.
        tried = {*results_of(outer_again)[0], *results_of(inner_again)[0]}
        gone = {d.test for d in new if d.test in tried and d.test not in differs}
        steady = [d for d in steady if d.test not in gone]
        new = [d for d in new if d.test not in gone]
    _, stale = check(steady, known, [module])
    problems += [
        f"{d.test}: {d.outside} outside, {d.inside} inside, and not listed ({d.said})" for d in new
    ]
    problems += [
        f"{each.tests}: listed as {each.outside} outside and {each.inside} inside, which it is not"
        for each in stale
    ]
    return Row(
        module,
        tests=len({*outside, *inside}),
        same=len({*outside, *inside}) - len(steady),
        listed=len(steady) - len(new),
        unsteady=tuple(sorted({d.test for d in found} - {d.test for d in steady})),
        results=dict(Counter(result for result, _ in inside.values())),
        outside_s=outer.wall_s,
        inside_s=inner.wall_s,
        problems=tuple(problems),
    )


def both(desk: Desk, argv: Sequence[str]) -> tuple[Ran, Ran]:
    """Inside first, which leaves the workspace as it was; then outside."""
    desk.clear()
    desk.put({"record.py": RECORD.read_text("utf-8")})
    return desk.inside(argv), desk.outside(argv)


def run_work(desk: Desk, name: str, work: Work) -> Row:
    """One piece of everyday work on both sides."""
    if absent := honest_commands.missing(work):
        return Row(name, skipped=f"not installed: {', '.join(absent)}")
    desk.clear()
    if work.pytest:
        honest_commands.make_environment(desk.workspace / ".venv")
    desk.put(work.files)
    text = f"set -e\n{work.text}"
    before = desk.photograph()
    inner = desk.inside(shell=text)
    problems = []
    if desk.photograph() != before:
        problems.append("the run inside changed the workspace itself")
    outer = desk.outside(["bash", "-c", text])
    problems += compared(inner, outer, work.varies)
    return Row(
        name,
        tests=1,
        same=int(not problems),
        results={inner.ended: 1},
        outside_s=outer.wall_s,
        inside_s=inner.wall_s,
        problems=tuple(problems),
    )


def compared(inner: Ran, outer: Ran, varies: Mapping[str, str]) -> list[str]:
    """What is not the same, and whatever makes the comparison worthless."""
    problems = []
    if outer.ended != "exited 0":
        problems.append(f"the work itself fails outside: {outer.ended}: {outer.stderr.decode()}")
    for what in ("ended", "stdout", "stderr"):
        there, here = getattr(outer, what), getattr(inner, what)
        if there != here:
            problems.append(f"{what}: {there!r} outside, {here!r} inside")
    for path in sorted({*inner.changes, *outer.changes}):
        sides = [side.changes.get(path, "untouched") for side in (outer, inner)]
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in varies):
            sides = [" ".join(side.split()[:2]) for side in sides]  # without the digest
        if sides[0] != sides[1]:
            problems.append(f"{path}: {sides[0]} outside, {sides[1]} inside")
    return problems


def version_of(python: str) -> tuple[str, str]:
    """An interpreter's `X.Y`, and the folder that it is installed in."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.base_prefix, sep='\\n')"
    done = subprocess.run([python, "-I", "-c", ask], check=True, capture_output=True, text=True)
    version, prefix = done.stdout.splitlines()
    return version, prefix


def run_all(python: str, modules: Sequence[str], works: Sequence[str]) -> Iterator[Row]:
    """Row by row, in order; what is needed is made and removed."""
    version, prefix = version_of(python)
    known = known_differences(version) if modules else Known(python=version, differences=())
    desk = Desk(read=() if prefix == "/usr" else (prefix,))
    try:
        for module in modules:
            yield run_module(desk, python, module, known)
        for name in works:
            yield run_work(desk, name, honest_commands.WORKS[name])
    finally:
        desk.close()


def line(row: Row) -> str:
    """A row of the table."""
    if row.skipped:
        return f"{row.name:38} skipped: {row.skipped}"
    times = f"{row.outside_s or 0:9.1f} {row.inside_s or 0:8.1f}"
    counts = (
        f"{row.tests:6} {row.same:6} {row.listed:7} {len(row.unsteady):9} {len(row.problems):6}"
    )
    return f"{row.name:38} {counts} {times}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/honest-work", description=__doc__)
    parser.add_argument(
        "--module", action="append", choices=MODULES, help="only this module of Python's tests"
    )
    parser.add_argument(
        "--work", action="append", choices=sorted(honest_commands.WORKS), help="only this work"
    )
    parser.add_argument("--python", default="/usr/bin/python3", help="whose tests to run")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    words = parser.parse_args()
    chosen = words.module or words.work
    modules = words.module or (() if chosen else MODULES)
    works = words.work or (() if chosen else tuple(honest_commands.WORKS))
    head = f"{'':38} {'tests':>6} {'same':>6} {'listed':>7} {'unsteady':>9} {'wrong':>6}"
    print(f"{head} {'outside s':>9} {'inside s':>8}")
    rows = []
    for row in run_all(words.python, modules, works):
        rows.append(row)
        print(line(row), flush=True)
        for test in row.unsteady:
            print(f"    unsteady: {test}")
        for problem in row.problems:
            print(f"    wrong: {problem}")
    if words.json:
        told = {
            "python": version_of(words.python)[0],
            "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
            "uid": os.geteuid(),
            "rows": [asdict(row) for row in rows],
        }
        words.json.write_text(json.dumps(told, indent=1) + "\n")
    if any(row.problems for row in rows):
        return 1
    print("honest work is the same inside, but for what is listed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
