"""The shipped sets of rules: each catches and lets pass what it says, and is told in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.analysis import read
from runner.model.action import Exec
from runner.model.decision import Decision, Effect
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.model.rule import OnDoubt, OnUnknown, PolicyLayer
from runner.policy.engine import create
from runner.schema.library import LIBRARY, shipped_rule_sets
from runner.schema.profiles import load_profile

SETS = {name: LIBRARY.load(name) for name in shipped_rule_sets()}
RULES = [(name, each) for name, found in SETS.items() for each in found.rules]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "rule-library.md"


def layer(name: str, on_doubt: OnDoubt) -> PolicyLayer:
    rules = tuple(each.rule for each in SETS[name].rules)
    return PolicyLayer(name, rules, Effect.ALLOW, OnUnknown.DENY, OnUnknown.DENY, on_doubt)


POINTS = {
    (name, on_doubt): create([layer(name, on_doubt)]) for name in SETS for on_doubt in OnDoubt
}


def decided(name: str, text: str, on_doubt: OnDoubt = OnDoubt.PASSES) -> Decision:
    action = Exec(Principal(1000), read(ShellText(text)), "/srv/work/project")
    return POINTS[name, on_doubt].decide(action)


def examples(kind: str) -> list[object]:
    return [
        pytest.param(name, each.rule, text, id=f"{name}/{each.rule.id}: {text}")
        for name, each in RULES
        for text in getattr(each, kind)
    ]


@pytest.mark.parametrize(("name", "rule", "text"), examples("catches"))
def test_what_a_rule_says_that_it_catches(name, rule, text):
    found = {matched.id: matched.effect for matched in decided(name, text).rules}
    assert found.get(rule.id) is rule.effect
    # Where doubt matches as well, what is certain is caught no less.
    assert rule.id in {each.id for each in decided(name, text, OnDoubt.MATCHES).rules}


@pytest.mark.parametrize(("name", "rule", "text"), examples("passes"))
def test_what_a_rule_says_that_it_lets_pass(name, rule, text):
    assert rule.id not in {matched.id for matched in decided(name, text).rules}


@pytest.mark.parametrize(
    ("name", "rule"), RULES, ids=[f"{name}/{each.rule.id}" for name, each in RULES]
)
def test_every_rule_says_why_and_what_to_do_instead(name, rule):
    assert rule.reason, rule.rule.id
    assert rule.rule.message, rule.rule.id
    assert rule.catches, rule.rule.id
    assert rule.passes, rule.rule.id


def test_sets_can_be_taken_together(tmp_path):
    """No two rules of the library share an id."""
    file = tmp_path / "all.yaml"
    names = ", ".join(SETS)
    file.write_text(f"extends: agent\ndescription: All sets\nrules: {{ include: [{names}] }}\n")
    profile = load_profile(str(file))
    assert {each.rule.id for _, each in RULES} <= {rule.id for rule in profile.policy.rules}


def test_the_page_tells_every_set_and_rule():
    told = PAGE.read_text("utf-8")
    sections = re.split(r"(?m)^## ", told)
    for name, found in SETS.items():
        (section,) = [each for each in sections if each.startswith(f"`{name}`")]
        rows = re.findall(r"(?m)^\| `([\w.-]+)` \| (\w+) \| (.*) \|$", section)
        expected = [(r.rule.id, r.rule.effect.value, r.reason) for r in found.rules]
        assert rows == expected, f"docs/rule-library.md, section {name}"
