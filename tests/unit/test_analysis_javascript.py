"""What JavaScript texts are read to do, with their parser and without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.analysis import foreign, read
from runner.analysis.javascript import reader as javascript
from runner.model.intent import Intent, Word
from runner.model.request import Argv, Script, ShellText

DATA = Path(__file__).parents[1] / "data"
CASES = yaml.safe_load((DATA / "reading/javascript.yaml").read_text(encoding="utf-8"))
LONG = 50_000


def node(text: str) -> Intent:
    return read(Script(text.encode(), "node", ("node",), "x.js"))


def shown(word: Word) -> str:
    return ("?" if word.dynamic else "") + word.text


def commands(intent: Intent) -> list[str]:
    return [" ".join(map(shown, each.words)) for each in intent.commands if each.via]


def constructs(intent: Intent) -> set[str]:
    return {each.name.removeprefix("javascript:") for each in intent.constructs}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_text_is_read_as_its_case_says(case: dict[str, Any]) -> None:
    intent = node(case["text"])
    assert commands(intent) == case.get("commands", [])
    assert [f"{p.access.value} {shown(p.path)}" for p in intent.paths] == case.get("paths", [])
    assert [shown(host) for host in intent.hosts] == case.get("hosts", [])
    assert set(case.get("constructs", [])) <= constructs(intent)
    assert all(each.advice for each in intent.constructs)
    assert intent.unreadable is None


@pytest.mark.parametrize("case", [c for c in CASES if "twin" in c], ids=lambda c: str(c["name"]))
def test_nothing_is_found_in_its_twin(case: dict[str, Any]) -> None:
    intent = node(case["twin"])
    assert (commands(intent), intent.paths, intent.hosts) == ([], (), ())
    assert all(name.startswith("import:") for name in constructs(intent))


@pytest.mark.parametrize(
    "line",
    [
        "node -e '@'", "node --eval='@'", "node --eval '@'", "node -pe '@'", "node -r x -e '@'",
        "bun -e '@'", "deno eval '@'", "deno eval --quiet '@'", "sudo node -e '@'",
        "node <<'E'\n@\nE", "node - <<'E'\n@\nE", "node <<< '@'", "echo '@' | node",
        "printf '@\\n' | nodejs -",
    ],
)  # fmt: skip
def test_on_a_command_line(line: str) -> None:
    text = 'require("child_process").execSync("rm -rf /x")'
    found = commands(read(ShellText(line.replace("@", text))))
    assert "rm -rf /x" in found
    assert "rm -rf /x" not in commands(read(ShellText(line.replace("@", "console.log(1)"))))


def test_a_scripts_input_is_data() -> None:
    text = 'require("child_process").execSync("rm -rf /x")'
    assert commands(read(ShellText(f"node x.js <<'E'\n{text}\nE"))) == []


def test_without_the_parser_literal_commands_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(javascript, "has_parser", lambda: False)
    assert commands(node("require('child_process').execSync('rm -rf /no-parser')")) == [
        "rm -rf /no-parser"
    ]
    assert commands(node("console.log('rm -rf /no-parser')")) == []


def test_a_child_reads_what_is_too_large_for_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "HARMLESS_BYTES", 0)
    assert commands(node("require('child_process').execSync('rm -rf /child')")) == ["rm -rf /child"]


@pytest.mark.parametrize(
    "text",
    ["(" * LONG, "[" * LONG, "`${" * LONG, "a." * LONG, "'a'+" * LONG, "a=" * LONG, "/" * LONG,
     "=>" * LONG, "!" * LONG, "\0" * LONG, "x(" * LONG, "eval('" * LONG, "if(a)" * LONG],
    ids=lambda text: text[:8].encode("unicode_escape").decode(),
)  # fmt: skip
def test_hostile_texts_are_only_noted(text: str) -> None:
    intent = read(Argv(("node", "-e", text)))
    assert [each.words[0].text for each in intent.commands] == ["node"]
    assert intent.unreadable is None
