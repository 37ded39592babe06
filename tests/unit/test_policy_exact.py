"""Rules on all arguments of a command, one by one."""

from __future__ import annotations

import pytest

from runner.analysis import read
from runner.model.action import Exec
from runner.model.decision import Effect
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.model.rule import Match, PolicyLayer, Rule
from runner.policy.engine import create


def decided(text: str, effect: Effect, patterns: tuple[str, ...]) -> Effect:
    rule = Rule("r", effect, Match(commands=("tool",), exact_args=patterns), "message")
    other = Effect.DENY if effect is Effect.ALLOW else Effect.ALLOW
    point = create([PolicyLayer("p", (rule,), other)])
    return point.decide(Exec(Principal(1000), read(ShellText(text)), "/srv")).effect


@pytest.mark.parametrize(
    ("patterns", "text", "sure", "possible"),
    [
        (("push", "**"), "tool push", True, True),
        (("push", "**"), "tool push -f origin main", True, True),
        (("push", "**"), "tool -C x push", False, False),
        (("push", "**"), "tool add push", False, False),
        (("push", "**"), "tool", False, False),
        (("push", "**"), 'tool push "$x" $y *', True, True),
        (("push", "**"), "tool $x", False, True),
        (("push", "**"), 'tool "$x"', False, True),
        (("push", "**"), 'tool "a$x"', False, False),
        (("push", "**"), 'tool "pu$x"', False, True),
        (("push",), "tool push", True, True),
        (("push",), "tool push origin", False, False),
        (("push",), "tool push $x", False, True),
        (("push",), 'tool push "$x"', False, False),
        (("*", "*", "main"), "tool push origin main", True, True),
        (("*", "*", "main"), 'tool push "$x" main', True, True),
        (("*", "*", "main"), "tool push $x main", False, True),
        (("*", "**", "main"), "tool push main", True, True),
        (("*", "**", "main"), "tool push -f origin main", True, True),
        (("*", "**", "main"), "tool main", False, False),
        (("**", "--version"), "tool --version", True, True),
        (("**", "--version"), "tool a b --version", True, True),
        (("**", "--version"), "tool --version a", False, False),
        (("**",), "tool", True, True),
        (("-r",), "tool -rf", False, False),
    ],
)
def test_exactly_these_arguments(
    patterns: tuple[str, ...], text: str, sure: bool, possible: bool
) -> None:
    """An allow wants them surely, a deny is content with what could be."""
    assert (decided(text, Effect.ALLOW, patterns) is Effect.ALLOW) == sure
    assert (decided(text, Effect.DENY, patterns) is Effect.DENY) == possible


def test_many_words_are_taken_in_one_go() -> None:
    rule = Rule("r", Effect.DENY, Match(exact_args=("**", "a", "**", "a", "**", "b")), "m")
    point = create([PolicyLayer("p", (rule,), Effect.ALLOW)])
    words = (Word("tool"), *[Word("a")] * 50_000)
    intent = Intent("bash", (SimpleCommand(words),))
    assert point.decide(Exec(Principal(1000), intent, "/srv")).effect is Effect.ALLOW
