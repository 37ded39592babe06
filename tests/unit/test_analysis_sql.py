"""What SQL on a command line is read to do, case by case, and its harmless twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.analysis import read
from runner.model.intent import Intent
from runner.model.request import Argv, ShellText

DATA = Path(__file__).parents[1] / "data"
CASES = yaml.safe_load((DATA / "reading/sql.yaml").read_text(encoding="utf-8"))
CLIENTS = (
    "psql", "mysql", "mariadb", "sqlite3", "duckdb", "clickhouse-client", "sqlcmd", "bq",
    "cockroach", "cat", "echo", "printf", "sudo", "ssh",
)  # fmt: skip
"""Commands in front of what is looked at."""


def constructs(intent: Intent, *, advice: bool = False) -> set[str]:
    return {
        each.name.removeprefix("sql:")
        for each in intent.constructs
        if each.name.startswith("sql:") and each.advice is advice
    }


def commands(intent: Intent) -> list[str]:
    told = [" ".join(word.text for word in each.words) for each in intent.commands]
    return [text for text in told if not text.startswith(CLIENTS)]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_line_is_read_as_its_case_says(case: dict[str, Any]) -> None:
    intent = read(ShellText(case["line"]))
    assert intent.unreadable is None
    assert constructs(intent) == set(case.get("constructs", []))
    assert constructs(intent, advice=True) == set(case.get("advice", []))
    assert commands(intent) == case.get("commands", [])
    assert [f"{p.access.value} {p.path.text}" for p in intent.paths if p.path.text != "out"] == (
        case.get("paths", [])
    )
    assert [host.text for host in intent.hosts] == case.get("hosts", [])


@pytest.mark.parametrize("case", [c for c in CASES if "twin" in c], ids=lambda c: str(c["name"]))
def test_nothing_is_found_in_its_twin(case: dict[str, Any]) -> None:
    intent = read(ShellText(case["twin"]))
    assert intent.unreadable is None
    ordinary = {"select", "other", "show", "create-database", "dynamic"}
    found = constructs(intent) | constructs(intent, advice=True)
    assert found <= ordinary | set(case.get("allowed", []))
    assert commands(intent) == []


LONG = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "(" * LONG,
        "/*" * LONG,
        "'" * LONG + "x",
        "$a$" * LONG,
        "$a" * LONG,
        "\\" * LONG,
        ";" * LONG,
        "with " * LONG,
        "delete " * LONG,
        "execute 'a' " * LONG,
        " " * LONG,
        "\0\ud800" * LONG,
        "do 'do ''do ''''do '''''''' ''''' ''' '" * 100,
    ],
    ids=lambda text: text[:8].encode("unicode_escape").decode(),
)
@pytest.mark.parametrize("client", ["psql -c", "mysql -e", "sqlite3 x.db", "bq query"])
def test_hostile_texts_are_only_noted(client: str, text: str) -> None:
    words = (*client.split(), text)
    intent = read(Argv(words))
    assert intent.commands[0].words[-1].text == text
    assert intent.unreadable is None
    assert len(intent.constructs) < 20


def test_a_text_too_long_to_read_says_so() -> None:
    intent = read(Argv(("psql", "-c", "select 1;\n" * 120_000)))
    assert constructs(intent) == {"unreadable"}


@pytest.mark.parametrize("line", ["psql -c 'select 1'", "python3 -c 1", "awk 1 x", "node -e 1"])
def test_what_stands_behind_many_harmless_texts_is_not_passed_over(line: str) -> None:
    few = read(ShellText(f"{line}\n" * 200 + "psql -c 'drop table x'\n"))
    assert few.unreadable is None
    assert "drop-table" in constructs(few)
    many = read(ShellText(f"{line}\n" * 2500 + "psql -c 'drop table x'\n"))
    assert "more text in other languages" in str(many.unreadable)
