"""The rounds behind scripts/soak-kill: start a run, kill a part of runner, look at what is left."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from _soak_machine import Descendants, carrying, cgroup_folders, described, mounts_of

from runner.errors import RunnerError
from runner.stores.reader import open_log

RUNNER = (
    sys.executable,
    "-c",
    "import sys; from runner.surfaces.cli.main import main; sys.exit(main())",
)
BOUND_S = 20.0
"""What may live on after the kill at most; far more than it takes, for busy machines."""
LANDMARK_S = 60.0
LAUNCHER = "import zygote"
"""Stands in the command line of the launcher and of what it forks, until that executes."""
VICTIMS = {"supervisor": 14, "launcher": 2, "builder": 2, "init": 1, "program": 1}
"""Whom to kill, and how often in twenty."""
PHASES = ("start-up", "build", "run", "collect", "end", "over")
"""Where a kill hit: before the intent was recorded; before the start was; while the program ran;
before the outcome was recorded; after it; or not at all, because all was over."""

# Forks, one of them into a session of its own and deaf to signals, all of them writing.
PROGRAM = """\
import os, signal, sys, time
def busy(name):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(name, "a") as file:
        while True:
            file.write(sys.argv[1])
            file.flush()
            time.sleep(0.005)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        busy("daemon")
    os._exit(0)
if os.fork() == 0:
    os.execvp("sleep", ["sleep", "3600"])
if os.fork() == 0:
    busy("child")
print("begun", flush=True)
time.sleep(float(sys.argv[2]))
print("ended", flush=True)
"""
SHORT_S, ENDLESS_S = 0.3, 3600.0
"""How long the program stays: endless where the kill alone can end it in time."""


@dataclass(frozen=True)
class Landmark:
    """Something that can be seen from outside, and within what time after it a kill comes."""

    name: str
    spread_s: float


@dataclass
class Round:
    """One run and the kill that hit it."""

    number: int
    landmark: Landmark
    delay_s: float
    wanted: str
    marker: str
    phase: str = "over"
    victim: str | None = None
    """Whom the kill hit; None when nobody of that kind was there."""
    death_s: float | None = None
    """From the kill to the end of the last process."""
    recovered: int = 0
    violations: list[str] = field(default_factory=list)


class Soak:
    """One state folder and one workspace for all rounds."""

    def __init__(self, folder: Path, seed: int, bound_s: float) -> None:
        self.folder = folder
        self.bound_s = bound_s
        self.home = folder / "home"
        self.workspace = folder / "work"
        self.workspace.mkdir()
        (self.workspace / "work.py").write_text(PROGRAM)
        self.random = random.Random(seed)
        self.descendants = Descendants()
        self.mounts = mounts_of(folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUNNER_", "XDG_"))}
        self.environment = kept | {"RUNNER_HOME": str(self.home)}
        self.landmarks: list[Landmark] = []

    def calibrate(self) -> float:
        """Some runs left alone: that they work here, and seconds to the launcher at best."""
        start_s = min(self._undisturbed() for _ in range(3))
        self.landmarks = [
            Landmark("spawned", start_s),
            Landmark("launcher", 0.1),
            Landmark("begun", 0.3),
            Landmark("ended", 0.06),
        ]
        return start_s

    def _undisturbed(self) -> float:
        output = self.folder / "calibration"
        output.touch()
        supervisor = self._start("nobody", output, SHORT_S)
        ended = self.descendants.ended
        start_s = self.descendants.wait(
            lambda: supervisor in ended or bool(psutil.Process(supervisor).children()), LANDMARK_S
        )
        self.descendants.wait(lambda: supervisor in ended, LANDMARK_S)
        if start_s is None or ended.get(supervisor) != 0:
            sys.exit(f"soak-kill: a run does not work here: {output.read_text().strip()}")
        return start_s

    def round(self, number: int) -> Round:
        """Everything about one kill."""
        landmark = self.random.choice(self.landmarks)
        this = Round(
            number,
            landmark,
            delay_s=self.random.uniform(0, landmark.spread_s),
            wanted=self.random.choices(list(VICTIMS), list(VICTIMS.values()))[0],
            marker=f"soak-{secrets.token_hex(8)}",
        )
        events_before = self._size()
        output = self.folder / "output"
        output.write_bytes(b"")
        stays = this.wanted != "launcher" and landmark.name != "ended"
        supervisor = self._start(this.marker, output, ENDLESS_S if stays else SHORT_S)
        self._kill(this, supervisor, output)
        self._look_at_processes(this)
        self._look_at_record(this, events_before, output)
        return this

    def _start(self, marker: str, output: Path, program_s: float) -> int:
        words = ("run", "-C", str(self.workspace), "--env", f"SOAK={marker}",
                 "work.py", marker, str(program_s))  # fmt: skip
        redirected = os.O_WRONLY | os.O_APPEND
        return os.posix_spawn(
            sys.executable,
            [*RUNNER, *words],
            self.environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(output), redirected, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(output), redirected, 0),
            ],
        )

    def _kill(self, this: Round, supervisor: int, output: Path) -> None:
        seen = {
            "spawned": lambda: True,
            "launcher": lambda: bool(psutil.Process(supervisor).children()),
            "begun": lambda: b"begun" in output.read_bytes(),
            "ended": lambda: b"ended" in output.read_bytes(),
        }[this.landmark.name]
        over = self.descendants.ended
        if self.descendants.wait(lambda: supervisor in over or seen(), LANDMARK_S) is None:
            this.violations.append(f"the run never came as far as '{this.landmark.name}'")
        self.descendants.wait(lambda: False, this.delay_s)
        victim = self._find(this.wanted, supervisor)
        if victim is None and this.wanted != "supervisor":
            this.wanted = "supervisor"  # the other is not there yet, or not any more
            victim = self._find(this.wanted, supervisor)
        if victim is not None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it was over that very moment
                victim.kill()
                this.victim = this.wanted

    def _find(self, kind: str, supervisor: int) -> psutil.Process | None:
        """supervisor - launcher - builder - init - program, each the child of the one before."""
        if supervisor in self.descendants.ended:
            return None
        try:
            found = psutil.Process(supervisor)
            for name in VICTIMS:
                if name == kind:
                    return found
                children = found.children()
                if name == "supervisor":
                    children = [c for c in children if LAUNCHER in " ".join(c.cmdline())]
                if not children:
                    return None
                found = children[0]
        except psutil.NoSuchProcess:
            pass
        return None

    def _look_at_processes(self, this: Round) -> None:
        this.death_s = self.descendants.wait(lambda: not self.descendants.alive(), self.bound_s)
        if this.death_s is None:
            this.violations += [f"lives on: {described(p)}" for p in self.descendants.alive()]
            self.descendants.kill_all()
        this.violations += [f"process {who}" for who in carrying(this.marker)]

    def _look_at_record(self, this: Round, start: int, output: Path) -> None:
        """The log as the kill left it, then as `runner clean` leaves it."""
        left, run_id = self._kinds(start)
        this.phase = _phase(left, output.read_bytes(), hit=this.victim is not None)
        if this.victim != "supervisor" and left and left[-1] != "run.ended":
            this.violations.append(f"a supervisor that lived left its run at {left[-1]}")
        code, said = self._command("clean")
        if code != 0:
            this.violations.append(f"`runner clean`: {code} {said}")
        kinds, _ = self._kinds(start)
        this.recovered = kinds.count("run.recovered")
        expected = int(bool(left) and left[-1] != "run.ended")
        if this.recovered != expected or kinds[: len(left)] != left:
            this.violations.append(f"the record was {left} and became {kinds}")
        if run_id and (groups := cgroup_folders(run_id)):
            this.violations.append(f"control groups stay: {groups}")
        if mounts := mounts_of(self.folder) - self.mounts:
            this.violations.append(f"mounts stay: {sorted(mounts)}")
        if signs := list((self.home / "live").glob("*")):
            this.violations.append(f"signs of life stay: {[path.name for path in signs]}")
        if (names := os.listdir(self.workspace)) != ["work.py"]:
            this.violations.append(f"the workspace itself was written: {names}")
        this.violations += self._verify()

    def _kinds(self, start: int) -> tuple[list[str], str | None]:
        """Kinds of this round's events about its run, in order, and the run."""
        if not self._size():
            return [], None
        events = [e for e in open_log(self.home).events(start=start) if e.run_id is not None]
        return [event.kind for event in events], events[0].run_id if events else None

    def _size(self) -> int:
        try:
            return open_log(self.home).head().size
        except RunnerError:
            return 0  # killed before there was a log

    def _verify(self) -> list[str]:
        if not self._size():
            return []
        failure = open_log(self.home).verify().failure
        return [] if failure is None else [f"the log: event {failure.seq}: {failure.why}"]

    def verify_by_command(self) -> str | None:
        """`runner audit verify`, once at the end; what it says if it does not hold."""
        code, said = self._command("audit", "verify")
        print(said)
        return None if code == 0 else f"{code} {said}"

    def _command(self, *words: str) -> tuple[int | None, str]:
        """Exit code (None: it hung) and output, by way of a file: nobody can hold that open."""
        said = self.folder / "said"
        with said.open("wb") as file:
            try:
                code = subprocess.run(
                    [*RUNNER, *words], env=self.environment, stdin=subprocess.DEVNULL,
                    stdout=file, stderr=file, timeout=LANDMARK_S, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = None
        return code, said.read_text().strip()


def _phase(kinds: list[str], output: bytes, *, hit: bool) -> str:
    if not hit:
        return "over"
    match kinds[-1:]:
        case []:
            return "start-up"
        case ["run.decided"]:
            return "build"
        case ["run.started"]:
            return "collect" if b"ended" in output else "run"
        case _:
            return "end" if b"ended" in output else "run"


def summary(rounds: list[Round]) -> dict[str, object]:
    """Counts by phase and victim, and how long anything outlived a killed supervisor."""
    deaths = sorted(r.death_s for r in rounds if r.death_s is not None and r.victim == "supervisor")
    return {
        "rounds": len(rounds),
        "phases": {name: sum(r.phase == name for r in rounds) for name in PHASES},
        "victims": dict(Counter(r.victim or "nobody" for r in rounds)),
        "recovered": sum(r.recovered for r in rounds),
        "last_process_s": {
            "median": round(statistics.median(deaths), 3) if deaths else None,
            "worst": round(deaths[-1], 3) if deaths else None,
        },
        "violations": [f"round {r.number}: {text}" for r in rounds for text in r.violations],
    }


def print_summary(found: dict[str, object], rounds: list[Round]) -> None:
    print(f"\n{'killed in':12}" + "".join(f"{name:>12}" for name in VICTIMS))
    for phase in PHASES:
        hits = Counter(r.victim for r in rounds if r.phase == phase)
        if phase == "over":
            print(f"{phase:12}{sum(hits.values()):>12}  (the run had ended; nobody was killed)")
        else:
            print(f"{phase:12}" + "".join(f"{hits[name] or '-':>12}" for name in VICTIMS))
    times = found["last_process_s"]
    print(f"\nfrom a supervisor's death to that of the last process: {json.dumps(times)}")
    print(f"runs closed as unknown at the next start: {found['recovered']}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak-kill", description=__doc__)
    parser.add_argument("--times", type=int, default=200, metavar="N", help="rounds; default 200")
    parser.add_argument("--seed", type=int, help="for the same choices again")
    parser.add_argument(
        "--bound", type=float, default=BOUND_S, metavar="S", help="seconds until all must be gone"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 32)
    print(f"seed {seed}, uid {os.getuid()}")
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="runner-soak-") as name:
        soak = Soak(Path(name).resolve(), seed, options.bound)
        print(f"a start takes {soak.calibrate():.2f} s here")
        for number in range(1, options.times + 1):
            this = soak.round(number)
            rounds.append(this)
            for text in this.violations:
                moment = f"{this.landmark.name} + {this.delay_s:.3f} s"
                print(f"round {number}: {this.victim} killed in {this.phase} ({moment}): {text}")
            if number % 10 == 0 or number == options.times:
                failed = sum(bool(r.violations) for r in rounds)
                print(f"{number} of {options.times}, {failed} with a violation")
        wrong = soak.verify_by_command()
        soak.descendants.kill_all()
    found = summary(rounds)
    print_summary(found, rounds)
    if options.json:
        options.json.write_text(json.dumps({"seed": seed, **found}, indent=2) + "\n")
    if wrong:
        print(f"runner audit verify: {wrong}")
    return 1 if wrong or found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
