"""What a decision costs, from text to answer: cold and known, with ever more rules.

All contenders take turns in one run, so that a busy neighbour slows all alike. Cold: a text that
was never seen. Cached: the same text again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import machine
import tables
from policies import COMMANDS, Command, layer, stated
from results import destination, parser, write
from rival import NAME, VERSION, Rival, UnavailableError

from runner.analysis import read
from runner.model.action import Exec
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.policy.engine import RulesDecisionPoint, create

RULES = (10, 100, 1000)
BATCH = 20
"""Decisions of a turn: a clock's own cost and one bad moment weigh less."""
WARM_UP = 3
_ME = Principal(1000)
_NUMBERS = itertools.count(1000)


@dataclass
class Series:
    """One contender's times for one command under so many rules."""

    contender: str
    command: Command
    rules: int
    took_ns: list[int] = field(default_factory=list)

    @property
    def median_us(self) -> float:
        return statistics.median(self.took_ns) / 1e3

    @property
    def p99_us(self) -> float:
        ranked = sorted(self.took_ns)
        return ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))] / 1e3


def decided_ns(point: RulesDecisionPoint, command: Command, text: str) -> int:
    """Nanoseconds from the text to its decision, which must be the right one."""
    began_ns = time.perf_counter_ns()
    decision = point.decide(Exec(_ME, read(ShellText(text)), "/srv/work"))
    took_ns = time.perf_counter_ns() - began_ns
    if decision.effect is not command.effect:
        raise SystemExit(f"bench: '{text}' is decided otherwise: {decision.reason}")
    return took_ns


def turn(
    series: Series, points: dict[int, RulesDecisionPoint], rival: Rival | None
) -> Iterator[int]:
    """Times of one turn."""
    command, point = series.command, points[series.rules]
    if series.contender == "cached":
        text = command.text.format(0)
        decided_ns(point, command, text)
        for _ in range(BATCH):
            yield decided_ns(point, command, text)
    elif series.contender == "cold":
        # A parser is started for each compound one: that takes long enough by itself.
        for _ in range(BATCH if command.name != "compound" else 1):
            yield decided_ns(point, command, command.text.format(next(_NUMBERS)))
    elif rival is not None:
        yield from rival.times_ns(command, series.rules, 1)


def rows(found: list[Series]) -> list[dict[str, object]]:
    """A row each, with the ratio of its median to the rival's."""
    medians = {(s.contender, s.command.name, s.rules): s.median_us for s in found}
    table: list[dict[str, object]] = []
    for s in found:
        base = medians.get((NAME, s.command.name, s.rules))
        table.append(
            {
                "contender": s.contender,
                "command": s.command.name,
                "rules": s.rules,
                "decisions": len(s.took_ns),
                "median_us": round(s.median_us, 2),
                "p99_us": round(s.p99_us, 2),
                "to_rival": round(s.median_us / base, 4) if base else None,
            }
        )
    return table


def main() -> int:
    options_of = parser("decide", __doc__)
    options_of.add_argument("--runs", type=int, default=100, metavar="N", help="turns; default 100")
    options_of.add_argument(
        "--without-rivals", action="store_true", help="install nothing, measure runner alone"
    )
    options = options_of.parse_args()
    if options.show:
        print(tables.decisions_markdown(json.loads(options.show.read_text())))
        return 0
    described = machine.describe()
    out = destination("decide", options.out, described)
    policies = {count: stated(count) for count in RULES}
    points = {count: create([layer(rules)]) for count, rules in policies.items()}
    document: dict[str, object] = {
        "command": f"scripts/bench decide --runs {options.runs}"
        + " --without-rivals" * options.without_rivals,
        "machine": described,
    }
    with contextlib.ExitStack() as stack:
        rival, why_not = None, "--without-rivals"
        if not options.without_rivals:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="runner-bench-"))
            try:
                rival = Rival(Path(folder), policies)
                stack.callback(rival.close)
            except UnavailableError as error:
                why_not = str(error)
        if rival is None:
            print(f"skipped: {NAME} {VERSION} ({why_not})")
        document["rival"] = {"name": NAME, "version": VERSION} if rival else None
        contenders = ["cold", "cached", *([NAME] if rival else [])]
        found = [
            Series(contender, command, count)
            for command in COMMANDS
            for count in RULES
            for contender in contenders
        ]
        for round_number in range(-WARM_UP, options.runs):
            for series in found:
                took_ns = [*turn(series, points, rival)]
                if round_number >= 0:
                    series.took_ns += took_ns
    table = rows(found)
    document["rows"] = table
    tables.print_decisions(table)
    described["load_1m_after"] = os.getloadavg()[0]
    write(out, document)
    print(f"\nwritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
