"""Walks a run's every step: kills its supervisor there, and looks at what the next one finds.

    python crash_walk.py [--every N] [--from STEP] FOLDER PROFILE WORD...

runs the words under the profile in FOLDER/work, again and again, each time in a new process that
kills itself (SIGKILL) one step later, or N: at each SQL statement but those that only read, and at
the beginning and the end of each method that stores something or handles the sandbox. After each
kill three supervisors start at once on the state folder, as recovery must be right then too, and
the record is held against what the run left. One line is printed for each violation.

A program of its own and single-threaded, because it forks, and because it makes itself the one
that orphans come to.
"""

from __future__ import annotations

import argparse
import functools
import os
import secrets
import signal
import sqlite3
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from _soak_ledger import violations
from _soak_machine import Descendants, carrying, cgroup_folders

from runner import Runner
from runner.backends.native.backend import NativeBackend
from runner.backends.native.lease import NativeLease
from runner.model.event import AuditEvent, EventKind
from runner.stores import changes, checkpoints, kept, keys, liveness, sqlite, transaction, writer

STEPPED = (
    writer.Writer, transaction.LogEnd, transaction.SqliteTransaction, sqlite.SqliteStore,
    kept.KeptOutput, changes.ChangeArchive, changes.Keeper, changes.Content, liveness.LiveLock,
    checkpoints.Checkpointer, keys.KeyFolder, NativeBackend, NativeLease,
)  # fmt: skip
"""Whose methods are steps."""
READING = ("SELECT", "PRAGMA")
QUIET_S = 20.0
"""What was running may take so long to go; far more than it does, for busy machines."""
STEPS_AT_MOST = 2000
NOBODYS = 54321
"""A user without an account, who owns the workspace where all else is root's."""
ENDS = (EventKind.RUN_ENDED, EventKind.RUN_RECOVERED)


class Steps:
    """Counts the steps of this process and kills it at one of them."""

    def __init__(self, at: int, told: Path) -> None:
        """`at`: the number of the step, from 1. `told`: where its name is written before."""
        self._at = at
        self._told = told
        self._count = 0

    def step(self, name: str) -> None:
        self._count += 1
        if self._count == self._at:
            self._told.write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        for each in STEPPED:
            for name, method in list(vars(each).items()):
                if isinstance(method, FunctionType) and not name.startswith("__"):
                    setattr(each, name, self._stepping(f"{each.__name__}.{name}", method))
        connect = writer.connect

        def connected(path: Path, mode: str) -> sqlite3.Connection:
            connection = connect(path, mode)
            connection.set_trace_callback(self._statement)
            return connection

        writer.connect = connected

    def _stepping(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def stepping(*args: Any, **options: Any) -> Any:
            self.step(f"{name} begins")
            answer = method(*args, **options)
            self.step(f"{name} has ended")
            return answer

        return stepping

    def _statement(self, sql: str) -> None:
        if not sql.startswith(READING):
            self.step(f"before {' '.join(sql.split()[:4])}")


def forked(action: Callable[[], None]) -> int:
    """Do something in a child; returns its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        action()
        status = 0
    except SystemExit as end:
        print(end.code, flush=True)
        status = 1
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    finally:
        sys.stdout.flush()
        os._exit(status)


class Walk:
    """All steps of one kind of run."""

    def __init__(self, folder: Path, profile: str, words: list[str]) -> None:
        self._folder = folder
        (folder / "work").mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder / "work", NOBODYS, NOBODYS)  # no run writes as root
        self._home = folder / "home"
        self._work = folder / "work"
        self._profile = profile
        self._words = words
        self._descendants = Descendants()

    def go(self, first: int, every: int) -> int:
        """Returns at how many steps it was killed. Exits with a message at the first violation."""
        with_none = self._killed_at(0, "undisturbed")
        if with_none != 0:
            sys.exit(f"the run does not work here: wait status {with_none}")
        for at in range(first, STEPS_AT_MOST, every):
            marker = f"walk-{secrets.token_hex(8)}"
            told = self._folder / "step"
            told.write_text("none")
            status = self._killed_at(at, marker)
            name = f"step {at} ({told.read_text()})"
            if status not in (0, signal.SIGKILL):
                sys.exit(f"{name}: the run ended with wait status {status}")
            if self._descendants.wait(lambda: not self._descendants.alive(), QUIET_S) is None:
                sys.exit(f"{name}: still there: {self._descendants.alive()}")
            if found := carrying(marker):
                sys.exit(f"{name}: still there: {found}")
            self._recovered_by_three(name)
            self._must(forked(functools.partial(self._look, marker)), name)
            if status == 0:
                return (at - first) // every
        sys.exit(f"there is no end to the steps: {STEPS_AT_MOST}")

    def _killed_at(self, at: int, marker: str) -> int:
        def run() -> None:
            steps = Steps(at, self._folder / "step")
            steps.install()
            with Runner(home=self._home, backend="native") as runner:
                runner.run(
                    self._words, cwd=self._work, profile=self._profile, env={"WALK": marker},
                    labels={"walk": marker}, limits={"wall": "60s"},
                )  # fmt: skip

        return self._status(forked(run))

    def _recovered_by_three(self, name: str) -> None:
        def start() -> None:
            Runner(home=self._home, backend="native").close()

        for child in [forked(start) for _ in range(3)]:
            self._must(child, name)

    def _look(self, marker: str) -> None:
        """What stands in the log of every run, the latest among them, and on the machine."""
        with Runner(home=self._home, backend="native") as runner:
            if runner.recovered:
                sys.exit(f"recovered once more: {runner.recovered}")
            verified = runner.store.verify()  # type: ignore[attr-defined]
            if verified.failure is not None:
                sys.exit(f"event {verified.failure.seq}: {verified.failure.why}")
            runs = defaultdict[str, list[AuditEvent]](list)
            for event in runner.store.events():
                if event.run_id is not None and event.kind.startswith("run."):
                    runs[event.run_id].append(event)
            for run_id, events in runs.items():
                check(run_id, events)
            if found := violations(runner.store, runner.store.events()):
                sys.exit("; ".join(found))
            ran = (self._work / f"ran-{marker}").exists()
            if ran and not any(
                marker.encode() in events[0].body and of(events)[EventKind.RUN_STARTED]
                for events in runs.values()
            ):
                sys.exit("a program ran, and no start is recorded")
            left = runner.sweep().left
            if left:
                sys.exit(f"the sweep left {left}")
            if groups := [found for run_id in runs for found in cgroup_folders(run_id)]:
                sys.exit(f"control groups: {groups}")

    def _must(self, child: int, name: str) -> None:
        status = self._status(child)
        if status != 0:
            sys.exit(f"{name}: see above (wait status {status})")

    def _status(self, child: int) -> int:
        ended = self._descendants.ended
        self._descendants.wait(lambda: child in ended, 120)
        return ended.pop(child, -1)


def of(events: list[AuditEvent]) -> Counter[str]:
    return Counter(event.kind for event in events)


def check(run_id: str, events: list[AuditEvent]) -> None:
    """A run begins with one decision and ends with one outcome."""
    kinds = of(events)
    if events[0].kind != EventKind.RUN_DECIDED or kinds[EventKind.RUN_DECIDED] != 1:
        sys.exit(f"{run_id} has no intent, or several: {dict(kinds)}")
    if sum(kinds[end] for end in ENDS) != 1 or events[-1].kind not in ENDS:
        sys.exit(f"{run_id} has not exactly one outcome: {dict(kinds)}")


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth step")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="STEP")
    parser.add_argument("folder", type=Path)
    parser.add_argument("profile")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    os.environ["RUNNER_CHECKPOINT_EVENTS"] = "2"  # so that some are made in the middle of a run
    walk = Walk(given.folder, given.profile, given.words)
    print(f"killed at {walk.go(given.first, given.every)} steps", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
