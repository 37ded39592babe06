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


def _or_blank(ratio: float | None) -> str:
    return "" if ratio is None else str(ratio)
