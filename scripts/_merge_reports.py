"""Reads the JUnit reports of several test runs and fails on a test that ran in none of them.

    _merge_reports.py NEVER_RUN REPORT...

NEVER_RUN names the exceptions, one a line: a node id (`*` matches anything), blanks, a reason.
Exits 1 when a test failed, ran nowhere without being named, or is named and ran after all, or
when a named one does not exist; 2 when a report is missing or empty.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Test:
    ran: bool = False
    failed: set[str] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)


def node_id(case: ET.Element) -> str:
    """`tests/unit/test_x.py::Class::test_y[1]` from JUnit's dotted class name and name."""
    parts = case.get("classname", "").split(".")
    name = case.get("name", "")
    if parts == [""]:  # a module that was skipped while it was collected
        return "/".join(name.split(".")) + ".py"
    for end in range(len(parts), 0, -1):
        path = "/".join(parts[:end]) + ".py"
        if (ROOT / path).is_file():
            return "::".join([path, *parts[end:], name])
    return "::".join([".".join(parts), name])


def read(report: Path, tests: dict[str, Test]) -> None:
    cases = list(ET.parse(report).iter("testcase"))
    if not cases:
        raise ValueError("it holds no test")
    for case in cases:
        test = tests.setdefault(node_id(case), Test())
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            test.ran = True
            test.failed.add(report.stem)
        elif skip is None or skip.get("type") == "pytest.xfail":
            test.ran = True
        else:
            test.reasons.add(skip.get("message", "no reason given"))


def settle_modules(tests: dict[str, Test]) -> None:
    """A module that was skipped as a whole in one run ran if any test of it ran in another."""
    for name in [n for n in tests if "::" not in n]:
        inside = [t for n, t in tests.items() if n.startswith(name + "::")]
        if inside:
            for test in inside:
                test.reasons |= tests[name].reasons
            del tests[name]


def exceptions(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    named: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith("#"):
            pattern, _, reason = line.partition(" ")
            if not reason.strip():
                raise ValueError(f"'{pattern}' has no reason behind it")
            named[pattern] = reason.strip()
    return named


def matches(pattern: str, name: str) -> bool:
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name))


def complaints(tests: dict[str, Test], named: dict[str, str]) -> list[str]:
    found = [f"failed in {', '.join(sorted(t.failed))}: {n}" for n, t in tests.items() if t.failed]
    for name, test in sorted(tests.items()):
        pattern = next((p for p in named if matches(p, name)), None)
        if not test.ran and pattern is None:
            found.append(f"ran nowhere: {name} ({'; '.join(sorted(test.reasons))})")
        if test.ran and pattern is not None:
            found.append(f"ran, so take '{pattern}' out of never-run.txt: {name}")
    for pattern in named:
        if not any(matches(pattern, name) for name in tests):
            found.append(f"no test of this name, so take it out of never-run.txt: {pattern}")
    return found


def main(words: list[str]) -> int:
    tests: dict[str, Test] = {}
    try:
        named = exceptions(Path(words[0]))
        for word in words[1:]:
            try:
                read(Path(word), tests)
            except (OSError, ET.ParseError, ValueError) as error:
                raise ValueError(f"{word}: {error}") from error
    except (OSError, ValueError) as error:
        print(f"merge_reports: {error}", file=sys.stderr)
        return 2
    settle_modules(tests)
    found = complaints(tests, named)
    for line in found:
        print(line)
    ran = sum(test.ran for test in tests.values())
    print(
        f"{len(tests)} tests, {ran} of them ran in at least one of {len(words) - 1} runs; "
        f"{len(found)} complaints"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
