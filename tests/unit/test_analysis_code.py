"""What is found by patterns in languages that are not parsed, and their harmless twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.analysis import read
from runner.model.intent import Intent, Word
from runner.model.request import Argv, Script, ShellText

DATA = Path(__file__).parents[1] / "data"
CASES = yaml.safe_load((DATA / "reading/code.yaml").read_text(encoding="utf-8"))


def code(language: str, text: str) -> Intent:
    return read(Script(text.encode(), language, (language,), "x"))


def shown(word: Word) -> str:
    return ("?" if word.dynamic else "") + word.text


def commands(intent: Intent) -> list[str]:
    return [" ".join(map(shown, each.words)) for each in intent.commands if each.via]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_text_is_read_as_its_case_says(case: dict[str, Any]) -> None:
    intent = code(case["language"], case["text"])
    assert commands(intent) == case.get("commands", [])
    assert [f"{p.access.value} {shown(p.path)}" for p in intent.paths] == case.get("paths", [])
    found = {each.name for each in intent.constructs}
    assert {f"{case['language']}:{name}" for name in case.get("constructs", [])} <= found
    assert all(each.advice for each in intent.constructs)
    assert intent.unreadable is None


@pytest.mark.parametrize("case", [c for c in CASES if "twin" in c], ids=lambda c: str(c["name"]))
def test_nothing_is_found_in_its_twin(case: dict[str, Any]) -> None:
    intent = code(case["language"], case["twin"])
    assert (commands(intent), intent.paths, intent.constructs) == ([], (), ())


@pytest.mark.parametrize(
    "line",
    [
        "perl -e '@'", "perl -ne '@' x", "perl <<'E'\n@\nE", "perl - <<'E'\n@\nE",
        "echo '@' | perl", "ruby -e '@'", "php -r '@'", "lua -e 'os.execute(\"rm x\")'",
        "awk '@' x", "gawk -e '@' x",
    ],
)  # fmt: skip
def test_on_a_command_line(line: str) -> None:
    assert "rm x" in commands(read(ShellText(line.replace("@", 'system("rm x")'))))
    harmless = line.replace("@", 'print("rm x")').replace("os.execute", "print")
    assert "rm x" not in commands(read(ShellText(harmless)))


@pytest.mark.parametrize("language", ["perl", "ruby", "php", "lua", "awk"])
@pytest.mark.parametrize(
    "text",
    ["`" * 50_001, "q" * 50_000, "qx(" * 20_000, "system(" * 10_000, "'" * 50_001, "[[" * 20_000,
     "|" * 50_000, "system('a'." * 400, "open(" * 10_000, "\\" * 50_000, "%x(" * 20_000],
    ids=lambda text: text[:8].encode("unicode_escape").decode(),
)  # fmt: skip
def test_hostile_texts_are_only_noted(language: str, text: str) -> None:
    intent = code(language, text)
    assert [word.text for word in intent.commands[0].words] == [language, "x"]
    assert intent.unreadable is None
    assert read(Argv((language, "-e", text))).unreadable is None
