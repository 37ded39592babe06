"""What Python, JavaScript and SQL texts are read to do, case by case, and their harmless twins."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.analysis import read, worker
from runner.model.intent import Intent, Word
from runner.model.request import Script

BOMB = base64.b64encode(zlib.compress(b"a" * 30_000_000)).decode()
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


@pytest.mark.parametrize(
    "text",
    [
        "'a' * 10**9", "str(9**9**9**9)", "chr(1 << 10**9)", "'{:>1000000000}'.format(1)",
        "f'{1:1000000000}'", "''.join(chr(i) for i in range(10**9))", "bytes(10**10)",
        "'a'.zfill(10**10)", "'a'.center(10**10)", "('a' * 60000).join('b' * 60000)",
        "'\\t'.expandtabs(10**10)", "re.sub('(a+)+$', 'b', 'a' * 40 + 'c')", "hex(10**100000)",
        "''.join(a + b + c + d + e for a in D for b in D for c in D for d in D for e in D)",
        f"zlib.decompress(base64.b64decode({BOMB!r}))",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_what_is_too_large_to_compute_is_dynamic(text: str) -> None:
    intent = python(f"import base64, os, re, zlib\nD = 'abcdefghij' * 9\nos.system({text})")
    assert intent.unreadable is None
    assert [c.words[0].dynamic for c in intent.commands if c.via] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"a{i + 1} = a{i}\n" for i in range(5000)) + "a5000('x')",
        "for i in 'abcdefgh':\n  pass\n" * 2000,
        "".join(f"def f{i}(x): return f{i + 1}(x) + f{i + 1}(x)\n" for i in range(200)) + "f0('a')",
        "def f(x): return f(x + 'a')\nf('a')",
        "cmd = []\n" + "cmd.append('a')\n" * 5000 + "import os\nos.system(cmd[0])",
        "import os\n" + "os.system('a')\n" * 30_000,
        "x = 1\n" + "try:\n x = 2\nexcept E:\n x = 3\n" * 5000 + "x()",
        "exec(" * 90 + ")" * 90,
        "# coding: utf-7\n" + "+AAo-" * 20_000,
        "lambda: " * 20_000 + "0",
    ],
    ids=lambda text: text[:24],
)
def test_a_text_made_to_take_long_is_noted_or_refused(text: str) -> None:
    intent = python(text)
    assert [word.text for word in intent.commands[0].words] == ["python3", "x.py"]
    assert len(intent.commands) <= 10_001


def test_an_ordinary_script_starts_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "read", lambda *_: pytest.fail("a child was started"))
    ordinary = "import os\nfor x in os.listdir('.'):\n    print(x.strip(), [len(x)])\n" * 33
    assert python(ordinary).unreadable is None
