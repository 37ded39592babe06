"""Conditions in CEL and what could end their runtime: words that are no text, another library."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

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


CLASH = """
import sys
first, second = sys.argv[1:]
__import__(first)
if second:
    __import__(second)
from runner.policy.cel import compile_condition
try:
    condition = compile_condition("labels." + "a" * 40 + " == 'x'")
except ValueError as error:
    sys.exit(str(error))
print(condition.evaluate({"labels": {"b": "c"}}))
"""


@pytest.mark.skipif(find_spec("regopy") is None, reason="the extra [rego] is not installed")
@pytest.mark.parametrize(
    ("first", "second", "told"),
    [("regopy", "", "has loaded regopy before"), ("cel_expr_python.cel", "regopy", "None")],
)
def test_a_library_that_would_abort_the_runtime_is_told(first: str, second: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLASH, first, second], capture_output=True, text=True, check=False
    )
    assert told in done.stdout + done.stderr
    assert done.returncode == (1 if "before" in told else 0)
