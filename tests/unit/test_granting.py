"""Budgets of grants: whose runs they are held against, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.compile import grants, is_named
from runner.deciding import Policy, decide, decide_path
from runner.errors import PolicyError
from runner.intake import build_request
from runner.model.action import Facts
from runner.model.decision import Effect
from runner.model.grant import CallBudget
from runner.model.intent import Access
from runner.model.rule import CountOf
from runner.policy.engine import create as decision_point
from runner.schema.base import published
from runner.schema.policies import load_policy_file
from runner.schema.profile_file import PolicyFile
from runner.schema.profiles import load_profile

AGENT = load_profile("agent")
AGENT_POINT = decision_point((AGENT.policy,))
HOUR_S, DAY_S = 3600.0, 86400.0
BUDGETS = """
grants:
  - agents: ["lead*"]
    profiles: [agent, ci]
    budget: { calls: 20, per: 1h }
  - agents: ["build-*"]
    profiles: agent
    budget: { calls: 5, per: 1h }
  - agents: free
    profiles: agent
  - agents: [build-9]
    profiles: locked
    budget: { calls: 1, per: 1d }
"""
DAILY = """
grants:
  - profiles: agent
    budget: { calls: 100, per: 1d }
"""


def policy(tmp_path, *texts, profile=AGENT):
    layers = []
    for number, text in enumerate(texts):
        file = tmp_path / f"{number}0-team.yaml"
        file.write_text(text)
        layers.append(load_policy_file(file))
    return Policy(profile, AGENT_POINT, grants(layers))


def decided(tmp_path, held, runs=None, **request):
    """`runs`: of whom, within how long, how many; 0 of all others that are counted."""
    facts = Facts(0.0, {**dict.fromkeys(held.counted, 0), **(runs or {})})
    return decide(build_request(argv=["true"], cwd=tmp_path, **request), held, facts)


AGENTS_HOUR, PARENTS_HOUR = (CountOf.AGENT, HOUR_S), (CountOf.PARENT, HOUR_S)


@pytest.mark.parametrize(
    ("who", "runs", "allowed"),
    [
        ({"agent": "build-1"}, {AGENTS_HOUR: 4}, True),
        ({"agent": "build-1"}, {AGENTS_HOUR: 5}, False),
        ({"agent": "build-1"}, {AGENTS_HOUR: 6}, False),
        ({"agent": "lead"}, {AGENTS_HOUR: 5}, True),
        ({"agent": "free"}, {AGENTS_HOUR: 10_000}, True),
        # A grant of another profile is not spent from.
        ({"agent": "build-9"}, {AGENTS_HOUR: 4, (CountOf.AGENT, DAY_S): 4}, True),
        # Held to its own budget, and to that of the one who started it.
        ({"agent": "build-1", "parent": "lead"}, {AGENTS_HOUR: 4, PARENTS_HOUR: 19}, True),
        ({"agent": "build-1", "parent": "lead"}, {AGENTS_HOUR: 5, PARENTS_HOUR: 19}, False),
        ({"agent": "build-1", "parent": "lead"}, {AGENTS_HOUR: 4, PARENTS_HOUR: 20}, False),
        ({"agent": "free", "parent": "lead"}, {AGENTS_HOUR: 30, PARENTS_HOUR: 20}, False),
        ({"agent": "build-1", "parent": "free"}, {AGENTS_HOUR: 4, PARENTS_HOUR: 99}, True),
        ({"agent": "build-1", "parent": "build-1"}, {AGENTS_HOUR: 4, PARENTS_HOUR: 4}, True),
    ],
)
def test_a_budget(tmp_path, who, runs, allowed):
    found = decided(tmp_path, policy(tmp_path, BUDGETS), runs, **who)
    assert found.permitted is allowed
    if not allowed:
        assert found.decision.effect is Effect.DENY
        assert found.decision.rules[0].id == "grants.budget"


def test_every_layer_s_budget_holds(tmp_path):
    held = policy(tmp_path, BUDGETS, DAILY)
    hourly, daily = {(20, HOUR_S), (5, HOUR_S)}, {(1, DAY_S), (100, DAY_S)}
    assert held.call_budgets == {CallBudget(*each) for each in hourly | daily}
    day = (CountOf.AGENT, DAY_S)
    assert decided(tmp_path, held, {AGENTS_HOUR: 4, day: 99}, agent="build-1").permitted
    one = decided(tmp_path, held, {AGENTS_HOUR: 4, day: 100}, agent="build-1")
    assert [rule.layer[-12:] for rule in one.decision.rules] == ["10-team.yaml"]
    both = decided(tmp_path, held, {AGENTS_HOUR: 5, day: 100}, agent="build-1")
    assert [rule.id for rule in both.decision.rules] == ["grants.budget"] * 2


def test_every_budget_holds_of_the_grants_that_cover_one(tmp_path):
    """Whichever stands first; a grant without a budget takes none away."""
    stated = ["{profiles: agent, budget: {calls: 9, per: 1h}}", "{profiles: agent}",
              "{agents: x, profiles: agent, budget: {calls: 3, per: 1h}}"]  # fmt: skip
    for order in (stated, stated[::-1]):
        held = policy(tmp_path, f"grants: [{', '.join(order)}]")
        assert decided(tmp_path, held, {AGENTS_HOUR: 2}, agent="x").permitted
        assert not decided(tmp_path, held, {AGENTS_HOUR: 3}, agent="x").permitted
        assert decided(tmp_path, held, {AGENTS_HOUR: 8}, agent="y").permitted
        assert not decided(tmp_path, held, {AGENTS_HOUR: 9}, agent="y").permitted


def test_what_was_not_counted_is_denied(tmp_path):
    held = policy(tmp_path, BUDGETS)
    request = build_request(argv=["true"], cwd=tmp_path, agent="build-1")
    found = decide(request, held, Facts())
    assert not found.permitted
    assert "was not counted" in found.decision.reason
    free = replace(request, principal=replace(request.principal, agent="free"))
    assert decide(free, held, Facts()).permitted


def test_the_reason_says_which_how_much_and_until_when(tmp_path):
    held = policy(tmp_path, BUDGETS)
    request = build_request(argv=["true"], cwd=tmp_path, agent="build-1", parent="lead")
    facts = Facts(0.0, {AGENTS_HOUR: 4, PARENTS_HOUR: 21},
                  free_at_s={(CountOf.PARENT, CallBudget(20, HOUR_S)): 1_800_000_000.5},
                  )  # fmt: skip
    reason = decide(request, held, facts).decision.reason
    assert reason.endswith(
        "00-team.yaml' grants the parent 'lead' 20 runs within 3600s, and 21 began, denied ones "
        "counted, those of the agents that it started among them; wait until "
        "2027-01-15T08:00:01Z, or ask who keeps that policy for more"
    )
    assert "\n" not in reason
    without = decide(request, held, replace(facts, free_at_s={})).decision.reason
    assert "wait until older ones are past that" in without


def test_nothing_begins_by_applying_a_change(tmp_path):
    held = policy(tmp_path, BUDGETS)
    request = build_request(argv=["true"], cwd=tmp_path, agent="build-1")
    facts = Facts(0.0, dict.fromkeys(held.counted, 99))
    assert not decide(request, held, facts).permitted
    assert decide_path(request, str(tmp_path / "x"), Access.WRITE, held, facts).permits
    stranger = replace(request, principal=replace(request.principal, agent="stranger"))
    assert not decide_path(stranger, str(tmp_path / "x"), Access.WRITE, held, facts).permits


def test_the_digest_covers_budgets(tmp_path):
    texts = ["", ", budget: {calls: 1, per: 1h}", ", budget: {calls: 2, per: 1h}",
             ", budget: {calls: 1, per: 2h}"]  # fmt: skip
    digests = {policy(tmp_path, f"grants: [{{profiles: agent{each}}}]").digest for each in texts}
    assert len(digests) == len(texts)


def test_grants_without_budgets_count_nothing(tmp_path):
    assert policy(tmp_path, "grants: [{profiles: agent}]").counted == frozenset()
    assert policy(tmp_path, DAILY).counted == {(CountOf.AGENT, DAY_S), (CountOf.PARENT, DAY_S)}


@pytest.mark.parametrize(
    "bad",
    ["{}", "{calls: 1}", "{per: 1h}", "{calls: 0, per: 1h}", "{calls: 1.5, per: 1h}",
     "{calls: '1', per: 1h}", "{calls: 1, per: unlimited}", "{calls: 1, per: 0}",
     "{calls: unlimited, per: 1h}", "{calls: 1, per: 1h, tokens: 5}", "5"],
)  # fmt: skip
def test_a_bad_budget_is_told(tmp_path, bad):
    with pytest.raises(PolicyError, match=r"team\.yaml:1:.*budget"):
        policy(tmp_path, f"grants: [{{profiles: agent, budget: {bad}}}]")


def test_the_schema_has_it():
    found = published(PolicyFile, "policy", "A policy")["$defs"]["CallBudgetFile"]
    assert set(found["required"]) == set(found["properties"]) == {"calls", "per"}
    assert found["additionalProperties"] is False


def test_a_profile_is_permitted_by_where_it_is_and_not_by_how_it_is_spelled(tmp_path):
    kept, own = tmp_path / "kept", tmp_path / "own"
    for folder in (kept, own):
        folder.mkdir()
    (kept / "a.yaml").write_text("extends: agent\n")
    (own / "a.yaml").write_text("extends: ./base.yaml\n")
    (own / "base.yaml").write_text("extends: agent\n")
    (own / "link.yaml").symlink_to(kept / "a.yaml")
    permitted = [f"{kept}/*"]
    assert is_named(load_profile(f"{kept}/a.yaml"), permitted)
    assert is_named(load_profile(f"{own}/link.yaml"), permitted)
    assert is_named(load_profile(f"{own}/../kept/./a.yaml"), permitted)
    assert not is_named(load_profile(f"{kept}/../own/a.yaml"), permitted)
    (kept / "leads-out").symlink_to(own)
    assert not is_named(load_profile(f"{kept}/leads-out/a.yaml"), permitted)


def test_what_a_linked_profile_extends_is_looked_for_beside_the_file_itself(tmp_path):
    kept, own = tmp_path / "kept", tmp_path / "own"
    for folder in (kept, own):
        folder.mkdir()
    (kept / "a.yaml").write_text("extends: ./base.yaml\n")
    (kept / "base.yaml").write_text("extends: agent\ndescription: kept\n")
    (own / "base.yaml").write_text("extends: agent\ndescription: own\n")
    (own / "a.yaml").symlink_to(kept / "a.yaml")
    assert load_profile(own / "a.yaml").description == "kept"
