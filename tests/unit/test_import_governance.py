"""Policies of the Agent Governance Toolkit as rules: as there, or stricter, and it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.analysis import read
from runner.errors import PolicyError
from runner.model.action import Exec, Facts
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.model.rule import CountOf
from runner.policy.engine import RulesDecisionPoint, create
from runner.schema.foreign.draft import Draft, Fate
from runner.schema.foreign.governance import import_policy
from runner.schema.policies import load_policy_file

RULES = [
    {"name": "tools", "condition": "tool_name in ['git', 'make']", "action": "allow"},
    {"name": "exact", "condition": "command == 'npm test'", "action": "allow", "priority": 9},
    {"name": "half", "condition": "tool == 'wc' or data.small", "action": "allow"},
    {"name": "both", "condition": "tool == 'cat' and user.ok", "action": "allow"},
    {"name": "push", "condition": "command == 'git push'", "action": "deny"},
    {"name": "off", "condition": "tool == 'git'", "action": "deny", "enabled": False},
    {"name": "late", "condition": "tool == 'git'", "action": "deny", "stage": "post_tool"},
    {"name": "pii", "condition": "data.contains_pii", "action": "deny"},
    {"name": "sure", "condition": "tool == 'make' and data.pii", "action": "require_approval"},
    {"name": "file", "condition": "path == '/etc/passwd'", "action": "warn"},
    {"name": "host", "condition": "host == 'evil.com'", "action": "log"},
]


def draft(tmp_path: Path, *rules: object, **policy: object) -> Draft:
    path = tmp_path / "policy.yaml"
    made = {"apiVersion": "governance.toolkit/v1", "name": "p", "agents": ["*"], "rules": rules}
    path.write_text(json.dumps({**made, **policy}))
    return import_policy(str(path))


def point(tmp_path: Path, *rules: object, **policy: object) -> RulesDecisionPoint:
    made = tmp_path / "made.yaml"
    made.write_text(draft(tmp_path, *rules, **policy).text(layer=True))
    return create((load_policy_file(made).policy,))


def effect(point: RulesDecisionPoint, text: str, agent: str = "me", facts: Facts | None = None):
    principal = Principal(uid=1000, agent=agent)
    action = Exec(principal, read(ShellText(text)), "/home/bob/project", facts=facts or Facts())
    return point.decide(action).effect.value


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("allow", "git status"),
        ("deny", "git push"),
        ("allow", "git push origin"),
        ("deny", "git $x"),
        ("ask", 'wc "$x"'),
        ("allow", "npm test"),
        ("deny", "npm test -- x"),
        ("allow", "wc x"),
        ("deny", "cat x"),
        ("ask", "make"),
        ("deny", "wc /etc/passwd"),
        ("deny", "wc http://evil.com/x"),
        ("deny", "ls"),
        ("deny", "$x"),
        ("deny", "if ("),
    ],
)
def test_what_the_rules_decide(tmp_path, expected, text):
    assert effect(point(tmp_path, *RULES), text) == expected


def test_each_rule_that_is_not_the_same_is_named(tmp_path):
    told: dict[str, set[Fate]] = {}
    for note in draft(tmp_path, *RULES).notes:
        told.setdefault(note.source, set()).add(note.fate)
    assert told == {
        "tools": {Fate.STRICTER},  # a denial behind it wins
        "exact": {Fate.STRICTER},
        "half": {Fate.LEFT_OUT, Fate.STRICTER},
        "both": {Fate.LEFT_OUT, Fate.STRICTER},
        "off": {Fate.LEFT_OUT},
        "late": {Fate.LOOSER},
        "pii": {Fate.LOOSER},
        "sure": {Fate.STRICTER},
    }


def test_agents_and_the_default(tmp_path):
    rule = {"name": "rm", "condition": "tool == 'rm'", "action": "deny"}
    mine = point(tmp_path, rule, agents=["me", "a*"], default_action="allow")
    decided = [effect(mine, "ls", agent) for agent in ("me", "a*", "ab", "you")]
    assert decided == ["allow", "allow", "deny", "deny"]
    assert effect(mine, "rm x") == "deny"
    everyone = point(tmp_path, rule, default_action="allow")
    texts = ("ls", "rm x", "$x")
    assert [effect(everyone, text) for text in texts] == ["allow", "deny", "ask"]


def test_a_limit_counts_runs(tmp_path):
    rule = {"name": "g", "condition": "tool == 'git'", "action": "allow", "limit": "3/hour"}
    limited = point(tmp_path, rule)
    key = (CountOf.AGENT, 3600.0)
    decided = [effect(limited, "git x", facts=Facts(runs={key: n})) for n in (0, 2, 3)]
    assert decided == ["allow", "allow", "deny"]
    assert [note.fate for note in draft(tmp_path, rule).notes] == [Fate.LOOSER]
    assert effect(point(tmp_path, {**rule, "limit": "0/day"}), "git x") == "deny"


def test_approvers_are_asked(tmp_path):
    rule = {"name": "m", "condition": "tool == 'make'", "action": "require_approval"}
    made = tmp_path / "made.yaml"
    made.write_text(draft(tmp_path, {**rule, "approvers": ["lead*"]}).text(layer=True))
    (asks,) = load_policy_file(made).policy.rules
    assert asks.ask is not None
    assert asks.ask.approvers == ((r"lead\*",),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "policy.yaml"),
        ("- 1", "is no policy"),
        ("", "is no policy"),
        ("name: p\nagents: [a]\napiVersion: v9\n", "apiVersion"),
        ("agents: [a]\n", "name"),
        ("name: p\n", "names no agent"),
        ("name: p\nagents: [a]\nextends: base.yaml\n", "extends other policies"),
        ("name: p\nagents: [a]\nrules: [{name: x, condition: y, action: maybe}]\n", "action"),
        ("name: p\nagents: [a]\nrules: [{name: x}]\n", "condition"),
        ("name: p\nagents: [a]\nrules: [{name: x, condition: y, limit: 3/week}]\n", "limit"),
        ("name: p\nagents: [a]\nruels: []\n", "ruels"),
        ("name: p\nname: q\n", "name"),
    ],
)
def test_what_is_no_policy_is_refused_in_a_sentence(tmp_path, content, told):
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    with pytest.raises(PolicyError, match=told) as caught:
        import_policy(str(path))
    assert "\n" not in str(caught.value)


HOSTILE = st.text(st.sampled_from("ab*?[]\\\"'\n\x85 :#{}&|~/-=%$"), min_size=1, max_size=12)
KEYS = st.sampled_from(["tool", "command", "path", "host", "x.y"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(KEYS, HOSTILE), min_size=1, max_size=3), HOSTILE)
def test_whatever_a_rule_holds_the_file_loads(tmp_path_factory, atoms, name):
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    condition = " or ".join(f"{key} == '{value}'" for key, value in atoms)
    rules = [
        {"name": name, "description": name, "condition": condition, "action": action}
        for action in ("allow", "deny", "require_approval", "log")
    ]
    made = draft(folder, *rules, agents=[name])
    (folder / "made.yaml").write_text(made.text(layer=True))
    layer = load_policy_file(folder / "made.yaml").policy
    assert [rule.id for rule in layer.rules] == [rule["id"] for _, rule in made.rules]
