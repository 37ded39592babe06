"""How far runs pass a budget of what flows before they are ended, and how much of it is left.

Runs that would go on for ever share one budget of wall or CPU time until all have ended by it. What
they used in all, by their outcomes, is held against what is stated.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
from pathlib import Path

import machine
import tables
from results import destination, parser, write

from runner import Runner
from runner.metering.slices import used_of
from runner.model.budget import Resource
from runner.model.limits import LimitName
from runner.model.outcome import Outcome, Termination

AT_ONCE = (1, 4, 16)
SECONDS = 4
"""What a budget states; all runs share it."""
BUSY = "while :; do :; done"


def turn(folder: Path, resource: Resource, count: int) -> float:
    """Seconds past the budget when all runs have ended; negative: so much was never used."""
    work, profile = folder / "work", folder / "budgeted.yaml"
    work.mkdir()
    profile.write_text(
        "extends: agent\nworkspace: tmpfs\nbudgets:\n"
        f"  - {{id: measured, of: all, per: 1d, {resource.value}: {SECONDS}s}}\n"
    )
    outcomes: list[Outcome] = []
    with Runner(home=folder / "home") as runner:

        def run() -> None:
            outcomes.append(runner.run(["sh", "-c", BUSY], cwd=work, profile=str(profile)))

        threads = [threading.Thread(target=run) for _ in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    for each in outcomes:
        if each.termination is not Termination.DENIED and each.limit is not LimitName.BUDGET:
            raise SystemExit(f"bench: a run ended otherwise: {each}")
    used_us = sum(used_of(resource, each.usage) or 0 for each in outcomes)
    return used_us / 1e6 - SECONDS


def main() -> int:
    options_of = parser("overshoot", __doc__)
    options_of.add_argument("--rounds", type=int, default=10, metavar="N", help="turns; default 10")
    options = options_of.parse_args()
    if options.show:
        print(tables.overshoot_markdown(json.loads(options.show.read_text())))
        return 0
    described = machine.describe()
    out = destination("overshoot", options.out, described)
    rows: list[dict[str, object]] = []
    for resource in (Resource.WALL, Resource.CPU):
        for count in AT_ONCE:
            found = []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
                    Path(folder).chmod(0o755)
                    found.append(turn(Path(folder), resource, count))
            rows.append(
                {
                    "resource": resource.value,
                    "at_once": count,
                    "budget_s": SECONDS,
                    "median_s": round(statistics.median(found), 3),
                    "most_s": round(max(found), 3),
                    "least_s": round(min(found), 3),
                }
            )
            print(f"{resource.value}, {count} at once: {rows[-1]}", flush=True)
    document: dict[str, object] = {
        "command": f"scripts/bench overshoot --rounds {options.rounds}",
        "machine": described,
        "rows": rows,
    }
    described["load_1m_after"] = os.getloadavg()[0]
    write(out, document)
    print(f"\n{tables.overshoot_markdown(document)}\n\nwritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
