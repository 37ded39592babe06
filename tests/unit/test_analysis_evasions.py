"""Every way of hiding a command that we know of is found; its harmless twin passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runner.analysis import read
from runner.model.action import Exec
from runner.model.decision import Decision, Effect
from runner.model.intent import SimpleCommand
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.model.rule import Match, OnUnknown, PolicyLayer, Rule
from runner.policy.engine import create

CASES = yaml.safe_load(
    (Path(__file__).parents[1] / "data/reading/evasions.yaml").read_text(encoding="utf-8")
)
FORBIDDEN, HARMLESS = "rm -rf /etc", "ls -l src"
LAYER = PolicyLayer(
    name="test",
    rules=(
        Rule("no-rm", Effect.DENY, Match(("rm",), args=("-r",), paths=("/", "/etc/**")), "no"),
        Rule("no-reboot", Effect.DENY, Match(("reboot",)), "no"),
        Rule("no-etc", Effect.DENY, Match(writes=("/etc/**", "~/.bashrc")), "no"),
        Rule("no-preload", Effect.DENY, Match(environment=("LD_*",)), "no"),
    ),
    default=Effect.ALLOW,
    on_dynamic=OnUnknown.DENY,
    on_unreadable=OnUnknown.DENY,
)
POINT = create([LAYER])


def texts(case: dict[str, str]) -> tuple[str, str]:
    if "wrap" in case:
        return case["wrap"].replace("@@", FORBIDDEN), case["wrap"].replace("@@", HARMLESS)
    return case["hidden"], case["plain"]


def decide(text: str, language: str) -> tuple[Decision, tuple[SimpleCommand, ...]]:
    intent = read(ShellText(text, language))
    action = Exec(Principal(1000), intent, workspace="/srv/work/project")
    return POINT.decide(action), intent.commands


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_hidden_is_denied_and_its_twin_allowed(case: dict[str, str]) -> None:
    hidden, plain = texts(case)
    language = case.get("language", "bash")
    denied, commands = decide(hidden, language)
    assert denied.effect is Effect.DENY, commands
    allowed, commands = decide(plain, language)
    assert allowed.effect is Effect.ALLOW, (allowed.reason, commands)


@pytest.mark.parametrize("case", [c for c in CASES if "wrap" in c], ids=lambda c: str(c["name"]))
def test_command_is_found_word_for_word(case: dict[str, str]) -> None:
    intent = read(ShellText(case["wrap"].replace("@@", FORBIDDEN), case.get("language", "bash")))
    found = [c for c in intent.commands if [w.text for w in c.words[:3]] == FORBIDDEN.split()]
    assert found, intent.commands
    if "via" in case:
        assert found[0].via == tuple(case["via"])


def test_every_reading_probe_has_a_case() -> None:
    assert {case["probe"] for case in CASES if "probe" in case} == set(range(106, 117))
