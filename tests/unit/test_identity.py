"""What a caller of the API reaches."""

from __future__ import annotations

import pytest

from runner.model.identity import AGENT_VERBS, ANY, Identity, Verb


def test_an_agent_reaches_itself_and_no_other() -> None:
    agent = Identity("key:1", AGENT_VERBS, agent="bot", tenants=("acme",), profiles=("agent",))
    assert agent.reaches("bot", "acme")
    assert not agent.reaches("bot2", "acme")
    assert not agent.reaches("bot", "other")
    assert not agent.reaches("bot", None)


@pytest.mark.parametrize("verb", sorted(set(Verb) - AGENT_VERBS))
def test_no_agent_governs(verb: Verb) -> None:
    with pytest.raises(ValueError, match=f"can't be given the verb {verb}"):
        Identity("key:1", frozenset({verb}), agent="bot")
    assert Identity("key:2", frozenset({verb})).may(verb)


def test_globs_bound_who_speaks_for_many() -> None:
    platform = Identity(
        "key:3", AGENT_VERBS, agents=("ci-*",), tenants=("acme", "acme-*"), profiles=("a*",)
    )
    assert platform.reaches("ci-lint", "acme-eu")
    assert not platform.reaches("ops", "acme")
    assert not platform.reaches("ci-lint", None)
    assert not Identity("key:4", AGENT_VERBS).reaches("ci-lint", "acme")
    assert Identity("uid:0", AGENT_VERBS, agents=ANY, tenants=ANY).reaches("ops", None)


def test_a_profile_is_used_by_its_name() -> None:
    platform = Identity("key:5", AGENT_VERBS, agents=ANY, tenants=ANY, profiles=ANY)
    assert platform.may_use("agent")
    assert not platform.may_use("./mine.yaml")
    assert not platform.may_use("/etc/runner/profiles/agent.yaml")
