"""What a caller of the API reaches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import RecordError
from runner.model.identity import AGENT_VERBS, ANY, MOST_GLOBS, NO_TENANT, Identity, Verb
from runner.stores.api_keys import identity_of, scope_data

ODD = st.sampled_from(
    ["", "*", "?", "a", "a*", "[a-z]", "[!a]", "A", "\0", "a\0", "a\n", "\u00e9", "e\u0301",
     "\u0430", "a\u200b", "\ud800", " a", "a ", "**", "bot", "BOT", "x" * 257, "\uff41"]
)  # fmt: skip
TEXTS = st.one_of(ODD, st.text(max_size=8))
LISTS = st.lists(TEXTS, max_size=4).map(tuple)
VERBS = st.frozensets(st.sampled_from(Verb))


def made(*args, **options) -> Identity | None:
    try:
        return Identity(*args, **options)
    except ValueError:
        return None


def test_an_agent_reaches_itself_and_no_other() -> None:
    agent = Identity("key:1", AGENT_VERBS, agent="bot", tenants=("acme",), profiles=("agent",))
    assert agent.reaches("bot", "acme")
    assert not agent.reaches("bot2", "acme")
    assert not agent.reaches("bot", "other")
    assert not agent.reaches("bot", None)
    assert Identity("key:1", AGENT_VERBS, agent="bot", tenants=(NO_TENANT,)).reaches("bot", None)


@pytest.mark.parametrize("verb", sorted(set(Verb) - AGENT_VERBS))
def test_no_agent_governs(verb: Verb) -> None:
    with pytest.raises(ValueError, match=f"can't be given the verb {verb}"):
        Identity("key:1", frozenset({verb}), agent="bot")
    assert Identity("key:2", frozenset({verb})).may(verb)


@pytest.mark.parametrize("tenants", [("a*",), ANY, ("[a]",), ("a?",), ("a", "b"), ("a", "")])
def test_an_agent_belongs_to_one_tenant(tenants) -> None:
    with pytest.raises(ValueError, match="one tenant, written out, or none"):
        Identity("key:1", AGENT_VERBS, agent="bot", tenants=tenants)
    assert Identity("key:1", AGENT_VERBS, agents=ANY, tenants=tenants)


@given(VERBS, TEXTS, LISTS, LISTS, LISTS, TEXTS, TEXTS, TEXTS)
def test_whatever_an_agent_is_given_it_is_itself(
    verbs, name, agents, tenants, profiles, other, tenant, elsewhere
) -> None:
    agent = made("key:1", verbs, name, agents, tenants, profiles)
    if agent is None:
        return
    assert agent.verbs <= AGENT_VERBS
    assert not any(agent.may(verb) for verb in set(Verb) - AGENT_VERBS)
    if other != name:
        assert not agent.reaches(other, tenant)
        assert not agent.reaches(other, None)
    # One tenant at most, told apart from none.
    if tenant != elsewhere:
        assert not (agent.reaches(name, tenant) and agent.reaches(name, elsewhere))
    assert not (agent.reaches(name, None) and agent.reaches(name, tenant))


@given(VERBS, TEXTS, TEXTS, TEXTS)
def test_an_empty_scope_is_nothing(verbs, agent, tenant, profile) -> None:
    nobody = Identity("key:1", verbs)
    assert not nobody.reaches(agent, tenant)
    assert not nobody.reaches(agent, None)
    assert not nobody.may_use(profile)
    for part in ({"agents": ANY}, {"tenants": ANY}):
        assert not Identity("key:1", verbs, **part).reaches(agent, tenant)


@given(st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6))
def test_a_text_without_magic_fits_itself_alone(glob, name) -> None:
    service = made("key:1", AGENT_VERBS, agents=(glob,), tenants=ANY)
    if service is None or set(glob) & set("*?[]"):
        return
    assert service.reaches(name, "t") == (name == glob)


@given(st.text(max_size=4), st.text(max_size=4))
def test_a_glob_fits_the_whole_name(before, after) -> None:
    service = Identity("key:1", AGENT_VERBS, agents=("ci-?",), tenants=ANY)
    name = f"{before}ci-x{after}"
    assert service.reaches(name, None) == (name == "ci-x")


@pytest.mark.parametrize("name", ["\0", "bot\0", "bot\n", "a\u200bb", "\ud800", "", "x" * 257])
def test_what_is_no_name_is_in_nobodys_reach(name) -> None:
    everything = Identity("uid:0", frozenset(Verb), agents=ANY, tenants=ANY, profiles=ANY)
    assert not everything.reaches(name, "t")
    assert not everything.reaches("bot", name)
    assert not everything.may_use(name)
    with pytest.raises(ValueError, match="not the name of an agent"):
        Identity("key:1", AGENT_VERBS, agent=name)
    if name:
        with pytest.raises(ValueError, match="is no name and no glob"):
            Identity("key:1", AGENT_VERBS, tenants=(name,))


def test_letters_that_look_alike_are_not_equal() -> None:
    service = Identity("key:1", AGENT_VERBS, agents=("\u00e9", "admin"), tenants=ANY)
    assert service.reaches("\u00e9", None)
    assert not service.reaches("e\u0301", None)
    assert not service.reaches("\u0430dmin", None)
    assert not service.reaches("Admin", None)


def test_globs_bound_who_speaks_for_many() -> None:
    platform = Identity(
        "key:3", AGENT_VERBS, agents=("ci-*",), tenants=("acme", "acme-*"), profiles=("a*",)
    )
    assert platform.reaches("ci-lint", "acme-eu")
    assert not platform.reaches("ops", "acme")
    assert not platform.reaches("ci-lint", None)
    assert not Identity("key:4", AGENT_VERBS).reaches("ci-lint", "acme")
    assert Identity("uid:0", AGENT_VERBS, agents=ANY, tenants=ANY).reaches("ops", None)
    with pytest.raises(ValueError, match="more than 64"):
        Identity("key:5", AGENT_VERBS, agents=("a",) * (MOST_GLOBS + 1))


@pytest.mark.parametrize(
    "file", ["./mine.yaml", "/etc/runner/profiles/agent.yaml", "mine.yaml", "mine.yml", ".yaml"]
)
def test_a_profile_is_used_by_its_name(file) -> None:
    platform = Identity("key:5", AGENT_VERBS, agents=ANY, tenants=ANY, profiles=ANY)
    assert platform.may_use("agent")
    assert not platform.may_use(file)


@given(VERBS, st.none() | TEXTS, LISTS, LISTS, LISTS)
def test_a_scope_is_read_as_it_was_written(verbs, agent, agents, tenants, profiles) -> None:
    identity = made("", verbs, agent, agents, tenants, profiles)
    if identity is not None:
        assert identity_of(scope_data(identity)) == identity


WHOLE = {"verbs": ["run"], "agent": None, "agents": ["*"], "tenants": ["*"], "profiles": ["*"]}


@pytest.mark.parametrize(
    "change",
    [
        {"verbs": ["*"]}, {"verbs": "run"}, {"verbs": None}, {"verbs": ["RUN"]}, {"agents": "*"},
        {"agents": None}, {"agents": [None]}, {"tenants": {"a": 1}}, {"agent": 1}, {"agent": ""},
        {"agent": "bot"}, {"extra": []}, {"agents": ["\0"]}, {"profiles": True},
    ],
)  # fmt: skip
def test_a_scope_that_is_not_whole_is_none(change) -> None:
    assert identity_of(WHOLE)
    with pytest.raises((KeyError, TypeError, ValueError, RecordError)):
        identity_of({**WHOLE, **change})
    for name in WHOLE:
        with pytest.raises(ValueError, match="verbs" if name != "verbs" else "agent"):
            identity_of({key: value for key, value in WHOLE.items() if key != name})
