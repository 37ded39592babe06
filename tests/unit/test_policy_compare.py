"""Logged decisions, read back and counted."""

from __future__ import annotations

import json

import pytest

from runner import records
from runner.audit.event import NO_PREVIOUS, seal
from runner.errors import StateError
from runner.intake import build_request
from runner.model.decision import Decision, Effect, MatchedRule
from runner.model.intent import Intent
from runner.model.request import Argv, Script, ShellText
from runner.model.rule import CountOf
from runner.policy.compare import (
    History,
    Logged,
    Undecidable,
    is_observed,
    logged_decision,
    observed,
    program_of,
)
from runner.records import program_to_keep

AT_S = 1_750_000_000.25
RULE = MatchedRule("no-x", "profile:p", Effect.DENY, "Don't.", "x")


def event(tmp_path, *, run: bool = True, enforced: bool = True, at_s: float = AT_S, **asked):
    request = build_request(cwd=tmp_path, **asked)
    decision = Decision(Effect.DENY, "no", "sha256:00", (RULE,), enforced=enforced)
    made = records.checked(request, Intent("x"), decision)
    if run:
        made = records.decided(
            "run-1", request, intent=Intent("x"), decision=decision, spec=None, backend="fake"
        )
    return json.loads(seal(made, 7, at_s, NO_PREVIOUS).body)


def nothing(_logged: Logged) -> tuple[bytes, ...]:
    return ()


@pytest.mark.parametrize(
    "asked",
    [
        {"argv": ["echo", "\udcff\ufffd", ""]},
        {"shell": "echo '\udcff' \ufffd && x", "language": "sh"},
    ],
)
def test_a_program_comes_back_to_the_byte(tmp_path, asked):
    logged = logged_decision(
        event(tmp_path, agent="a", parent="b", tenant="t\ufffd", env={"A": "1"},
              labels={"k": "v"}, **asked)
    )  # fmt: skip
    program = program_of(logged, nothing)
    assert program == build_request(cwd=tmp_path, **asked).program
    request = logged.request(program)
    assert request.principal.parent == "b"
    assert request.principal.tenant == "t\ufffd"
    assert (request.labels, request.environment) == ((("k", "v"),), (("A", ""),))
    assert (logged.at_s, logged.seq, logged.run_id) == (AT_S, 7, "run-1")
    assert isinstance(program, Argv | ShellText)


def test_what_the_log_does_not_hold_is_not_guessed(tmp_path):
    long = logged_decision(event(tmp_path, shell="x" * 20_000))
    with pytest.raises(Undecidable, match="beginning of a very long"):
        program_of(long, nothing)
    words = logged_decision(event(tmp_path, argv=["echo", *["x" * 1000] * 30]))
    with pytest.raises(Undecidable, match="beginning of a very long"):
        program_of(words, nothing)
    code = logged_decision(event(tmp_path, code="print(1)", language="python"))
    with pytest.raises(Undecidable, match="had no file"):
        program_of(code, nothing)
    (tmp_path / "a.py").write_text("print(1)")
    script = logged_decision(event(tmp_path, script="a.py", args=["x"]))
    for contents in ((), (b"print(2)", b"")):
        with pytest.raises(Undecidable, match="gone or changed"):
            program_of(script, lambda _, contents=contents: contents)
    found = program_of(
        script, lambda each: (b"print(2)", (tmp_path / each.program["path"]).read_bytes())
    )
    assert isinstance(found, Script)
    assert (found.args, found.language, found.content) == (("x",), "python", b"print(1)")


@pytest.mark.parametrize(
    "asked",
    [
        {"shell": "echo \udcff; " + "x" * 20_000},
        {"argv": ["echo", "\udcff", "\ufffd", *["x" * 1000] * 30]},
        {"code": b"print('\xff\r\n')", "language": "python"},
    ],
)
def test_what_is_kept_of_a_program_is_what_its_digest_is_over(tmp_path, asked):
    program = build_request(cwd=tmp_path, **asked).program
    kept = program_to_keep(program)
    assert kept is not None
    logged = logged_decision(event(tmp_path, **asked))
    assert program_of(logged, lambda _: (b"", kept)) == program
    with pytest.raises(Undecidable):
        program_of(logged, lambda _: (kept + b" ",))


def test_what_the_log_holds_whole_is_not_kept_again(tmp_path):
    for asked in ({"shell": "x" * 16_000}, {"argv": ["echo", "x" * 16_000]}):
        assert program_to_keep(build_request(cwd=tmp_path, **asked).program) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e.pop("data"),
        lambda e: e["data"].pop("program"),
        lambda e: e["data"]["program"].update(kind="tool"),
        lambda e: e["data"]["program"].pop("sha256"),
        lambda e: e["data"]["decision"].update(effect="maybe"),
        lambda e: e["data"]["decision"].update(rules=[{}]),
        lambda e: e["data"]["decision"].update(observed=[{"id": "x", "layer": "y"}]),
        lambda e: e.update(principal=None),
        lambda e: e.update(time="noon"),
    ],
)
def test_a_strange_event_is_refused_by_its_number(tmp_path, spoil):
    strange = event(tmp_path, argv=["x"])
    spoil(strange)
    with pytest.raises(StateError, match="event 7 does not hold a decision"):
        logged_decision(strange)


def test_an_event_from_before_a_field_was_added_is_read(tmp_path):
    older = event(tmp_path, argv=["x"])
    for field in ("rewrite", "ask"):
        older["data"]["decision"].pop(field)
    older["data"].pop("terminal")
    assert logged_decision(older).shown == "x"


def test_earlier_runs_are_counted_as_the_store_counts(tmp_path):
    def at(seconds: float, agent: str, **more):
        options = {"parent": None, "session": None, "tenant": None, "run": True, **more}
        return logged_decision(
            event(tmp_path, argv=["x"], agent=agent, at_s=AT_S + seconds, **options)
        )

    history = History()
    for each in (at(0, "a"), at(5, "b", parent="a", session="s"), at(6, "a", parent="a"),
                 at(7, "c", run=False), at(2, "c", tenant="t")):  # fmt: skip
        history.take(each)
    keys = [(of, window) for of in CountOf for window in (10.0, 4.5)]

    def counted(agent: str, **more) -> dict:
        runs = history.facts(at(10, agent, **more), keys).runs
        return {of.value: (runs[of, 10.0], runs[of, 4.5]) for of in CountOf}

    assert counted("a")["agent"] == (3, 1)  # those that it started are its own
    assert counted("b")["agent"] == (1, 0)
    assert counted("c")["agent"] == (1, 0)
    assert counted("b", parent="a")["parent"] == (3, 1)
    assert counted("a")["parent"] == (0, 0)
    assert counted("a", session="s")["session"] == (1, 0)
    assert counted("a", tenant="t")["tenant"] == (1, 0)
    assert counted("z")["all"] == counted("z")["uid"] == (4, 1)
    assert counted("z")["agent"] == (0, 0)


def test_what_was_observed_is_by_rule_and_the_most_frequent_first(tmp_path):
    logged = [
        logged_decision(event(tmp_path, argv=["x", str(n)], agent=agent, enforced=False))
        for n, agent in enumerate("aba")
    ]
    logged.append(logged_decision(event(tmp_path, argv=["y"])))
    (found,) = observed(logged)
    assert (found.rule, found.times, found.agents) == ("no-x", 3, ("a", "b"))
    assert found.example.shown == "x 2"
    assert found.matched == (("x", 3),)


def test_a_rule_that_is_observed_counts_where_it_would_have_changed_something(tmp_path):
    def told(effect: str, *rules: tuple[str, str, str]) -> object:
        made = event(tmp_path, argv=["x"])
        made["data"]["decision"] |= {
            "effect": effect,
            "rules": [],
            "observed": [
                {"id": name, "layer": "l", "effect": what, "matched": text}
                for name, what, text in rules
            ],
        }
        return logged_decision(made)

    logged = [
        told("allow", ("a", "deny", "x 1"), ("a", "deny", "x 2"), ("b", "ask", "x 1")),
        told("ask", ("a", "deny", "x 1"), ("b", "ask", "x 1")),
        told("deny", ("a", "deny", "x 3")),
    ]
    assert [is_observed(each) for each in logged] == [True, True, False]
    found = {each.rule: (each.times, each.matched) for each in observed(logged)}
    assert found == {"a": (2, (("x 1", 2), ("x 2", 1))), "b": (1, (("x 1", 1),))}
