"""The rounds behind scripts/soak-crash: supervisors work, are killed, and are looked at."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _soak_ledger import BUDGETS, violations
from _soak_machine import Descendants, carrying, cgroup_folders, mounts_of

from runner import Runner
from runner.model.event import AuditEvent, EventKind
from runner.model.outcome import Termination

NOBODYS = 54321
"""A user without an account, who owns the workspaces where all else is root's."""
QUIET_S = 30.0
"""What was running may take so long to go; far more than it does, for busy machines."""
OPEN_AT_MOST = 12
"""Fewer than there are threads: some are refused for it."""
PAUSE_S = 0.5
"""Between two kills, on the average."""
CALLS_PER_KILL = 4
"""A round's budget, in its kills: it is used up shortly before the round's end."""
RECOVERING = 3
ENDS = (EventKind.RUN_ENDED, EventKind.RUN_RECOVERED)

PROGRAM = '(sleep 300 &); [ "$MODE" = cow ] || echo x > "ran-$SOAK"; sleep "$STAY"; echo out'


@dataclass(frozen=True)
class Options:
    kills: int
    per_round: int
    processes: int
    runs: int


class Soak:
    """One state folder for all rounds."""

    def __init__(self, folder: Path, chance: random.Random, options: Options) -> None:
        self._home = folder / "home"
        self._folder = folder
        self._chance = chance
        self._options = options
        self._calls = CALLS_PER_KILL * options.per_round
        self._descendants = Descendants()
        self._mounts = mounts_of(folder)
        self._marker = f"crash-{secrets.token_hex(8)}"
        self._errors = folder / "errors"
        self._errors.touch()
        self._work = folder / "work"
        self._work.mkdir()
        if os.geteuid() == 0:
            os.chown(self._work, NOBODYS, NOBODYS)  # no run writes as root
        more = (
            f"{BUDGETS}"
            f"  - {{id: round, of: 'label:round', per: 30d, calls: {self._calls}}}\n"
            f"  - {{id: open, of: all, at_once: {OPEN_AT_MOST}}}\n"
        )
        # In a layer of their own, which bounds the runs under both profiles together.
        policies = folder / "policies"
        policies.mkdir()
        (policies / "budgets.yaml").write_text(more)
        os.environ["RUNNER_POLICY_DIRS"] = str(policies)
        for mode in ("cow", "bind"):
            limits = "limits: {workspace: unlimited, inodes: unlimited}\n" * (mode == "bind")
            (folder / f"{mode}.yaml").write_text(f"extends: agent\nworkspace: {mode}\n{limits}")
        self.kills = 0
        self.together: Counter[int] = Counter()
        """How often so many were killed at once."""
        self.runs: Counter[str] = Counter()
        """How the runs ended."""

    def round(self, number: int) -> list[str]:
        """Work, kill so many times, and look; violations, a sentence each."""
        living = [self._working(number, slot) for slot in range(self._options.processes)]
        killed = 0
        while killed < self._options.per_round:
            pause_s = min(0.1 + self._chance.expovariate(1 / PAUSE_S), 3 * PAUSE_S)
            self._descendants.wait(lambda: False, pause_s)
            if any(each in self._descendants.ended for each in living):
                break  # a supervisor that ends by itself has said why
            last = killed + len(living) >= self._options.per_round
            many = self._chance.choice((1, 1, 1, 1, 2, 3, len(living)))
            victims = living if last else self._chance.sample(living, min(many, len(living)))
            for each in victims:
                self._kill(each)
            killed += len(victims)
            self.together[len(victims)] += 1
            self._descendants.wait(
                lambda them=victims: all(each in self._descendants.ended for each in them), QUIET_S
            )
            living = [each for each in living if each not in victims]
            if not last:
                missing = self._options.processes - len(living)
                living += [self._working(number, slot) for slot in range(missing)]
        self.kills += killed
        for each in living:  # of a round that was broken off
            self._kill(each)
        return self._looked_at()

    @staticmethod
    def _kill(supervisor: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it said why, and ended
            os.kill(supervisor, signal.SIGKILL)

    def _looked_at(self) -> list[str]:
        found = []
        if self._descendants.wait(lambda: not self._descendants.alive(), QUIET_S) is None:
            found += [f"lives on: {each}" for each in self._descendants.alive()]
            self._descendants.kill_all()
        found += [f"lives on: {each}" for each in carrying(self._marker)]
        found += self._wrong_ends([self._forked(self._start) for _ in range(RECOVERING)])
        found += self._wrong_ends([self._forked(self._look)])
        found += self._errors.read_text().splitlines()
        self._errors.write_text("")
        if mounts := mounts_of(self._folder) - self._mounts:
            found.append(f"mounts stay: {sorted(mounts)}")
        told = self._folder / "ends"
        self.runs = Counter(json.loads(told.read_text()) if told.exists() else {})
        self._descendants.ended.clear()
        return found

    def _wrong_ends(self, children: list[int]) -> list[str]:
        """Wait for them; whoever did not end well."""
        ended = self._descendants.ended
        self._descendants.wait(lambda: all(child in ended for child in children), 300)
        statuses = [ended.get(child) for child in children]
        return [f"who starts or looks ended with {status}" for status in statuses if status != 0]

    def _working(self, number: int, slot: int) -> int:
        seed = self._chance.random()
        return self._forked(lambda: self._supervise(number, slot, seed))

    def _forked(self, action: Callable[[], None]) -> int:
        """Do something in a child; returns its id. What it raises is an error of this round."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            self._wrong(traceback.format_exc())
        finally:
            os._exit(status)

    def _wrong(self, text: str) -> None:
        with self._errors.open("a") as file:
            file.write(" / ".join(text.strip().splitlines()[-3:]) + "\n")

    def _start(self) -> None:
        Runner(home=self._home, backend="native").close()

    def _supervise(self, number: int, slot: int, seed: float) -> None:
        """Some threads, each with one run behind the other, until somebody kills all of it."""
        runner = Runner(home=self._home, backend="native")
        chance = random.Random(seed)

        def work(thread: int) -> None:
            try:
                for run in range(1_000_000):
                    mode = chance.choice(("cow", "bind"))
                    stay_s = chance.choice((0, 0, 0.05, 0.2, 1))
                    outcome = runner.run(
                        ["sh", "-c", PROGRAM],
                        cwd=self._work,
                        profile=str(self._folder / f"{mode}.yaml"),
                        env={
                            "SOAK": f"{number}-{os.getpid()}-{thread}-{run}",
                            "CRASH": self._marker,
                            "MODE": mode,
                            "STAY": str(stay_s),
                        },
                        labels={
                            "round": str(number),
                            "run": f"{number}-{os.getpid()}-{thread}-{run}",
                        },
                        agent=f"agent-{slot}",
                        limits={"wall": "60s"},
                    )
                    if outcome.termination is Termination.DENIED:
                        time.sleep(0.1)  # for want of a budget: another one ends
                    elif not outcome.ok:
                        raise RuntimeError(f"a run did not go well: {outcome}")
            except BaseException:
                self._wrong(traceback.format_exc())
                os._exit(1)

        threads = [
            threading.Thread(target=work, args=(thread,)) for thread in range(self._options.runs)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def _look(self) -> None:
        """What stands in the log, and on the machine."""
        with Runner(home=self._home, backend="native") as runner:
            runner.store.recover()
            verified = runner.store.verify()  # type: ignore[attr-defined]
            if verified.failure is not None:
                self._wrong(f"event {verified.failure.seq}: {verified.failure.why}")
            events = [*runner.store.events()]
            for text in violations(runner.store, events):
                self._wrong(text)
            runs = defaultdict[str, list[AuditEvent]](list)
            for event in events:
                if event.run_id is not None and event.kind.startswith("run."):
                    runs[event.run_id].append(event)
            for run_id, its in runs.items():
                self._look_at_run(run_id, its)
            self._look_at_budgets(events)
            self._look_at_programs(runs)
            if left := runner.sweep().left:
                self._wrong(f"the sweep left {left}")
            if groups := [found for run_id in runs for found in cgroup_folders(run_id)]:
                self._wrong(f"control groups stay: {groups}")
            ends = Counter(_termination(its[-1]) for its in runs.values())
            (self._folder / "ends").write_text(json.dumps(ends))

    def _look_at_run(self, run_id: str, events: list[AuditEvent]) -> None:
        kinds = Counter(event.kind for event in events)
        if events[0].kind != EventKind.RUN_DECIDED or kinds[EventKind.RUN_DECIDED] != 1:
            self._wrong(f"{run_id} has no intent, or several: {dict(kinds)}")
        if sum(kinds[end] for end in ENDS) != 1 or events[-1].kind not in ENDS:
            self._wrong(f"{run_id} has not exactly one outcome: {dict(kinds)}")

    def _look_at_budgets(self, events: list[AuditEvent]) -> None:
        begun: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        still_open: set[str] = set()
        for event in events:
            if event.run_id is None:
                continue
            if event.kind == EventKind.RUN_DECIDED:
                data = json.loads(event.body)["data"]
                if data["decision"]["effect"] == "allow":
                    begun[data["labels"]["round"]] += 1
                    still_open.add(event.run_id)
                    if len(still_open) > OPEN_AT_MOST:
                        self._wrong(f"event {event.seq}: {len(still_open)} runs are open at once")
                elif "'round'" in data["decision"]["reason"]:
                    refused[data["labels"]["round"]] += 1
            elif event.kind in ENDS:
                still_open.discard(event.run_id)
        for label, count in begun.items():
            if count > self._calls or (refused[label] and count != self._calls):
                what = f"{count} runs of round {label} began, {refused[label]} were refused"
                self._wrong(f"{what}, and its budget is {self._calls} calls")

    def _look_at_programs(self, runs: dict[str, list[AuditEvent]]) -> None:
        """Whoever ran has an intent and a start in the log."""
        started = {
            json.loads(events[0].body)["data"]["labels"]["run"]
            for events in runs.values()
            if any(event.kind == EventKind.RUN_STARTED for event in events)
        }
        for path in self._work.glob("ran-*"):
            if path.name.removeprefix("ran-") not in started:
                self._wrong(f"a program ran ({path.name}), and no start is recorded")


def _termination(event: AuditEvent) -> str:
    return str(json.loads(event.body)["data"]["termination"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak-crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument(
        "--per-round", type=int, default=25, metavar="N", help="kills between two looks; default 25"
    )
    parser.add_argument("--processes", type=int, default=4, metavar="N", help="default 4")
    parser.add_argument(
        "--runs", type=int, default=4, metavar="N", help="of each at once; default 4"
    )
    parser.add_argument(
        "--seed", type=int, help="for the same choices again, as far as time allows"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(1 << 32)
    print(f"seed {seed}, uid {os.getuid()}")
    options = Options(given.kills, given.per_round, given.processes, given.runs)
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="runner-crash-") as name:
        Path(name).chmod(0o755)
        soak = Soak(Path(name).resolve(), random.Random(seed), options)
        number = 0
        while soak.kills < options.kills and len(found) < 20:
            number += 1
            wrong = [f"round {number}: {text}" for text in soak.round(number)]
            for text in wrong:
                print(text)
            found += wrong
            print(
                f"{soak.kills} of {options.kills} killed, {sum(soak.runs.values())} runs "
                f"{dict(soak.runs)}, {len(found)} violations",
                flush=True,
            )
    if not soak.runs["exited"] or not soak.runs["unknown"]:
        found.append(f"too little happened to tell anything: {dict(soak.runs)}")
    summary = {
        "seed": seed,
        "kills": soak.kills,
        "at_once": dict(sorted(soak.together.items())),
        "runs": dict(soak.runs),
        "violations": found,
    }
    print(json.dumps(summary, indent=2))
    if given.json:
        given.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
