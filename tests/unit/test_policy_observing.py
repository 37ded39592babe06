"""Rules and layers that are only observed: recorded, and without any say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import (
    ACTIONS,
    ALLOW,
    ASK,
    DENY,
    HOUR,
    OTHER_ACTIONS,
    RAW_INTENTS,
    action,
    decide,
    layer,
    layers,
    rule,
    rules,
)

from runner.errors import PolicyError
from runner.model.action import Action, Connect, Exec, Facts
from runner.model.decision import Decision
from runner.model.rule import Hours, Match, OnUnknown, PolicyLayer, Rule
from runner.policy import observing
from runner.policy.combined import combine
from runner.policy.engine import RulesDecisionPoint, create, digest
from runner.policy.lint import Linted, lint
from runner.records import decision_data
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile

RM = Match(commands=("rm",))
WATCHED = rule(DENY, RM, "no-rm", observe=True)


def without(decision: Decision) -> Decision:
    """What was decided, leaving aside what was observed and the digest, which covers all."""
    return replace(decision, observed=(), policy_digest="")


def ids(decision: Decision) -> list[str]:
    return [each.id for each in decision.observed]


def test_a_rule_that_is_observed_is_told_and_has_no_say():
    decision = decide("rm -rf x; ls", layer(WATCHED))
    assert (decision.effect, decision.enforced, decision.rules) == (ALLOW, True, ())
    (found,) = decision.observed
    assert (found.id, found.layer, found.effect) == ("no-rm", "profile:test", DENY)
    assert found.matched == "rm -rf x"
    assert decide("rm -rf x", layer(replace(WATCHED, observe=None))).effect is DENY
    assert decide("ls", layer(WATCHED)).observed == ()


def test_it_does_not_stand_in_the_place_of_another():
    ask = rule(ASK, RM, "ask-rm")
    decision = decide("rm x", layer(WATCHED, ask))
    assert (decision.effect, ids(decision)) == (ASK, ["no-rm"])
    # Nor of a default.
    decision = decide("rm x", layer(WATCHED, default=DENY))
    assert (decision.effect, [each.id for each in decision.rules]) == (DENY, ["default"])


def test_each_is_told_also_beside_a_stricter_one():
    ask = rule(ASK, RM, "ask-rm", observe=True)
    decision = decide("rm x", layer(ask, WATCHED))
    assert (decision.effect, ids(decision)) == (ALLOW, ["no-rm", "ask-rm"])
    # A whole layer says what it would say once enforced: its strictest.
    trial = layer(replace(ask, observe=None), replace(WATCHED, observe=None), default=ALLOW,
                  name="user:new", on_trial=True)  # fmt: skip
    assert ids(decide("rm x", trial, layer())) == ["no-rm"]


def test_a_layer_on_trial_says_what_it_would_and_is_not_there():
    trial = layer(rule(ALLOW, Match(commands=("ls",)), "ls"), name="user:new", default=DENY,
                  on_dynamic=OnUnknown.ASK, on_unreadable=OnUnknown.ASK, on_trial=True)  # fmt: skip
    below = layer(rule(ALLOW, Match(commands=("*",)), "all"), on_dynamic=OnUnknown.DENY)
    assert decide("ls", trial, below).observed == ()
    decision = decide("make; $x; (", trial, below)
    assert ("on_unreadable", ASK) in {(each.id, each.effect) for each in decision.observed}
    decision = decide("make; $x", trial, below)
    assert {(each.id, each.effect) for each in decision.observed} == {
        ("default", DENY),
        ("on_dynamic", ASK),
    }
    assert without(decision) == without(decide("make; $x", below))


@pytest.mark.parametrize("text", ["ls", "$x", "(", "find $x"])
def test_a_layer_on_trial_that_allows_all_allows_nothing(text):
    nothing = layer(default=None, on_dynamic=None, on_unreadable=None)
    trial = layer(name="user:new", default=ALLOW, on_dynamic=OnUnknown.ASK,
                  on_unreadable=OnUnknown.ASK, on_trial=True)  # fmt: skip
    alone, both = decide(text, nothing), decide(text, trial, nothing)
    assert alone.effect is DENY
    assert without(both) == without(alone)


def test_a_layer_on_trial_defers_nothing():
    defer = layer(on_dynamic=OnUnknown.DEFER)
    strict = layer(name="user:new", on_dynamic=OnUnknown.DENY, on_trial=True)
    assert without(decide("$x", defer, strict)) == without(decide("$x", defer))
    eager = layer(name="user:new", on_dynamic=OnUnknown.DEFER, on_trial=True)
    assert without(decide("$x", eager, layer())) == without(decide("$x", layer()))


EVERY_ACTION = st.one_of(ACTIONS, OTHER_ACTIONS, st.builds(
    lambda intent: Exec(action("ls").principal, intent, "/srv/ws"), RAW_INTENTS))  # fmt: skip


@given(EVERY_ACTION, st.lists(layers(6), min_size=1, max_size=2),
       st.lists(rules(), min_size=1, max_size=4), layers(4))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_what_is_observed_changes_no_decision(
    each: Action, some: list[PolicyLayer], watched: list[Rule], trial: PolicyLayer
) -> None:
    plain = create(some).decide(each)
    marked = tuple(
        replace(one, id=f"watched-{index}", observe=True) for index, one in enumerate(watched)
    )
    more = [replace(some[0], rules=(*marked, *some[0].rules)), *some[1:]]
    more.append(replace(trial, name="user:trial", on_trial=True))
    for point in (create(more), RulesDecisionPoint(more, indexed=False)):
        decision = point.decide(each)
        assert without(decision) == without(plain)
        assert point.decide(each) == decision
        # Each tells what it would say by itself.
        for one in marked:
            alone = layer(replace(one, observe=None), name="x", default=ALLOW,
                          on_dynamic=None, on_unreadable=None,
                          on_doubt=some[0].on_doubt)  # fmt: skip
            said = {m.id for m in create([alone]).decide(each).rules} - {"default", "on_dynamic"}
            told = {m.id for m in decision.observed if m.layer == some[0].name}
            assert (one.id in told) is (one.id in said and one.effect is not ALLOW)


def test_the_memory_knows_what_an_observed_rule_depends_on():
    often = rule(DENY, Match(commands=("rm",), frequency=HOUR), "often", observe=True)
    night = rule(DENY, Match(commands=("ls",), hours=(Hours(0, 60),)), "night", observe=True)
    point = create([layer(often, night)])
    key = (HOUR.of, HOUR.window_s)
    assert point.counted == {key}
    few, many = (action("rm x", facts=Facts(0.0, {key: count})) for count in (1, 9))
    assert (ids(point.decide(few)), ids(point.decide(many))) == ([], ["often"])
    early, late = (action("ls", facts=Facts(s, {key: 0})) for s in (30.0, 7200.0))
    assert (ids(point.decide(early)), ids(point.decide(late))) == (["night"], [])


def test_a_fault_of_what_is_observed_is_told_and_denies_nothing(monkeypatch):
    point = create([layer(WATCHED)])

    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(observing.Circumstances, "of", broken)
    told = point._observing.told(action("rm x"), ())
    assert [(each.id, each.message) for each in told] == [
        ("fault", "it could not be evaluated (RuntimeError)")
    ]


def test_several_points_tell_what_each_observes():
    one, other = create([layer(WATCHED)]), create([layer(WATCHED, name="user:other")])
    decision = combine((one, other)).decide(action("rm x"))
    assert [each.layer for each in decision.observed] == ["profile:test", "user:other"]
    assert decision.effect is ALLOW


def test_connections_are_observed_too():
    watched = rule(DENY, Match(hosts=("a.com",)), "no-a", observe=True)
    decision = create([layer(watched)]).decide(Connect(action("ls").principal, "a.com", 443))
    assert (decision.effect, ids(decision)) == (ALLOW, ["no-a"])


def test_the_digest_covers_them_and_others_keep_theirs():
    enforced = layer(replace(WATCHED, observe=None))
    assert digest([layer(WATCHED)]) != digest([enforced])
    assert digest([replace(enforced, on_trial=True)]) != digest([enforced])
    assert digest([replace(enforced, on_trial=None)]) == digest([enforced])


def test_the_record_says_what_they_matched():
    data = decision_data(decide("rm " + "x" * 300, layer(WATCHED)))
    (told,) = data["observed"]
    assert (told["id"], told["effect"]) == ("no-rm", "deny")
    assert told["matched"].startswith("rm xxx")
    assert len(told["matched"]) <= 160
    assert "observed" not in decision_data(decide("ls", layer(WATCHED)))
    # What a rule matched that is enforced stands in the reason.
    enforced = decision_data(decide("rm x", layer(replace(WATCHED, observe=None))))
    assert "matched" not in enforced["rules"][0]
    whole = decision_data(decide("rm x", layer(replace(WATCHED, observe=None), observe=True)))
    assert whole["rules"][0]["matched"] == "rm x"


POLICY = """\
observe: true
rules:
  default: deny
  list:
    - {id: no-rm, effect: deny, match: {command: rm}, message: no}
"""
PROFILE = """\
extends: agent
rules:
  list:
    - {id: no-rm, effect: deny, observe: true, match: {command: rm}, message: no}
"""


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy_file(path)
    return str(caught.value)


def test_files_that_say_so(tmp_path):
    (tmp_path / "new.yaml").write_text(POLICY)
    assert load_policy_file(tmp_path / "new.yaml").policy.on_trial is True
    (tmp_path / "new.yaml").write_text(POLICY.replace("true", "false"))
    assert load_policy_file(tmp_path / "new.yaml").policy.on_trial is None
    (tmp_path / "watch.yaml").write_text(PROFILE)
    profile = load_profile(str(tmp_path / "watch.yaml"))
    assert [one.observe for one in profile.policy.rules if one.id == "no-rm"] == [True]
    assert profile.policy.observe is False


def test_what_can_not_be_observed_is_refused(tmp_path):
    path = tmp_path / "new.yaml"
    told = refusal(path, POLICY + "limits: {wall: 1m}\nprofiles: [agent]\n")
    assert "new.yaml:6:1: limits: is enforced or not there, and this file only observes" in told
    assert "new.yaml:7:1: profiles: " in told
    told = refusal(path, POLICY.replace("effect: deny", "effect: allow, observe: true"))
    assert "rules.list[0].observe: says nothing for allow" in told


def test_what_is_observed_beats_nothing_for_lint():
    allow = rule(ALLOW, RM, "rm")
    open_ = layer(allow, WATCHED, default=DENY)
    above = layer(replace(WATCHED, observe=None), name="user:new", on_trial=True)
    assert not list(lint(Linted(open_, frozenset({"rm"})), [Linted(above, frozenset())]))
    enforced = layer(allow, replace(WATCHED, observe=None), default=DENY)
    assert list(lint(Linted(enforced, frozenset({"rm"})), []))
