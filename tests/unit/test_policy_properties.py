"""What holds of every policy and every action: nothing raises, order and speed-ups mean nothing,
more rules that refuse never permit more, and a word that only running would tell never less.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from policy_cases import (
    ACTIONS,
    ALLOW,
    ASK,
    DENY,
    FLAT_MATCHES,
    MATCHES,
    OTHER_ACTIONS,
    RAW_INTENTS,
    REWRITE,
    action,
    layer,
    layers,
    rule,
    rules,
)

from runner.analysis import read
from runner.model.action import Action, Exec
from runner.model.decision import STRICTNESS, Effect
from runner.model.intent import Intent, Word
from runner.model.principal import Principal
from runner.model.request import Argv, Script, ShellText
from runner.model.rule import Match, OnUnknown, PolicyLayer, Rule
from runner.policy.circumstances import Circumstances
from runner.policy.engine import RulesDecisionPoint, create, subjects_of
from runner.policy.hold import Hold
from runner.policy.matching import CompiledRule

REFUSING = (REWRITE, ASK, DENY)


@given(ACTIONS, st.lists(layers(12), min_size=1, max_size=2))
@settings(max_examples=150, deadline=None)
def test_the_index_and_the_memory_change_nothing(each: Exec, some: list[PolicyLayer]) -> None:
    naive = RulesDecisionPoint(some, indexed=False).decide(each)
    point = create(some)
    assert point.decide(each) == naive
    assert point.decide(each) == naive  # remembered


@given(ACTIONS, st.lists(rules(), min_size=9, max_size=18), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_index_of_many_rules_changes_nothing(
    each: Exec, many: list[Rule], listed: bool
) -> None:
    # So many that they are filed, and filed again by what they need besides.
    numbered = tuple(replace(one, id=f"r{index}") for index, one in enumerate(many))
    one = layer(*numbered, default=DENY if listed else ALLOW)
    assert create([one]).decide(each) == RulesDecisionPoint([one], indexed=False).decide(each)


@given(OTHER_ACTIONS, st.lists(rules(), min_size=1, max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_connections_and_the_like_are_decided_by_the_same_rules(
    each: Action, many: list[Rule], listed: bool
) -> None:
    numbered = tuple(replace(one, id=f"r{index}") for index, one in enumerate(many))
    one = layer(*numbered, default=DENY if listed else ALLOW)
    decision = create([one]).decide(each)
    assert "could not be evaluated" not in decision.reason
    assert RulesDecisionPoint([one], indexed=False).decide(each) == decision
    turned = replace(one, rules=numbered[::-1])
    assert replace(create([turned]).decide(each), policy_digest="") == replace(
        decision, policy_digest=""
    )


@given(st.lists(ACTIONS, min_size=2, max_size=6), layers())
@settings(max_examples=100, deadline=None)
def test_what_is_remembered_is_of_the_same_action(some: list[Exec], one: PolicyLayer) -> None:
    point, naive = create([one]), RulesDecisionPoint([one], indexed=False)
    for each in (*some, *some):
        assert point.decide(each) == naive.decide(each)


@given(st.lists(RAW_INTENTS, min_size=1, max_size=3), layers(), st.text(max_size=3))
@settings(max_examples=120, deadline=None)
def test_no_intent_fails_and_index_and_memory_change_nothing(
    intents: list[Intent], one: PolicyLayer, workspace: str
) -> None:
    point, naive = create([one]), RulesDecisionPoint([one], indexed=False)
    # The second time as other objects of the same value, as another reading would give them.
    for intent in (*intents, *copy.deepcopy(intents)):
        each = Exec(Principal(1), intent, workspace)
        decision = point.decide(each)
        assert "could not be evaluated" not in decision.reason
        assert naive.decide(each) == decision


@given(ACTIONS, layers(), layers(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_order_never_matters(
    each: Exec, one: PolicyLayer, other: PolicyLayer, chance: random.Random
) -> None:
    shuffled = list(one.rules)
    chance.shuffle(shuffled)
    first = create([one]).decide(each)
    second = create([replace(one, rules=tuple(shuffled))]).decide(each)
    assert replace(first, policy_digest="") == replace(second, policy_digest="")
    both, turned = (create(some).decide(each) for some in ([one, other], [other, one]))
    for name in ("effect", "enforced", "rules", "obligations", "ask", "rewrite"):
        assert getattr(both, name) == getattr(turned, name)


def _complete(base: PolicyLayer) -> PolicyLayer:
    """As a profile is: where it said nothing, another layer could be the first to permit."""
    return replace(
        base,
        name="base",
        default=base.default or ALLOW,
        on_dynamic=base.on_dynamic or OnUnknown.DENY,
        on_unreadable=base.on_unreadable or OnUnknown.DENY,
        observe=False,
    )


def _looser(one: Effect, other: Effect) -> bool:
    return STRICTNESS[one] < STRICTNESS[other]


@given(ACTIONS, layers(), layers(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_another_layer_never_widens(
    each: Exec, base: PolicyLayer, more: PolicyLayer, first: bool
) -> None:
    base = _complete(base)
    alone = create([base]).decide(each)
    both = create([more, base] if first else [base, more]).decide(each)
    assert both.permits <= alone.permits
    if both.enforced:
        assert not _looser(both.effect, alone.effect)


@given(ACTIONS, layers(), rules(REFUSING))
@settings(max_examples=120, deadline=None)
def test_a_rule_that_refuses_never_widens(each: Exec, base: PolicyLayer, more: Rule) -> None:
    base = _complete(base)
    before = create([base]).decide(each)
    # In the base's own layer a lesser rule would stand for a stricter default, as it must.
    added = replace(base, rules=(*base.rules, replace(more, id="z")))
    after = create([added]).decide(each)
    if more.effect is DENY:
        assert not _looser(after.effect, before.effect)
    beside = create([PolicyLayer("above", (more,)), base]).decide(each)
    assert not _looser(beside.effect, before.effect)


@given(ACTIONS, layers(), layers(), rules((ASK, DENY)))
@settings(max_examples=100, deadline=None)
def test_a_rule_that_refuses_in_one_of_two_layers_never_permits_more(
    each: Exec, base: PolicyLayer, other: PolicyLayer, more: Rule
) -> None:
    base = _complete(base)
    before = create([base, other]).decide(each)
    # Any of them may observe; a rule that asks stands in no stricter default's place.
    widened = replace(other, rules=(*other.rules, replace(more, id="z")))
    if more.effect is DENY or other.default is not DENY:
        after = create([base, widened]).decide(each)
        assert after.permits <= before.permits
        if after.enforced and before.enforced:
            assert not _looser(after.effect, before.effect)


SINGLE = st.sampled_from(
    ["/", "/etc/x", "x", "push", "-r", "-f", "a.com", "/srv/ws/x", "build", "-la", "", "..", "~"]
)
LITERAL = SINGLE.map(Word)
DYNAMIC = st.builds(
    lambda head, tail, many: (Word(f"{head}$x{tail}", True, head, tail, many), head, tail),
    st.sampled_from(["", "", "/", "/srv/", "-", "--for", "p"]),
    st.sampled_from(["", "", "/x", "/build", ".o", "m"]),
    st.booleans(),
)


@st.composite
def concretised(draw: st.DrawFn) -> tuple[list[Word], list[Word]]:
    """Arguments with dynamic words, and what they may become."""
    before, after = [], []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            word = draw(LITERAL)
            before.append(word)
            after.append(word)
            continue
        word, head, tail = draw(DYNAMIC)
        before.append(word)
        for _ in range(draw(st.integers(0, 2)) if word.many else 1):
            after.append(Word(head + draw(SINGLE) + tail))
    return before, after


def _both_flag_and_operand(word: Word) -> bool:
    """`-C/path`: a flag and a path in one word, which a rule does not look for in a dynamic one."""
    return word.text.startswith("-") and any(c in word.text for c in "/.~")


@given(
    st.sampled_from(["rm", "git", "curl", "tee", "/usr/bin/ls"]),
    concretised(),
    MATCHES,
    st.sampled_from(list(Effect)),
)
@settings(max_examples=800, deadline=None)
def test_what_only_may_match_covers_what_comes(
    name: str, words: tuple[list[Word], list[Word]], match: Match, effect: Effect
) -> None:
    before, after = words
    assume(not any(_both_flag_and_operand(word) for word in after))
    compiled = CompiledRule(rule(effect, match))
    holds = []
    for arguments in (before, after):
        command = replace(
            read(Argv((name,))).commands[0], words=(Word(name), *arguments), assignments=()
        )
        each = action("ls", intent=replace(action("ls").intent, commands=(command,)))
        (subject,) = subjects_of(each)
        holds.append(compiled.holds(subject, Circumstances.of(each)))
    if effect is ALLOW:
        # What an `allow` is sure of stays so.
        assert holds[1] is Hold.SURELY or holds[0] is not Hold.SURELY
    else:
        assert holds[0] is not Hold.NO or holds[1] is Hold.NO


@given(FLAT_MATCHES, ACTIONS)
@settings(max_examples=150, deadline=None)
def test_twice_not_is_no_looser_than_not_at_all(match: Match, each: Exec) -> None:
    turned = Match(none_of=(Match(none_of=(match,)),))
    for effect in Effect:
        once = create([layer(rule(effect, match), default=None)]).decide(each)
        twice = create([layer(rule(effect, turned), default=None)]).decide(each)
        assert once.effect is twice.effect


BYTES = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet=" \t\n;|&<>(){}$`'\"\\*?[]#!~=-/abrm\x00\udcff", max_size=40).map(
        lambda text: text.encode("utf-8", "surrogateescape")
    ),
)


ANYTHING = rule(ALLOW, Match(), name="anything")


@given(
    BYTES,
    st.sampled_from(["bash", "sh", "ksh", "zsh", "python", "argv", "script", "node"]),
    layers(4),
)
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_or_pass_unread(data: bytes, language: str, one: PolicyLayer) -> None:
    text = data.decode("utf-8", "surrogateescape")
    if language == "argv":
        program: object = Argv(tuple(text.split("\0")))
    elif language == "python":
        program = Script(data, "python", ("python3",), "x.py")
    elif language == "script":
        program = Script(data, "bash", ("bash",), "x.sh")
    elif language == "node":
        program = Script(data, "node", ("node",), "x.js")
    else:
        program = ShellText(text, language)
    intent = read(program)  # type: ignore[arg-type]
    decision = create([one]).decide(Exec(Principal(1), intent, "/srv"))
    assert "could not be evaluated" not in decision.reason
    if language not in {"python", "node"} and intent.unreadable is not None:
        # Not by the layer's rules, not by one that allows all, whatever a doubt is made of.
        for given_rules in (one.rules, (), (*one.rules, ANYTHING)):
            enforced = replace(one, observe=False, rules=given_rules, default=ALLOW)
            assert not create([enforced]).decide(Exec(Principal(1), intent, "/srv")).permits
