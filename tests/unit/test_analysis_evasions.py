"""Every way of hiding a command that we know of is found; its harmless twin passes."""

from __future__ import annotations

import re
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
from runner.policy.engine import RulesDecisionPoint, create
from runner.schema.profiles import load_profile

DATA = Path(__file__).parents[1] / "data/reading"
OWN = yaml.safe_load((DATA / "evasions.yaml").read_text(encoding="utf-8"))
ISSUES = yaml.safe_load((DATA / "issues.yaml").read_text(encoding="utf-8"))
CASES = [*OWN, *ISSUES]
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
AGENT = create([load_profile("agent").policy])
AGENT_DECIDES = {
    "passes both": (True, True), "denies both": (False, False), None: (False, True),
}  # fmt: skip
"""Whether `agent` permits what is hidden and its harmless twin, by a case's `agent`."""
SOURCE = re.compile(r"[\w.-]+/[\w.-]+#\d+|[\w.-]+/[\w.-]+:[\w./-]+|https://\S+")


def texts(case: dict[str, str]) -> tuple[str, str]:
    if "wrap" in case:
        return case["wrap"].replace("@@", FORBIDDEN), case["wrap"].replace("@@", HARMLESS)
    return case["hidden"], case["plain"]


def decide(
    text: str, language: str, point: RulesDecisionPoint = POINT
) -> tuple[Decision, tuple[SimpleCommand, ...]]:
    intent = read(ShellText(text, language))
    action = Exec(Principal(1000), intent, workspace="/srv/work/project")
    return point.decide(action), intent.commands


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_hidden_is_denied_and_its_twin_allowed(case: dict[str, str]) -> None:
    hidden, plain = texts(case)
    language = case.get("language", "bash")
    point = AGENT if case.get("profile") == "agent" else POINT
    denied, commands = decide(hidden, language, point)
    assert denied.effect is Effect.DENY, commands
    allowed, commands = decide(plain, language, point)
    assert allowed.effect is Effect.ALLOW, (allowed.reason, commands)


@pytest.mark.parametrize("case", [c for c in CASES if "wrap" in c], ids=lambda c: str(c["name"]))
def test_command_is_found_word_for_word(case: dict[str, str]) -> None:
    intent = read(ShellText(case["wrap"].replace("@@", FORBIDDEN), case.get("language", "bash")))
    found = [c for c in intent.commands if [w.text for w in c.words[:3]] == FORBIDDEN.split()]
    assert found, intent.commands
    if "via" in case:
        assert found[0].via == tuple(case["via"])


@pytest.mark.parametrize("case", ISSUES, ids=[case["name"] for case in ISSUES])
def test_agent_decides_as_is_stated(case: dict[str, str]) -> None:
    decided = tuple(decide(text, "bash", AGENT)[0].permits for text in texts(case))
    assert decided == AGENT_DECIDES[case.get("agent")]


def test_each_way_from_an_issue_names_where_it_is_from() -> None:
    sources = [case["source"] for case in ISSUES if "source" in case]
    assert len(sources) >= 150
    assert [source for source in sources if not SOURCE.fullmatch(source)] == []


def test_no_case_stands_twice() -> None:
    assert len({case["name"] for case in ISSUES}) == len(ISSUES)
    own = {texts(case)[0] for case in OWN}
    assert [case["name"] for case in ISSUES if texts(case)[0] in own] == []
    assert len({texts(case)[0] for case in ISSUES}) == len(ISSUES)


def test_every_reading_probe_has_a_case() -> None:
    assert {case["probe"] for case in CASES if "probe" in case} == set(range(106, 117))
