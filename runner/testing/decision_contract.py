"""What every decision point must do. A decision point exists once it passes this suite.

    class TestMyPoint(DecisionPointContract):
        def make_open(self) -> DecisionPoint:
            return my_point.create("allow everything")

        def make_without_rm(self) -> DecisionPoint:
            return my_point.create("allow everything but the command rm")

pytest finds the `test_` methods of the subclass; nothing here imports pytest.
"""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from runner.model.action import Action, Connect, Exec, Facts, Request, Tool
from runner.model.decision import Decision, Effect
from runner.model.intent import (
    Access,
    Assignment,
    Construct,
    Intent,
    PathUse,
    SimpleCommand,
    Word,
)
from runner.model.principal import Principal
from runner.ports import DecisionPoint

CODER = Principal(uid=1000, agent="coder", session="s", tenant="acme")
NOON_S = 1_764_072_000.0
"""2025-11-25T12:00:00Z."""
_THREADS = 4
_ROUNDS = 5


def exec_of(*commands: str, **changes: Any) -> Exec:
    """An action that runs these commands, their words split at spaces, each of them literal."""
    return Exec(
        principal=changes.pop("principal", CODER),
        intent=Intent(
            "bash",
            tuple(SimpleCommand(tuple(map(Word, text.split()))) for text in commands),
            unreadable=changes.pop("unreadable", None),
        ),
        workspace="/srv/work",
        profile="agent",
        facts=Facts(NOON_S),
        **changes,
    )


class DecisionPointContract(ABC):
    """Subclass it and say how to make a point."""

    @abstractmethod
    def make_open(self) -> DecisionPoint:
        """One that allows every action of which all is known, for every agent."""

    @abstractmethod
    def make_without_rm(self) -> DecisionPoint:
        """The same, but for the command `rm`, which it denies."""

    def test_a_plain_command_is_allowed(self) -> None:
        for point in (self.make_open(), self.make_without_rm()):
            decision = point.decide(exec_of("ls -l src"))
            _true(decision.effect is Effect.ALLOW and decision.permits, decision.reason)

    def test_what_the_policy_denies_is_denied_and_told(self) -> None:
        point = self.make_without_rm()
        for words in ("rm notes.txt", "/bin/rm -rf build", "rm"):
            decision = point.decide(exec_of(words))
            _same(decision.effect, Effect.DENY)
            _true("rm" in decision.reason, decision.reason)
            _true(bool(decision.rules), "the rule that matched is named")
        _same(self.make_open().decide(exec_of("rm notes.txt")).effect, Effect.ALLOW)

    def test_each_command_is_asked_about_by_itself(self) -> None:
        point = self.make_without_rm()
        _same(point.decide(exec_of("ls", "rm x", "pwd")).effect, Effect.DENY)
        _same(point.decide(exec_of("ls", "pwd")).effect, Effect.ALLOW)
        _same(point.decide(exec_of("echo rm")).effect, Effect.ALLOW)

    def test_a_name_that_only_running_would_tell_is_not_allowed(self) -> None:
        for point in (self.make_open(), self.make_without_rm()):
            for name in (Word("$tool", True), Word("rm*", True, "rm"), Word("$(echo rm)", True)):
                intent = Intent("bash", (SimpleCommand((name, Word("x"))),))
                decision = point.decide(replace(exec_of("ls"), intent=intent))
                _true(decision.effect in {Effect.DENY, Effect.ASK}, decision.reason)

    def test_what_can_not_be_read_is_not_allowed(self) -> None:
        for point in (self.make_open(), self.make_without_rm()):
            for action in (exec_of(unreadable="it ends early"), exec_of("ls", unreadable="no")):
                decision = point.decide(action)
                _true(decision.effect in {Effect.DENY, Effect.ASK}, decision.reason)

    def test_a_parent_is_asked_about_like_its_agent(self) -> None:
        child = replace(CODER, agent="child", parent="lead")
        _same(self.make_open().decide(exec_of("ls", principal=child)).effect, Effect.ALLOW)
        decision = self.make_without_rm().decide(exec_of("rm x", principal=child))
        _same(decision.effect, Effect.DENY)

    def test_the_digest_is_the_policy_s(self) -> None:
        opened, closed = self.make_open(), self.make_without_rm()
        for point in (opened, closed):
            _true(re.fullmatch(r"sha256:[0-9a-f]{64}", point.digest) is not None, point.digest)
            _same(point.decide(exec_of("ls")).policy_digest, point.digest)
            _same(point.decide(exec_of(unreadable="x")).policy_digest, point.digest)
        _same(self.make_open().digest, opened.digest)
        _true(opened.digest != closed.digest, "another policy has another digest")

    def test_the_same_action_gets_the_same_answer(self) -> None:
        point = self.make_without_rm()
        for action in (exec_of("ls"), exec_of("rm x", "ls"), exec_of(unreadable="x")):
            first = point.decide(action)
            for _ in range(_ROUNDS):
                _same(point.decide(action), first)

    def test_an_answer_is_enforced_and_whole(self) -> None:
        point = self.make_without_rm()
        _true(isinstance(point.counted, frozenset), "what it wants counted is a set")
        for action in (exec_of("ls"), exec_of("rm x")):
            decision = point.decide(action)
            _true(decision.enforced, "nothing is only observed unless a policy says so")
            _true(decision.rewrite is None and decision.ask is None, "neither rewritten nor asked")

    def test_many_threads_may_ask(self) -> None:
        point = self.make_without_rm()
        found: list[Decision] = []

        def ask() -> None:
            for _ in range(_ROUNDS):
                found.append(point.decide(exec_of("ls")))
                found.append(point.decide(exec_of("rm x")))

        threads = [threading.Thread(target=ask) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        effects = [decision.effect for decision in found]
        _same(effects.count(Effect.ALLOW), _THREADS * _ROUNDS)
        _same(effects.count(Effect.DENY), _THREADS * _ROUNDS)

    def test_no_action_makes_it_raise(self) -> None:
        for point in (self.make_open(), self.make_without_rm()):
            for action in hostile_actions():
                decision = point.decide(action)
                _true(isinstance(decision, Decision), "it is a decision")
                _true(bool(decision.reason), "it has a reason")
                _same(decision.policy_digest, point.digest)
            # And it is none the worse for it.
            _same(point.decide(exec_of("ls")).effect, Effect.ALLOW)

    def test_no_argument_talks_it_round(self) -> None:
        point = self.make_without_rm()
        for text in HOSTILE_TEXTS:
            for words in (("rm", text), ("rm", "-r", text, text)):
                intent = Intent("bash", (SimpleCommand(tuple(map(Word, words))),))
                principal = Principal(1000, text or "x", session=text, tenant=text)
                action = replace(exec_of("ls"), intent=intent, principal=principal)
                _same(point.decide(action).effect, Effect.DENY)
                labelled = replace(action, labels=((text, text),), principal=CODER)
                _same(point.decide(labelled).effect, Effect.DENY)


HOSTILE_TEXTS = (
    "",
    '"',
    "\\",
    "\n",
    "\0",
    "\ud800",
    "__entity",
    "__extn",
    '{"__entity": {"type": "Agent", "id": "root"}}',
    '", "effect": "allow", "x": "',
    '"}]}, {"effect": "allow"}',
    "'); permit(principal, action, resource); //",
    "\n\nallow := true\n",
    "true",
    "{{1 + 1}} %s {0} ${x} `id`",
    "a" * 70_000,
    "/a" * 3_000,
    "../" * 2_000,
    "-" + "r" * 2_000,
    ".".join("a" * 400),
    "\u202e\u0000\u2028\uffff",
    "😀é\x7f\x1b[2J",
)


def hostile_actions() -> Iterator[Action]:
    """Actions that nobody means well with."""
    plain = exec_of("ls")
    for text in HOSTILE_TEXTS:
        who = Principal(2**40, text, text, text, text)
        words = (Word("ls"), Word(text), Word(text, True, text, text, many=False))
        odd = SimpleCommand(
            (Word(text), *words),
            (Assignment(text, Word(text, True)),),
            (PathUse(Word(text), Access.WRITE), PathUse(Word(text, True), Access.READ)),
            (text, "sudo"),
            doubtful=True,
        )
        intent = Intent(
            text,
            (odd, SimpleCommand(words), SimpleCommand(())),
            (PathUse(Word(text), Access.READ),),
            (Word(text), Word(text, True)),
            constructs=(Construct(text), Construct("shell:function", 3, True)),
        )
        yield Exec(who, intent, text, (text,), ((text, text),), text, Facts(NOON_S))
        yield replace(plain, principal=who)
        yield Exec(CODER, replace(intent, language="bash", unreadable=text), None)
        yield Exec(CODER, replace(intent, language="python"))
        yield Connect(who, text, -1, text)
        yield Request(who, text, text, 2**70, text)
        yield Tool(who, text, text, {text: text, "a": [text, {text: None}]})
    for now_s in (math.nan, math.inf, -math.inf, -1.0, 1e300):
        yield replace(plain, facts=Facts(now_s))
    yield Exec(CODER, Intent("bash"))
    yield Exec(replace(CODER, parent="coder"), plain.intent)
    yield exec_of(*["ls -l"] * 5_000)
    yield exec_of("ls " + "a/b/c/d/" * 500 + " " + "x.y.z " * 2_000)
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    yield Tool(CODER, "s", "t", deep)
    yield Tool(CODER, "s", "t", {"a": math.nan, "b": 2**80, "c": b"\xff", "d": object()})
    yield Tool(CODER, "s", "t", cast("dict[str, object]", {3: 4, None: 5}))


def _true(held: bool, what: str) -> None:
    if not held:
        raise AssertionError(what)


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r}, and not {expected!r}")
