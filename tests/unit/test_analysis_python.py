"""What Python, JavaScript and SQL texts are read to do, case by case, and their harmless twins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.analysis import read
from runner.model.intent import Intent, Word
from runner.model.request import Script

DATA = Path(__file__).parents[1] / "data"
CASES = yaml.safe_load((DATA / "reading/python.yaml").read_text(encoding="utf-8"))
REDCODE = [
    json.loads(line)
    for line in (DATA / "redcode/python.jsonl").read_text(encoding="utf-8").splitlines()
]


def python(text: str) -> Intent:
    return read(Script(text.encode(), "python", ("python3",), "x.py"))


def shown(word: Word) -> str:
    return ("?" if word.dynamic else "") + word.text


def commands(intent: Intent) -> list[str]:
    return [" ".join(map(shown, c.words)) for c in intent.commands if c.via]


def paths(intent: Intent) -> list[str]:
    return [f"{use.access.value} {shown(use.path)}" for use in intent.paths]


def constructs(intent: Intent) -> set[str]:
    return {each.name for each in intent.constructs}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_text_is_read_as_its_case_says(case: dict[str, Any]) -> None:
    intent = python(case["text"])
    assert commands(intent) == case.get("commands", [])
    assert paths(intent) == case.get("paths", [])
    assert [shown(host) for host in intent.hosts] == case.get("hosts", [])
    found = constructs(intent)
    wanted = {f"python:{name}" for name in case.get("constructs", [])}
    wanted |= {f"python:import:{name}" for name in case.get("imports", [])}
    assert wanted | set(case.get("other", [])) <= found
    assert found.isdisjoint({f"python:{name}" for name in case.get("not", [])})
    assert all(each.advice for each in intent.constructs)
    assert str(case.get("unreadable")) in str(intent.unreadable)


@pytest.mark.parametrize("case", [c for c in CASES if "twin" in c], ids=lambda c: str(c["name"]))
def test_nothing_is_found_in_its_twin(case: dict[str, Any]) -> None:
    intent = python(case["twin"])
    assert (commands(intent), paths(intent), intent.hosts) == ([], [], ())
    assert all(name.startswith("python:import:") for name in constructs(intent))
    assert intent.unreadable is None


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("row", REDCODE, ids=[row["id"] for row in REDCODE])
def test_harmful_scripts_are_read(row: dict[str, Any]) -> None:
    assert python(row["code"]).unreadable is None


def test_most_of_what_harmful_scripts_name_is_literal() -> None:
    named = literal = 0
    for row in REDCODE:
        intent = python(row["code"])
        words = [w for c in intent.commands if c.via for w in c.words]
        words += [use.path for use in intent.paths] + list(intent.hosts)
        named += len(words)
        literal += sum(not word.dynamic for word in words)
    assert named > 150
    assert literal == named
