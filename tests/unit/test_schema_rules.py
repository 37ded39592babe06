"""Rules as files spell them: what they become, and what is wrong with them and where."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runner.errors import PolicyError
from runner.model.decision import AskTerms, Effect
from runner.model.rule import CountOf, Frequency, Hours, Match, Rewrite, Rule
from runner.policy import cel
from runner.schema.policies import load_policy_file
from runner.schema.profile_file import policy_json_schema, profile_json_schema
from runner.schema.rules import RulesFile

HEAD = "rules:\n  list:\n    - id: r\n      effect: deny\n      message: no\n"


def rules(tmp_path: Path, text: str) -> tuple[Rule, ...]:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return load_policy_file(path).policy.rules


def match(tmp_path: Path, text: str) -> Match:
    (rule,) = rules(tmp_path, f"{HEAD}      match: {text}\n")
    return rule.match


def problem(tmp_path: Path, text: str) -> str:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy_file(path)
    return str(caught.value).replace(f"{path}:", "")


def wrong_match(tmp_path: Path, text: str) -> str:
    return problem(tmp_path, f"{HEAD}      match: {text}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{args_in_order: [push, '-f']}", Match(ordered_args=("push", "-f"))),
        ("{reads: ~/.ssh/*}", Match(reads=("~/.ssh/*",))),
        ("{constructs: 'shell:*'}", Match(constructs=("shell:*",))),
        ("{agents: a*, sessions: s, tenants: [t], uids: 1000}",
         Match(agents=("a*",), sessions=("s",), tenants=("t",), uids=(1000,))),
        ("{labels: {team: 'ops*', env: prod}}", Match(labels=(("env", "prod"), ("team", "ops*")))),
        ("{hours: {from: 22:00, to: 06:00, days: [mon, sun], zone: Europe/Berlin}}",
         Match(hours=(Hours(22 * 60, 6 * 60, (0, 6), "Europe/Berlin"),))),
        ("{hours: [{from: 00:00, to: 24:00, days: fri}, {from: 09:30, to: 10:00}]}",
         Match(hours=(Hours(0, 1440, (4,)), Hours(570, 600)))),
        ("{calls: {of: session, window: 1h, at_least: 100}}",
         Match(frequency=Frequency(CountOf.SESSION, 3600, 100))),
        ("{calls: {window: 90, at_least: 1}}",
         Match(frequency=Frequency(CountOf.AGENT, 90, 1))),
        ("{when: command.name == 'a'}", Match(when="command.name == 'a'")),
        ("{any: [{command: a}, {not: {args: b}}]}",
         Match(any_of=(Match(commands=("a",)), Match(none_of=(Match(args=("b",)),))))),
        ("{all: {paths: /x}, not: [{hosts: h}, {via: v}]}",
         Match(all_of=(Match(paths=("/x",)),),
               none_of=(Match(hosts=("h",)), Match(via=("v",))))),
    ],
)  # fmt: skip
def test_conditions(tmp_path: Path, text: str, expected: Match) -> None:
    assert match(tmp_path, text) == expected


def test_ask_and_rewrite(tmp_path: Path) -> None:
    text = """
rules:
  list:
    - id: ask
      effect: ask
      match: {command: a}
      message: m
      ask: {approvers: [ops-*, "boss@x"], expires: 5m}
    - id: ask-anyone
      effect: ask
      match: {command: a}
      message: m
      ask: {expires: 1h}
    - id: rewrite
      effect: rewrite
      match: {command: pip}
      rewrite: {to: "uv 'a b' {args}", without: --user}
      reason: One resolver for all.
      examples: {catches: pip install x, passes: [uv pip install x]}
"""
    one, two, three = rules(tmp_path, text)
    assert one.ask == AskTerms((("ops-*", "boss@x"),), 300)
    assert two.ask == AskTerms((), 3600)
    assert (three.effect, three.message) == (Effect.REWRITE, "")
    assert three.rewrite == Rewrite(("uv", "a b", "{args}"), ("--user",))


def test_reason_and_examples_are_kept_out_of_the_rule_and_can_be_read() -> None:
    entry = {"id": "r", "effect": "allow", "match": {"command": "a"}}
    told = {**entry, "reason": "why", "examples": {"catches": ["a"], "passes": "b"}}
    plain, full = (RulesFile.model_validate({"list": [each]}).list[0] for each in (entry, told))
    assert plain.to_model() == full.to_model()
    assert full.reason == "why"
    assert (full.examples.catches, full.examples.passes) == (("a",), ("b",))


def test_include_names_rule_sets() -> None:
    assert RulesFile.model_validate({"include": ["disk", "git"]}).include == ("disk", "git")
    with pytest.raises(ValueError, match="small letters"):
        RulesFile.model_validate({"include": ["../x"]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{cmd: a}", "6:15: rules.list[0].match.cmd: unknown key 'cmd'"),
        ("{any: [{comand: a}]}", "6:22: rules.list[0].match.any[0].comand: unknown key 'comand'; "
         "did you mean 'command'?"),
        ("{not: {comand: a}}", "6:21: rules.list[0].match.not.comand: unknown key 'comand'; "
         "did you mean 'command'?"),
        ("{hours: {form: 1}}", "rules.list[0].match.hours.form: unknown key 'form'; "
         "did you mean 'from'? allowed: from, to, days, zone"),
        ("{hours: {from: 25:00, to: 24:00}}", "'25:00' is not a time of day; write it as 09:30"),
        ("{hours: {from: 24:00, to: 24:00}}", "'24:00' is not a time of day; write it as 09:30"),
        ("{hours: {from: 9, to: 24:00}}", "hours.from: is the number 9, must be text"),
        ("{hours: {from: 09:00, to: 10:00, days: [monday]}}", "hours.days[0]: "),
        ("{hours: {from: 09:00, to: 10:00, zone: Europe/Berln}}",
         "hours.zone: unknown time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?"),
        ("{hours: {from: 09:00, to: 10:00, zone: ../../etc/passwd}}", "unknown time zone"),
        ("{hours: []}", "is an empty list"),
        ("{calls: {window: unlimited, at_least: 1}}", "must have an end"),
        ("{calls: {window: 1h, at_least: 0}}", "calls.at_least"),
        ("{calls: {window: 1h, at_least: 1, of: agnt}}",
         "unknown value 'agnt'; did you mean 'agent'?"),
        ("{uids: -1}", "match.uids"),
        ("{uids: true}", "match.uids"),
        ("{uids: []}", "is an empty list"),
        ("{labels: {}}", "match.labels"),
        ("{labels: {a: 1}}", "is the number 1, must be text (put it in quotes)"),
        ("{when: 'command.name =='}", "match.when: is no condition in CEL: line 1, column 16: "),
        ("{when: 'comand.name == 1'}", "undeclared reference to 'comand.name'"),
        ("{when: '1 + 1'}", "comes to INT, must come to true or false"),
        ("{when: ''}", "is empty"),
        ("{any: []}", "is an empty list"),
        ("{any: [{}]}", "6:21: rules.list[0].match.any[0]: states no condition; leave it out"),
        ("{not: {}}", "states no condition; leave it out"),
        ("{}", "states no condition and would match all"),
        ("{constructs: 'shell:*', command: a}",
         "match.constructs: is no part of a command, so it can't hold beside 'command'"),
        ("{any: {constructs: 'shell:*', paths: a}}", "can't hold beside 'paths'"),
    ],
)  # fmt: skip
def test_problems_of_a_match(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in wrong_match(tmp_path, text)


def test_time_zones_can_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.policy.hours.available_timezones", set)
    text = "{hours: {from: 09:00, to: 10:00, zone: Mars/Base}}"
    assert "install tzdata, or use UTC" in wrong_match(tmp_path, text)


def test_nesting_and_size_are_bounded(tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        return "{not: " * depth + "{command: a}" + "}" * depth

    match(tmp_path, nested(8))
    assert "nests more than 8 deep" in wrong_match(tmp_path, nested(9))
    parts = ", ".join(["{command: a}"] * 999)
    match(tmp_path, f"{{any: [{parts}]}}")
    assert "more than 1000 matches" in wrong_match(tmp_path, f"{{any: [{parts}, {{args: b}}]}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("effect: rewrite", "rewrite: is missing; say what to use instead"),
        ("effect: deny\n      message: x\n      rewrite: {to: a}",
         "rewrite: is only for rules with effect: rewrite"),
        ("effect: allow\n      ask: {expires: 1m}", "ask: is only for rules with effect: ask"),
        ("effect: ask", "message: is missing"),
        ("effect: ask\n      message: m\n      ask: {expires: unlimited}", "must have an end"),
        ("effect: rewrite\n      rewrite: {to: ''}", "is empty"),
        ("effect: rewrite\n      rewrite: {to: []}", "is empty"),
        ("effect: rewrite\n      rewrite: {to: \"a 'b\"}", "no closing quotation"),
        ("effect: rewrite\n      rewrite: {to: '{args} a'}", "begin with the command's name"),
        ("effect: rewrite\n      rewrite: {to: 'a {args} {args}'}", "more than once"),
        ("effect: rewrite\n      rewrite: {to: 'a x{args}'}", "must be a word of its own"),
        ("effect: rewrite\n      rewrite: {to: a, wihout: b}", "did you mean 'without'?"),
        ("effect: allow\n      examples: {catch: a}", "did you mean 'catches'?"),
    ],
)  # fmt: skip
def test_problems_of_a_rule(tmp_path: Path, text: str, expected: str) -> None:
    whole = f"rules:\n  list:\n    - id: r\n      match: {{command: a}}\n      {text}\n"
    assert expected in problem(tmp_path, whole)


def test_default_can_not_rewrite(tmp_path: Path) -> None:
    assert "allowed: allow, ask, deny" in problem(tmp_path, "rules: {default: rewrite}")


def test_a_condition_in_cel_needs_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cel.compile_condition.cache_clear()
    cel._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    text = wrong_match(tmp_path, "{when: command.name == 'b'}")
    assert "6:15: rules.list[0].match.when: needs the CEL runtime; install runner-sandbox[cel]" in (
        text
    )


@pytest.mark.parametrize("schema", [profile_json_schema(), policy_json_schema()])
def test_the_published_schema_has_every_key(schema: dict[str, object]) -> None:
    text = json.dumps(schema)
    for key in ("args_in_order", "not", "any", "from", "to", "approvers", "catches", "include"):
        assert f'"{key}"' in text
    assert '"not_"' not in text
