"""What `explain` tells is what deciding does."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_policy_lint import actions, policies

from runner.analysis import read
from runner.model.action import Exec, Facts
from runner.model.decision import STRICTNESS, Effect
from runner.model.place import Place
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.model.rule import CountOf, Frequency, Hours, Match, OnUnknown, PolicyLayer, Rule
from runner.policy.cases import Result
from runner.policy.engine import RulesDecisionPoint
from runner.policy.explain import explain
from runner.policy.hold import Hold
from runner.schema.profiles import load_profile
from runner.surfaces.cli.junit import junit_document

WHO = Principal(1000, "builder", "boss")


def asked(text: str, **facts: object) -> Exec:
    return Exec(WHO, read(ShellText(text)), "/workspace", (), (("k", "v"),), "p", Facts(**facts))


def point(*rules: Rule, default: Effect = Effect.ALLOW) -> RulesDecisionPoint:
    layer = PolicyLayer("profile:p", rules, default, OnUnknown.DENY, OnUnknown.DENY)
    return RulesDecisionPoint([layer])


def deny(**match: object) -> Rule:
    return Rule("no", Effect.DENY, Match(**match), "Don't.")


@settings(max_examples=40)
@given(policies(), st.lists(actions(), min_size=1, max_size=3))
def test_parts_and_obstacles_agree_with_the_decision(both, tried):
    decisions = RulesDecisionPoint(both)
    for action in tried:
        decision = decisions.decide(action)
        found = explain(decisions, action, every=True)
        strictest = max(
            (
                STRICTNESS[part.said.effect]
                for part in found.parts
                if part.said is not None and not (decision.enforced and part.said.observed)
            ),
            default=0,
        )
        if decision.enforced and decision.effect is not Effect.REWRITE:
            # Rules that want different commands in one place are a denial of the whole.
            assert strictest == STRICTNESS[decision.effect] or decision.effect is Effect.DENY
        assert (found.then is Effect.ALLOW) or found.obstacles or not decision.rules
        for part in found.parts:
            for change in part.changes:
                assert change
            for rule in part.rules:
                holds = [reason.hold for reason in rule.reasons]
                if rule.hold is Hold.SURELY:
                    assert Hold.NO not in holds


def test_the_word_that_made_it_is_told():
    rule = deny(
        commands=("rm",), args=("-r",), any_args=("x*", "y"), paths=("/etc/**",),
        agents=("boss",), labels=(("k", "*"),), hours=(Hours(0, 1440),),
        frequency=Frequency(CountOf.AGENT, 60.0, 2), none_of=(Match(via=("sudo",)),),
    )  # fmt: skip
    action = asked("rm -rf xx /etc/a", now_s=0.0, runs={(CountOf.AGENT, 60.0): 3})
    (part,) = explain(point(rule), action).parts
    told = {reason.key: reason.because for reason in part.rules[0].reasons}
    assert told == {
        "command": ("rm",),
        "args": ("-rf",),
        "any_args": ("xx",),
        "paths": ("/etc/a",),
        "agents": ("boss",),
        "labels": ("k=v",),
        "hours": ("Thursday 00:00 UTC",),
        "calls": ("3 runs",),
        "not": (),
    }


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("rm -r x /etc/a", ["leave out -r", "leave out /etc/a", "use another command than 'rm'"]),
        ("sudo rm -r x", ["run 'rm -r x' by itself, without sudo", "use another command"]),
        ('rm -r "$x"', ['write what it stands for in place of "$x"', "leave out -r", "leave out",
                        "use another"]),
        ("echo > /etc/a", ["leave out the redirection that writes /etc/a"]),
        ("A=1 make", ["leave out A=…"]),
        ("sudo x > /etc/a", ["run 'x' by itself, without sudo, and leave out the redirection",
                             "leave out the redirection"]),
    ],
)  # fmt: skip
def test_the_least_changes_that_would_do(text, changes):
    rules = [
        replace(deny(commands=("rm",), args=("-r",), paths=("/etc/**",)), id="a"),
        replace(deny(commands=("sudo",)), id="b"),
        replace(deny(writes=("/etc/**",)), id="c"),
        replace(deny(environment=("A",)), id="d"),
    ]
    if text.startswith("rm"):
        rules.pop(2)
    parts = explain(point(*rules), asked(text)).parts
    found = next(part.changes for part in parts if part.refused)
    assert len(found) == len(changes), found
    assert all(told.startswith(start) for told, start in zip(found, changes, strict=True)), found


def test_obstacles_are_found_one_behind_the_other():
    rules = [replace(deny(commands=("rm",)), id="first"),
             replace(deny(commands=("rm",)), id="second", effect=Effect.ASK)]  # fmt: skip
    found = explain(point(*rules, default=Effect.ASK), asked("rm x"))
    assert [each.rule for each in found.obstacles] == ["first", "second", "default"]
    assert found.then is Effect.ALLOW
    stuck = explain(point(), asked("$x"))
    assert [each.rule for each in stuck.obstacles] == ["on_dynamic"]
    assert stuck.then is Effect.DENY


def test_a_hostile_text_is_explained_within_bounds():
    profile = load_profile("locked")
    decisions = RulesDecisionPoint([profile.policy])
    many = asked("; ".join(f"sudo rm -rf $x {n} > /etc/passwd" for n in range(400)))
    found = explain(decisions, many)
    assert len(found.parts) == 800
    assert sum(bool(part.changes) for part in found.parts) <= 3
    wide = asked("sudo rm -rf " + " ".join(f'"$x{n}"' for n in range(500)))
    assert explain(decisions, wide).parts


def test_junit_holds_whatever_a_case_is_called():
    odd = "a\x00\x1b[2J\udcff]]>&<\ufffe é"
    results = [Result(odd, "f.yaml", Place("f.yaml", 3), (odd,)), Result("b", "g", Place("g", 1))]
    root = ET.fromstring(junit_document(results))
    assert [suite.get("tests") for suite in root] == ["1", "1"]
    failure = root[0][0].find("failure")
    assert failure.get("message").startswith("a\ufffd\ufffd[2J\ufffd]]>&<\ufffd é")
    assert root[0][0].get("line") == "3"
