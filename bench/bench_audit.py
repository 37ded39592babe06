"""What recording costs: durable events a second, verifying, searching, and bytes an event.

Contenders take turns in one run, so that a busy neighbour slows all alike: runner's log, plain
inserts into SQLite with `synchronous = FULL`, and the in-memory log of another toolkit, which
nothing of survives its process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import audit_log_maker
import log_reading
import log_writers
import machine
import tables
from results import destination, parser, write
from rival import NAME, VERSION, RivalProcess, UnavailableError

from runner.model.event import EventDraft

RUNNER, PLAIN = "runner", "plain SQLite"
WRITERS = 32
_VERIFIED_BY_RIVAL = 100_000  # it holds all of them in memory
_DRAFTS = 3000


@dataclass
class Series:
    """What one contender took for the events of one way of writing."""

    way: str
    contender: str
    per_s: list[float] = field(default_factory=list)
    """Events a second, of each turn."""
    took_ns: list[int] = field(default_factory=list)

    def turn(self, took_ns: list[int], seconds: float) -> None:
        self.per_s.append(len(took_ns) / seconds)
        self.took_ns += took_ns


def measured(series: Series, drafts: list[EventDraft], seconds: float) -> list[int]:
    """One turn."""
    opened: Any = {RUNNER: log_writers.runner_log, PLAIN: log_writers.plain_sqlite}[
        series.contender
    ]
    with tempfile.TemporaryDirectory(prefix="runner-bench-", dir="/var/tmp") as folder:
        if series.way == "alone":
            return log_writers.alone(opened, Path(folder), drafts, seconds)
        many = log_writers.threads if series.way == "threads" else log_writers.processes
        return many(opened, Path(folder), drafts, seconds, WRITERS)


def row(series: Series, base: Series) -> dict[str, object]:
    """A line of the table. `to_plain`: how much longer an event takes, by the rates."""
    ranked = sorted(series.took_ns)
    median_us = statistics.median(ranked) / 1e3
    return {
        "way": series.way,
        "contender": series.contender,
        "per_s": round(statistics.median(series.per_s)),
        "median_us": round(median_us, 1),
        "p99_us": round(ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))] / 1e3, 1),
        "longest_ms": round(ranked[-1] / 1e6, 1),
        "to_plain": round(statistics.median(base.per_s) / statistics.median(series.per_s), 2),
    }


def writing(
    drafts: list[EventDraft], rounds: int, seconds: float, rival: RivalProcess | None
) -> list[dict[str, object]]:
    """The table of who writes how fast."""
    ways = ("alone", "threads", "processes")
    found = [Series(way, contender) for way in ways for contender in (RUNNER, PLAIN)]
    if rival is not None:
        found.insert(2, Series("alone", NAME))
    for _ in range(rounds):
        for series in found:
            if series.contender == NAME and rival is not None:
                took_ns = rival.asked({"seconds": seconds})["took_ns"]
            else:
                took_ns = measured(series, drafts, seconds)
            series.turn(took_ns, seconds)
            print(f"{series.way}, {series.contender}: {series.per_s[-1]:.0f} a second", flush=True)
    bases = {series.way: series for series in found if series.contender == PLAIN}
    return [row(series, bases[series.way]) for series in found]


def main() -> int:
    options_of = parser("audit", __doc__)
    options_of.add_argument("--rounds", type=int, default=5, metavar="N", help="turns; default 5")
    options_of.add_argument(
        "--seconds", type=float, default=3.0, metavar="S", help="of a turn; default 3"
    )
    options_of.add_argument(
        "--events", type=int, action="append", metavar="N",
        help="verify and search a log of so many, 1000000 if it is not stated; may be repeated",
    )  # fmt: skip
    options_of.add_argument(
        "--without-rivals", action="store_true", help="install nothing, measure runner and SQLite"
    )
    options = options_of.parse_args()
    if options.show:
        print(tables.audit_markdown(json.loads(options.show.read_text())))
        return 0
    described = machine.describe()
    out = destination("audit", options.out, described)
    sizes = options.events or [1_000_000]
    stated = [f"--events {each}" for each in sizes]
    document: dict[str, object] = {
        "command": " ".join(
            [
                f"scripts/bench audit --rounds {options.rounds} --seconds {options.seconds:g}",
                *stated,
            ]
        )
        + " --without-rivals" * options.without_rivals,
        "machine": described,
    }
    drafts = [*itertools.islice(audit_log_maker.drafts(random.Random(1)), _DRAFTS)]
    with contextlib.ExitStack() as stack:
        rival, why_not = None, "--without-rivals"
        if not options.without_rivals:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="runner-bench-"))
            try:
                rival = RivalProcess(Path(folder), "rival_log.py")
                stack.callback(rival.close)
                rival.asked(
                    [
                        {"kind": d.kind.value, "agent": d.principal.agent, "data": dict(d.data)}
                        for d in drafts
                        if d.principal is not None
                    ]
                )
            except UnavailableError as error:
                why_not = str(error)
        if rival is None:
            print(f"skipped: {NAME} {VERSION} ({why_not})")
        document["rival"] = {"name": NAME, "version": VERSION} if rival else None
        document["writing"] = writing(drafts, options.rounds, options.seconds, rival)
        document["reading"] = [log_reading.measured(size) for size in sizes]
        if rival is not None:
            (took_ns,) = rival.asked({"count": _VERIFIED_BY_RIVAL})["took_ns"]
            document["rival_verified_per_s"] = round(_VERIFIED_BY_RIVAL / (took_ns / 1e9))
    tables.print_audit(document)
    described["load_1m_after"] = os.getloadavg()[0]
    write(out, document)
    print(f"\nwritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
