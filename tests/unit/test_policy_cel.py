"""Conditions in CEL on words that are no text: they can't be evaluated, and nothing ends for it."""

from __future__ import annotations

import pytest

from runner.model.action import Exec
from runner.model.decision import Effect
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.principal import Principal
from runner.model.rule import Match, PolicyLayer, Rule
from runner.policy.engine import create

pytest.importorskip("cel_expr_python", reason="the extra [cel] is not installed")

NO_TEXT = ["\udc80", "a\udcffb", "\ud800"]
WHEN = ["command.name == 'x'", "'x' in command.args", "principal.agent == 'x'", "labels.a == 'x'"]


def decided(effect: Effect, when: str, text: str) -> Effect:
    other = Effect.DENY if effect is Effect.ALLOW else Effect.ALLOW
    layer = PolicyLayer("p", (Rule("r", effect, Match(when=when), "no"),), other)
    command = SimpleCommand((Word(text), Word(text)))
    who = Principal(1000, agent=text)
    action = Exec(who, Intent("argv", (command,)), "/srv", labels=(("a", text), (text, "b")))
    return create([layer]).decide(action).effect


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("text", NO_TEXT)
def test_what_is_no_text_is_not_evaluated(when: str, text: str) -> None:
    assert decided(Effect.DENY, when, text) is Effect.DENY
    assert decided(Effect.ALLOW, when, text) is Effect.DENY


@pytest.mark.parametrize("when", WHEN)
def test_what_is_text_is(when: str) -> None:
    assert decided(Effect.DENY, when, "x") is Effect.DENY
    assert decided(Effect.DENY, when, "ü") is Effect.ALLOW
    assert decided(Effect.ALLOW, when, "x") is Effect.ALLOW
