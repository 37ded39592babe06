"""Texts made to keep a reader or a rule busy: without end, or by the square of their length.

Nothing here measures time: with a pattern that backtracks these tests would not end in hours (the
first), or take minutes.
"""

from __future__ import annotations

import pytest

from runner.analysis import read
from runner.analysis.shell import constants, plain
from runner.analysis.wrappers.unwrap import SUBSCRIPT
from runner.model.action import Exec
from runner.model.decision import Effect
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.principal import Principal
from runner.model.request import Script, ShellText
from runner.model.rule import Match, PolicyLayer, Rule
from runner.policy.engine import create

LONG = 128 * 1024


@pytest.mark.parametrize("end", ["|", ";", "$x", "'", "\\"])
def test_a_text_that_is_nearly_plain_is_given_up_at_once(end: str) -> None:
    assert plain.words("find some/folder/with-a-long-name -type f -print0 " * 100 + end) is None
    assert plain.words("find some/folder/with-a-long-name -type f -print0 " * 100) is not None


def test_an_ordinary_pipe_is_read() -> None:
    text = "find path/to/folder -type f -print0 | sort -z | xargs -0 sha1sum | sha1sum"
    assert len(read(ShellText(text)).commands) == 5


@pytest.mark.parametrize("text", ["a[" * LONG, "[[ " * LONG, "a[\n" * LONG])
def test_many_subscripts(text: str) -> None:
    assert SUBSCRIPT.search(text) is None
    assert bool(SUBSCRIPT.search(text + "a[$(id)")) is True
    source = b"$" + text.encode()
    sure = constants.find(
        {}, source, outermost=True, language="bash", dialect="bash", relied=set()
    )  # fmt: skip
    assert sure("x", 0) == ()


@pytest.mark.parametrize(
    "text",
    [
        "x='" + "a" * LONG + "*'; $x",
        "x='" + " " * LONG + "'; $x",
        "IFS=" * LONG + "; $x",
        "curl -" + "O" * LONG + "! > f; sh f",
        "perl '-" + "i" * LONG + "\n' f; sh f",
        "tar '-" + "o" * LONG + "\n' f; sh f",
        "awk '" + "> " * LONG + "' f; sh f",
        "sed '" + "w " * LONG + "' f; sh f",
        "ls $((1 + $(a '" + '"(' * LONG + "')))",
    ],
)
def test_what_is_written_and_set(text: str) -> None:
    assert len(read(ShellText(text)).commands) < 5 or "w " in text


@pytest.mark.parametrize("language", ["perl", "ruby"])
@pytest.mark.parametrize("text", ['\\"' * LONG, "system" + " " * LONG, "|" + " " * LONG])
def test_other_languages(language: str, text: str) -> None:
    script = Script(('"' + text).encode(), language, (language,), "x")
    assert len(read(script).commands) == 1


@pytest.mark.parametrize("word", ["a" * LONG, "a." * LONG, "a@" * LONG, "/." * LONG, "a:" * LONG])
def test_a_long_word_is_decided(word: str) -> None:
    rules = (Rule("r", Effect.DENY, Match(paths=("**/x",), hosts=("*.x",), args=("*a*b",)), "no"),)
    point = create([PolicyLayer("p", rules, Effect.ALLOW)])
    intent = Intent("bash", (SimpleCommand((Word("ls"), Word(word))),))
    assert point.decide(Exec(Principal(1000), intent, "/srv")).permits
