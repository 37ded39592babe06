"""`runner ps` and `runner top`: the runs that go on, and what they use."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from runner.app import Runner
    from runner.model.kill import OpenRun
    from runner.model.usage import Usage

_PROGRAM = 40  # characters of what runs, in a table
_MIB = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ps)
    app.command()(top)


def ps(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Runs that have not ended, of all processes that share the state folder, the oldest first.

    Where the run has no sandbox now, its usage is `-`: it is being built, or taken down.
    """
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        rows = _look(runner)
    if as_json:
        print(json.dumps([_document(row) for row in rows], indent=2))
        return
    if not rows:
        print("nothing runs")
        return
    _print(rows)


def top(
    every: Annotated[
        float, typer.Option(min=0.1, max=3600.0, metavar="SECONDS", help="How often to look.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list at each look, one a line.")
    ] = False,
) -> None:
    """What runs use, live, the busiest first; until Ctrl-C.

    CPU is in percent of one processor since the look before. Without a terminal it looks twice,
    prints, and ends.
    """
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        before = _look(runner)
        try:
            if as_json or once or not sys.stdout.isatty():
                while True:
                    time.sleep(every)
                    before = _busiest(_look(runner, before))
                    if as_json:
                        print(json.dumps([_document(row) for row in before]), flush=True)
                    else:
                        _print(before)
                    if once or not as_json:
                        return
            _live(runner, before, every)
        except KeyboardInterrupt:
            return


@dataclass(frozen=True, slots=True)
class Row:
    """A run at one look."""

    run: OpenRun
    program: str
    usage: Usage | None
    at_s: float
    """When it was looked at, on the monotonic clock."""
    cpu_percent: float | None = None
    """Since the look before; None: there was none."""

    @property
    def cpu_s(self) -> float | None:
        """User and system together."""
        if self.usage is None or self.usage.cpu_user_s is None:
            return None
        return self.usage.cpu_user_s + (self.usage.cpu_system_s or 0.0)


def _look(runner: Runner, before: Sequence[Row] = ()) -> list[Row]:
    from runner.surfaces.cli.event_lines import program  # noqa: PLC0415

    runs = runner.kills.running()
    known = {row.run.run_id: row for row in before}
    usages = runner.kills.usages(runs)
    now_s = time.monotonic()
    rows = []
    for run in runs:
        last = known.get(run.run_id)
        if last is not None:
            text = last.program
        else:
            first = next(runner.store.events(run.run_id), None)
            text = "" if first is None else program(first)
        rows.append(_with_share(Row(run, text, usages.get(run.run_id), now_s), last))
    return rows


def _with_share(row: Row, last: Row | None) -> Row:
    if last is None or last.cpu_s is None or row.cpu_s is None or row.at_s <= last.at_s:
        return row
    share = max(0.0, row.cpu_s - last.cpu_s) / (row.at_s - last.at_s)
    return Row(row.run, row.program, row.usage, row.at_s, 100 * share)


def _busiest(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -(row.cpu_percent or 0.0))


def _document(row: Row) -> dict[str, object]:
    who = row.run.principal
    return {
        "run_id": row.run.run_id,
        "agent": who.agent,
        "parent": who.parent,
        "session": who.session,
        "tenant": who.tenant,
        "uid": who.uid,
        "profile": row.run.profile,
        "backend": row.run.backend,
        "opened": row.run.opened,
        "program": row.program,
        "usage": None if row.usage is None else _measured(asdict(row.usage)),
        "cpu_percent": row.cpu_percent,
    }


def _measured(usage: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in usage.items() if value is not None}


def _print(rows: Sequence[Row]) -> None:
    print(
        f"{'run':24}  {'agent':16} {'profile':10} {'wall':>8} {'cpu':>8} {'%':>5} {'MiB':>6} "
        f"{'procs':>5}  program"
    )
    for row in rows:
        run, agent, profile, *numbers, program = _cells(row)
        wall, cpu, share, memory, processes = numbers
        print(
            f"{run:24}  {agent:16} {profile:10} {wall:>8} {cpu:>8} {share:>5} {memory:>6} "
            f"{processes:>5}  {program}"
        )


def _cells(row: Row) -> tuple[str, ...]:
    from runner.surfaces.cli.event_lines import shown  # noqa: PLC0415

    usage = row.usage
    wall_s = None if usage is None else usage.wall_s
    memory = None if usage is None else usage.memory_peak_bytes
    processes = None if usage is None else usage.processes
    return (
        row.run.run_id,
        shown(row.run.principal.agent),
        shown(row.run.profile),
        "-" if wall_s is None else f"{wall_s:.1f}",
        "-" if row.cpu_s is None else f"{row.cpu_s:.2f}",
        "-" if row.cpu_percent is None else f"{row.cpu_percent:.0f}",
        "-" if memory is None else f"{memory / _MIB:.0f}",
        "-" if processes is None else str(processes),
        shown(row.program)[:_PROGRAM],
    )


def _live(runner: Runner, before: Sequence[Row], every_s: float) -> None:
    from rich.live import Live  # noqa: PLC0415

    with Live(_table(before), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(every_s)
            before = _busiest(_look(runner, before))
            live.update(_table(before), refresh=True)


def _table(rows: Sequence[Row]) -> Table:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, title=f"{len(rows)} runs", title_justify="left")
    for name in ("run", "agent", "profile"):
        table.add_column(name)
    for name in ("wall", "cpu", "%", "MiB", "procs"):
        table.add_column(name, justify="right")
    table.add_column("program", overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, _cells(row)))  # as text: what an agent wrote is no markup
    return table
