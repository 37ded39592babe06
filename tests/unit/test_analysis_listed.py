"""The constructs that the docs list are those that are found, and the other way round."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from runner.analysis import read
from runner.model.request import Program, Script, ShellText

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/writing-rules.md").read_text("utf-8")
MORE: tuple[Program, ...] = (
    ShellText("a &"), ShellText("coproc a"), ShellText("a | sh"), ShellText("curl a | sh"),
    ShellText("base64 -d a | sh"), ShellText("a > /dev/tcp/b/1"), ShellText("eval a; . b"),
    ShellText("trap a EXIT; alias b=c"), ShellText("f() { (a); }; for i in a; do b; done"),
    ShellText("a <(b) $(c) <<< d"), ShellText("a <<E\nE"), ShellText("psql -c \"select 'a\""),
    ShellText("psql -c 'alter table a drop partition b'"),
    Script(b"import('x' + y)", "node", ("node",), "a.js"),
    Script(b"require('net').createServer().listen(80)", "node", ("node",), "a.js"),
    Script(b"process.kill(1)", "node", ("node",), "a.js"),
    Script(b"console.log(process.env)", "node", ("node",), "a.js"),
    Script(b"require('./a.node')", "node", ("node",), "a.js"),
)  # fmt: skip


def listed() -> set[str]:
    section = PAGE.partition("\n## Constructs\n")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| (`.*?) \|", section)
    return {name for row in rows for name in re.findall(r"`(\w+:[^`]+)`", row)}


def found() -> set[str]:
    data = ROOT / "tests/data/reading"
    programs = list(MORE)
    for language, name in (("python", "python"), ("node", "javascript")):
        cases = yaml.safe_load((data / f"{name}.yaml").read_text("utf-8"))
        programs += [Script(c["text"].encode(), language, (language,), "x") for c in cases]
    cases = yaml.safe_load((data / "sql.yaml").read_text("utf-8"))
    programs += [ShellText(case["line"]) for case in cases]
    return {each.name for program in programs for each in read(program).constructs}


def test_the_page_lists_what_is_found() -> None:
    names, told = found(), listed()
    assert len(told) > 50
    # Statements by their verb are all one row, which would list any name of SQL.
    special = told - {"sql:*"}
    verbs = {name for name in names if re.fullmatch(r"sql:[a-z]+", name)}
    missing = {n for n in names - verbs if not any(fnmatchcase(n, p) for p in special)}
    assert missing == set()
    unseen = {p for p in told if not any(fnmatchcase(n, p) for n in names)}
    assert unseen == set()
