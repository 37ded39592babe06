"""The loop behind scripts/soak: batches of runs, and a look at the machine after each."""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import psutil
from _soak_machine import Descendants
from _soak_watch import Watch, kinds_of_descriptors
from _soak_work import Stage, Work

from runner import Runner, RunnerError
from runner.settings import load_settings

WARM_UP_RUNS = 80
"""Every kind of work once or twice: what is loaded, cached or opened for good is so after it."""
LOOKS = 20
"""In the whole soak, unless `--every` says else."""
KEPT_BYTES = {"runs": 1 << 20, "changes": 1 << 20}
"""What may be kept of all runs' output, and of what they changed, so small that it is reached."""
BATCH_S = 900.0
"""A batch that takes longer hangs: each of its runs has a wall limit of half a minute."""


class Soak:
    """One Runner, one state folder, one workspace."""

    def __init__(self, folder: Path, at_once: int, seed: int) -> None:
        self.folder = folder
        self.at_once = at_once
        self.random = random.Random(seed)
        self.stage = Stage(folder)
        self.work = self.stage.all_work()
        self.home = folder / "home"
        self.watch = Watch(self.home, str(self.stage.workspace))
        self.failures: list[str] = []
        self.done = Counter[str]()

    def go(self, runs: int, every: int, deadline_s: float) -> int:
        """So many runs, fewer when the time is up; returns how many."""
        settings = load_settings(
            {
                "home": str(self.home),
                "backend": "native",
                "keep_output_total_bytes": KEPT_BYTES["runs"],
                "keep_changes_total_bytes": KEPT_BYTES["changes"],
            }
        )
        before = kinds_of_descriptors()
        done = 0
        with Runner(settings=settings) as runner, ThreadPoolExecutor(self.at_once) as pool:
            kinds = [*self.work]  # each once, then by chance
            while done < runs and time.monotonic() < deadline_s:
                size = min(every if done >= WARM_UP_RUNS else WARM_UP_RUNS, runs - done)
                batch = [kinds.pop(0) if kinds else self.random.choice(self.work)
                         for _ in range(size)]  # fmt: skip
                done += self._batch(runner, pool, batch, deadline_s)
                self.watch.look(done)
                self._say(done, runs)
            self._end(runner)
        self.watch.look(done)
        gc.collect()
        # What the interpreter itself opened meanwhile (/dev/urandom, /dev/null) may stay.
        stays = kinds_of_descriptors() - before
        self.failures += [
            f"descriptor: {number} of {target} stay open after the Runner is closed"
            for target, number in stays.items()
            if not target.startswith("/dev/")
        ]
        self.failures += [f"the host's file {path} was changed" for path in self.stage.changed()]
        return done

    def _batch(
        self, runner: Runner, pool: ThreadPoolExecutor, batch: list[Work], deadline_s: float
    ) -> int:
        def one(work: Work) -> bool:
            if time.monotonic() > deadline_s:
                return False
            try:
                why = work.do(runner)
            except RunnerError as error:
                why = f"{work.name}: {error.code}: {error}"
            if why is not None:
                self.failures.append(f"run: {why}")
                print(why)
            self.done[work.name] += 1
            return True

        futures = [pool.submit(one, work) for work in batch]
        _, late = wait(futures, timeout=BATCH_S)
        if late:
            print(f"soak: {len(late)} runs hang: {self.watch.look(-1).left}")
            os._exit(1)
        return sum(future.result() for future in futures)

    def _end(self, runner: Runner) -> None:
        swept = runner.sweep()
        self.failures += [f"sweep: {line}" for line in swept.left]
        for folder, allowed in KEPT_BYTES.items():
            kept = sum(p.stat().st_size for p in (self.home / folder).rglob("*") if p.is_file())
            if kept > allowed:
                self.failures.append(f"{folder}: {kept} bytes are kept of {allowed} allowed")
        verified = runner.store.verify()
        if verified.failure is not None:
            self.failures.append(f"log: event {verified.failure.seq}: {verified.failure.why}")
        print(f"the log verifies: {runner.store.head().size} events")

    def _say(self, done: int, runs: int) -> None:
        counts = self.watch.looks[-1].counts
        resident_bytes = psutil.Process().memory_info().rss
        print(
            f"{done} of {runs} runs, {len(self.failures)} wrong; descriptors "
            f"{counts['supervisor_fds']:.0f} + {counts['launcher_fds']:.0f}, memory "
            f"{counts['supervisor_malloc_bytes'] / 2**20:.1f} MiB and "
            f"{counts['supervisor_blocks']:.0f} blocks in use, {resident_bytes / 2**20:.1f} + "
            f"{counts['launcher_rss_bytes'] / 2**20:.1f} MiB resident, objects "
            f"{counts['supervisor_objects']:.0f}, state {counts['state_entries']:.0f} entries"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument("--at-once", type=int, default=8, metavar="N", help="threads; default 8")
    parser.add_argument("--every", type=int, metavar="N", help="runs between two looks")
    parser.add_argument("--minutes", type=float, default=300.0, help="at most; default 300")
    parser.add_argument("--seed", type=int, help="for the same choices again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 32)
    every = options.every or max(options.at_once, options.runs // LOOKS)
    print(f"seed {seed}, uid {os.getuid()}, {options.at_once} at once, a look every {every} runs")
    Descendants()  # makes this process the one that orphans come to
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="runner-soak-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)  # a sandbox's user must be able to pass
        soak = Soak(folder, options.at_once, seed)
        done = soak.go(options.runs, every, began_s + options.minutes * 60)
    found = soak.failures + soak.watch.stays() + soak.watch.growing(WARM_UP_RUNS)
    if done < options.runs:
        found.append(f"only {done} of {options.runs} runs in {options.minutes:g} minutes")
    print(f"{done} runs in {time.monotonic() - began_s:.0f} s; work of {len(soak.done)} kinds")
    for line in found:
        print(f"WRONG {line}")
    if options.json:
        looks = [{"runs": look.runs, **look.counts} for look in soak.watch.looks]
        document = {"seed": seed, "runs": done, "wrong": found, "looks": looks, "work": soak.done}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
