"""Results as tables: for a terminal, and in Markdown for docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

import phases

Row = dict[str, Any]


def print_rows(table: list[Row]) -> None:
    """Programs as headings, contenders below them."""
    print(f"\n{'':34}{'median ms':>10}{'p99 ms':>10}{'x plain':>9}{'x bwrap':>9}{'runs':>7}")
    program = None
    for row in table:
        if row["contender"] != "command line" and row["program"] != program:
            program = row["program"]
            print(program)
        label = row["program"] if row["contender"] == "command line" else f"  {row['contender']}"
        ratios = "".join(f"{_or_blank(row[key]):>9}" for key in ("to_plain", "to_bwrap"))
        numbers = f"{row['median_ms']:>10.2f}{row['p99_ms']:>10.2f}"
        print(f"{label:34}{numbers}{ratios}{row['runs']:>7}")


def print_phases(found: dict[str, float]) -> None:
    """A phase a line, with what it is."""
    print("\nphases of `true` through the library, median ms")
    for name, what in phases.NAMES.items():
        print(f"  {name:16}{found[name]:>8.2f}   {what}")
    print(f"  {'sum':16}{sum(found.values()):>8.2f}")


def markdown(document: dict[str, Any]) -> str:
    """A result as docs/benchmarks.md quotes it."""
    lines = ["| | median ms | p99 ms | x plain | x bwrap |", "| --- | --- | --- | --- | --- |"]
    for row in document["rows"]:
        own = row["contender"] == "command line"
        label = f"`{row['program']}`" + ("" if own else f", {row['contender']}")
        cells = [f"{row['median_ms']:.1f}", f"{row['p99_ms']:.1f}"]
        cells += [_or_blank(row["to_plain"]), _or_blank(row["to_bwrap"])]
        lines.append("| " + " | ".join([label, *cells]).replace("  ", " ") + " |")
    if "phases_ms" in document:
        lines += ["", "| phase of `true` | median ms | |", "| --- | --- | --- |"]
        lines += [
            f"| {name} | {took_ms:.2f} | {phases.NAMES[name]} |"
            for name, took_ms in document["phases_ms"].items()
        ]
    return "\n".join(lines)


def api_markdown(document: dict[str, Any]) -> str:
    """A result of the server as docs/benchmarks.md quotes it."""
    lines = ["| | median ms | p99 ms | above the library's median, ms |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [
        f"| `{row['program']}`, {row['contender']} | {row['median_ms']:.1f} | "
        f"{row['p99_ms']:.1f} | {row['above_library_ms']:.1f} |"
        for row in document["rows"]
    ]
    lines += ["", "| clients at once | runs of `true` a second | median ms | p99 ms |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [
        f"| {row['clients']} | {row['runs_a_second']:.0f} | {row['median_ms']:.0f} | "
        f"{row['p99_ms']:.0f} |"
        for row in document["rates"]
    ]
    return "\n".join(lines)


def print_decisions(table: list[Row]) -> None:
    """Commands as headings, a line for each number of rules and contender."""
    print(f"\n{'':42}{'rules':>6}{'median us':>11}{'p99 us':>10}{'x rival':>9}{'decisions':>11}")
    command = None
    for row in table:
        if row["command"] != command:
            command = row["command"]
            print(command)
        numbers = f"{row['median_us']:>11.1f}{row['p99_us']:>10.1f}{_ratio(row['to_rival']):>9}"
        print(f"  {row['contender']:40}{row['rules']:>6}{numbers}{row['decisions']:>11}")


def decisions_markdown(document: dict[str, Any]) -> str:
    """A result of deciding as docs/benchmarks.md quotes it."""
    lines = ["| command | | rules | median µs | p99 µs | x rival |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in document["rows"]:
        cells = [row["command"], row["contender"], str(row["rules"])]
        cells += [f"{row['median_us']:.1f}", f"{row['p99_us']:.1f}", _ratio(row["to_rival"])]
        lines.append("| " + " | ".join(cells).replace("  ", " ") + " |")
    return "\n".join(lines)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _or_blank(ratio: float | None) -> str:
    return "" if ratio is None else str(ratio)


_WAYS = {
    "alone": "one event at a time",
    "threads": "32 threads of a process",
    "processes": "32 processes",
}


def print_audit(document: dict[str, Any]) -> None:
    """Ways of writing as headings; then a line for each log that was read."""
    print(
        f"\n{'':36}{'events/s':>10}{'median us':>11}{'p99 us':>10}{'longest ms':>12}{'x plain':>9}"
    )
    way = None
    for row in document["writing"]:
        if row["way"] != way:
            way = row["way"]
            print(_WAYS[way])
        numbers = f"{row['per_s']:>10}{row['median_us']:>11.0f}{row['p99_us']:>10.0f}"
        print(f"  {row['contender']:34}{numbers}{row['longest_ms']:>12.1f}{row['to_plain']:>9}")
    for row in document["reading"]:
        print(f"{row['events']} events: " + ", ".join(_read(row)))
    if "rival_verified_per_s" in document:
        print(f"{document['rival']['name']} verifies {document['rival_verified_per_s']} a second")


def audit_markdown(document: dict[str, Any]) -> str:
    """A result of recording as docs/benchmarks.md quotes it."""
    lines = ["| | | events/s | median µs | p99 µs | longest ms | x plain |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for row in document["writing"]:
        cells = [_WAYS[row["way"]], row["contender"], str(row["per_s"])]
        cells += [f"{row['median_us']:.0f}", f"{row['p99_us']:.0f}", f"{row['longest_ms']:.1f}"]
        lines.append("| " + " | ".join([*cells, str(row["to_plain"])]) + " |")
    lines += ["", "| log | | |", "| --- | --- | --- |"]
    for row in document["reading"]:
        for told in _read(row):
            what, _, figure = told.partition(": ")
            lines.append(f"| {row['events']:,} events | {what} | {figure} |")
    if "rival_verified_per_s" in document:
        figure = f"{document['rival_verified_per_s']:,} events/s"
        lines.append(f"| {document['rival']['name']}, 100,000 in memory | verified | {figure} |")
    return "\n".join(lines)


def _read(row: Row) -> list[str]:
    return [
        f"verified: {row['verified_per_s']:,} events/s",
        f"log: {row['bytes_per_event']} bytes an event",
        f"index: {row['index_bytes_per_event']} bytes an event",
        f"indexed: {row['indexed_per_s']:,} events/s",
        f"search by agent and time: {row['search_median_ms']} ms, "
        f"longest {row['search_longest_ms']} ms",
    ]


def overshoot_markdown(document: dict[str, Any]) -> str:
    """A result of budgets that are crossed as docs/budgets.md quotes it."""
    lines = ["| of | runs at once | past it, median s | most s | least s |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in document["rows"]:
        cells = [f"{row['budget_s']} s {row['resource']}", str(row["at_once"])]
        cells += [f"{row[name]:+.2f}" for name in ("median_s", "most_s", "least_s")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
