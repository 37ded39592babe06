"""What is held against a request beside the rules: grants, variables; and what a rewrite runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.compile import grants
from runner.deciding import Policy, decide
from runner.errors import PolicyError
from runner.intake import build_request
from runner.model.action import Facts
from runner.model.decision import Decision, Effect
from runner.model.request import Argv
from runner.policy.engine import create as decision_point
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile

AGENT = load_profile("agent")
AGENT_POINT = decision_point((AGENT.policy,))


class Answers:
    """A decision point that says what it is told for each text of words."""

    digest = "sha256:0"
    counted = frozenset()
    follows_links = False

    def __init__(self, **said):
        self.said = said
        self.asked = []

    def decide(self, action):
        command = action.intent.commands[0]
        words = " ".join(word.text for word in command.words)
        self.asked.append(words)
        effect, rewrite = self.said.get(words.replace(" ", "_"), (Effect.ALLOW, None))
        return Decision(effect, f"about {words}", "sha256:0", rewrite=rewrite,
                        obligations=(words,))  # fmt: skip


def asked(tmp_path, argv=("a", "b"), **request):
    return build_request(argv=list(argv), cwd=tmp_path, **request)


def policy(tmp_path, text):
    file = tmp_path / "10-team.yaml"
    file.write_text(text)
    layers = [load_policy_file(file)]
    return Policy(AGENT, AGENT_POINT, grants(layers))


GRANTS = """
grants:
  - agents: ["build-*", lead]
    profiles: [agent, ci]
  - agents: guest
    profiles: locked
  - labels: {team: "w*"}
    uids: [4242]
    profiles: agent
"""


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ({"agent": "build-1"}, True),
        ({"agent": "guest"}, False),
        ({"agent": "somebody"}, False),
        # Nobody hands on more than it has.
        ({"agent": "build-1", "parent": "guest"}, False),
        ({"agent": "build-1", "parent": "lead"}, True),
        ({"agent": "guest", "parent": "lead"}, False),
        ({"agent": "x", "labels": {"team": "web"}}, False),
    ],
)
def test_grants(tmp_path, who, allowed):
    decided = decide(asked(tmp_path, **who), policy(tmp_path, GRANTS), Facts())
    assert decided.permitted is allowed
    if not allowed:
        assert decided.decision.rules[0].id == "grants"
        assert decided.decision.effect is Effect.DENY


def test_all_that_a_grant_states_must_hold(tmp_path):
    held = policy(tmp_path, GRANTS)
    request = asked(tmp_path, labels={"team": "web"})
    principal = replace(request.principal, uid=4242)
    assert decide(replace(request, principal=principal), held, Facts()).permitted
    other = replace(request, principal=principal, labels=(("team", "data"),))
    assert not decide(other, held, Facts()).permitted


def test_a_refusal_names_what_may_be_used(tmp_path):
    decided = decide(asked(tmp_path, agent="guest"), policy(tmp_path, GRANTS), Facts())
    assert "use one of: locked" in decided.decision.reason
    decided = decide(asked(tmp_path, agent="nobody"), policy(tmp_path, GRANTS), Facts())
    assert "ask who keeps that policy" in decided.decision.reason


def test_the_digest_covers_the_grants(tmp_path):
    one, two = (policy(tmp_path, f"grants: [{{profiles: {name}}}]") for name in ("agent", "a*"))
    assert len({AGENT_POINT.digest, one.digest, two.digest}) == 3
    assert decide(asked(tmp_path), one, Facts()).decision.policy_digest == one.digest
    assert policy(tmp_path, "limits: {wall: 5s}").digest == AGENT_POINT.digest


def test_an_empty_list_of_grants_grants_nothing(tmp_path):
    assert not decide(asked(tmp_path), policy(tmp_path, "grants: []"), Facts()).permitted
    assert decide(asked(tmp_path), policy(tmp_path, "limits: {wall: 5s}"), Facts()).permitted


def test_a_profile_s_name_in_a_file_is_no_grant(tmp_path):
    """Anybody can call a file `agent.yaml`."""
    own = tmp_path / "own" / "agent.yaml"
    own.parent.mkdir()
    own.write_text("extends: locked\ndescription: mine\n")
    held = policy(tmp_path, GRANTS)
    mine = replace(held, profile=load_profile(str(own)))
    assert not decide(asked(tmp_path, agent="lead"), mine, Facts()).permitted


@pytest.mark.parametrize("bad", ["grants: [{agents: x}]", "grants: [{profiles: []}]",
                                 "grants: [{profiles: x, uids: [root]}]",
                                 "grants: [{profiles: x, who: y}]"])  # fmt: skip
def test_bad_grants_are_told(tmp_path, bad):
    with pytest.raises(PolicyError, match=r"10-team\.yaml:1"):
        policy(tmp_path, bad)


def test_a_rewrite_runs_what_was_decided_in_its_place(tmp_path):
    point = Answers(a_b=(Effect.REWRITE, ("c", "d")))
    decided = decide(asked(tmp_path), Policy(AGENT, point), Facts())
    assert point.asked == ["a b", "c d"]
    assert decided.permitted
    assert decided.request.program == Argv(("c", "d"))
    assert decided.decision.effect is Effect.REWRITE
    assert decided.decision.rewrite == ("c", "d")
    assert decided.decision.obligations == ("a b", "c d")
    assert not decided.decision.permits  # not as it was asked for


@pytest.mark.parametrize(
    ("second", "effect"),
    [
        ((Effect.DENY, None), Effect.DENY),
        ((Effect.ASK, None), Effect.ASK),
        ((Effect.REWRITE, ("a", "b")), Effect.DENY),
        ((Effect.REWRITE, ("e",)), Effect.DENY),
    ],
)
def test_what_stands_in_its_place_is_held_against_the_rules(tmp_path, second, effect):
    point = Answers(a_b=(Effect.REWRITE, ("c", "d")), c_d=second)
    decided = decide(asked(tmp_path), Policy(AGENT, point), Facts())
    assert point.asked == ["a b", "c d"]
    assert not decided.permitted
    assert decided.decision.effect is effect
    assert decided.decision.rewrite is None
    assert "about a b" in decided.decision.reason
    assert "about c d" in decided.decision.reason


def test_a_rewrite_without_a_command_runs_nothing(tmp_path):
    decided = decide(asked(tmp_path), Policy(AGENT, Answers(a_b=(Effect.REWRITE, None))), Facts())
    assert not decided.permitted
    assert decided.decision.effect is Effect.REWRITE


def test_variables_are_refused_whatever_is_rewritten(tmp_path):
    point = Answers(a_b=(Effect.REWRITE, ("c", "d")))
    request = asked(tmp_path, env={"LD_PRELOAD": "x.so"})
    decided = decide(request, Policy(AGENT, point), Facts())
    assert not decided.permitted
    assert decided.decision.rules[0].id == "environment.deny"
