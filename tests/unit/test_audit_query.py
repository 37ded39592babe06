"""What of an event can be searched for, and whether one is what is searched for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.audit.canonical import escape
from runner.audit.facets import MOST_CHARACTERS, Field, facets
from runner.audit.query import Query, moment, query
from runner.errors import RequestError

NOW_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z

DECIDED = {
    "kind": "run.decided",
    "run": "run-1",
    "time": "2026-05-01T12:00:00.000000Z",
    "principal": {"agent": "builder", "parent": None, "session": "s-1", "tenant": None, "uid": 1},
    "data": {
        "profile": "ci",
        "labels": {"task": "7", "team": "a=b"},
        "program": {"kind": "shell", "text": "sudo curl https://x.example.org"},
        "intent": {"programs": ["sudo", "curl"], "hosts": ["x.example.org"]},
        "decision": {"effect": "deny", "rules": [{"id": "privileges"}, {"id": "network"}]},
    },
}
ENDED = {
    "kind": "run.ended",
    "run": "run-1",
    "time": "2026-05-01T12:00:05.000000Z",
    "principal": {"agent": "builder"},
    "data": {"termination": "limit", "limit": "memory"},
}


def asked(**texts: object) -> Query:
    others = {name: texts.pop(name) for name in ("run_id", "since", "until") if name in texts}
    given = {getattr(Field, name.upper()): [each] for name, each in texts.items()}
    return query(given, now_s=NOW_S, **others)


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        ({"kind": "run.decided"}, {"kind": "run.ended"}),
        ({"agent": "builder"}, {"agent": "build"}),
        ({"agent": "build*"}, {"agent": "*x*"}),
        ({"session": "s-?"}, {"session": "s-??"}),
        ({"profile": "ci"}, {"profile": "agent"}),
        ({"effect": "deny"}, {"effect": "allow"}),
        ({"rule": "network"}, {"rule": "net"}),
        ({"program": "curl"}, {"program": "curl2"}),
        ({"program": "/usr/bin/curl"}, {"program": "/usr/bin/wget"}),
        ({"program": "[cs]u[rd]?"}, {"program": "[!cs]*"}),
        ({"host": "X.Example.Org."}, {"host": "example.org"}),
        ({"host": "*.example.org"}, {"host": "*.example.com"}),
        ({"label": "task=7"}, {"label": "task=8"}),
        ({"label": "team=a=b"}, {"label": "a=b"}),
        ({"label": "task=*"}, {"label": "owner=*"}),
        ({"run_id": "run-1"}, {"run_id": "run-2"}),
        ({"since": "2026-05-01T12:00"}, {"since": "2026-05-01T12:00:01Z"}),
        ({"until": "2026-05-01T14:00:01+02:00"}, {"until": "2026-05-01T12:00"}),
        ({"agent": "builder", "rule": "privileges"}, {"agent": "builder", "rule": "x"}),
    ],
)
def test_each_filter_finds_it_and_its_twin_does_not(wanted, other):
    assert asked(**wanted).matches(DECIDED)
    assert not asked(**other).matches(DECIDED)


def test_of_one_option_any_has_to_fit_and_of_several_each():
    either = query({Field.AGENT: ["x", "builder"]}, now_s=NOW_S)
    assert either.matches(DECIDED)
    assert either.matches(ENDED)
    both = query({Field.AGENT: ["x", "builder"], Field.TERMINATION: ["limit"]}, now_s=NOW_S)
    assert not both.matches(DECIDED)
    assert both.matches(ENDED)
    assert query({}, now_s=NOW_S).matches(ENDED)


def test_bytes_that_are_no_text_are_searched_for_as_they_are_written():
    agent = b"agent-\xff".decode("utf-8", "surrogateescape")
    event = {"principal": {"agent": escape(agent)}}
    assert asked(agent=agent).matches(event)
    assert asked(agent="agent-*").matches(event)


def test_an_older_event_has_the_program_of_its_first_word():
    argv = {"kind": "argv", "argv": ["/usr/bin/env", "ls"]}
    script = {"kind": "script", "interpreter": ["/usr/bin/python3", "-I"]}
    for program, name in ((argv, "env"), (script, "python3")):
        data = {"decision": {"effect": "allow"}, "intent": {"commands": 1}, "program": program}
        assert (Field.PROGRAM, name) in facets({"data": data})


def test_a_long_text_is_found_by_its_whole():
    agent = "a" * 10_000
    event = {"principal": {"agent": agent}}
    assert facets(event) == [(Field.AGENT, "a" * MOST_CHARACTERS)]
    assert asked(agent=agent).matches(event)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
KEYS = st.sampled_from(
    ["kind", "time", "run", "principal", "data", "agent", "session", "profile", "termination",
     "decision", "effect", "rules", "id", "labels", "intent", "programs", "hosts", "program"]
)  # fmt: skip
DOCTORED = st.recursive(
    JSON,
    lambda inner: st.dictionaries(KEYS, inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=30,
)


@given(DOCTORED)
def test_nothing_that_an_event_says_can_raise(event):
    for field, text in facets(event):
        assert type(field) is int
        assert isinstance(text, str)
        assert len(text) <= MOST_CHARACTERS
    asked(agent="x", rule="*", since="2h", run_id="r").matches(event)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
        ("2026-01-31T14:00", "2026-01-31T14:00:00.000000Z"),
        ("2026-01-31T14:00:01.5Z", "2026-01-31T14:00:01.500000Z"),
        ("2026-01-31T14:00+02:00", "2026-01-31T12:00:00.000000Z"),
        ("45s", "2027-01-15T07:59:15.000000Z"),
        ("30m", "2027-01-15T07:30:00.000000Z"),
        ("2h", "2027-01-15T06:00:00.000000Z"),
        ("2h ago", "2027-01-15T06:00:00.000000Z"),
        ("7d", "2027-01-08T08:00:00.000000Z"),
        ("2w", "2027-01-01T08:00:00.000000Z"),
    ],
)
def test_times(text, time):
    assert moment(text, NOW_S) == time


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2h30m", "-2h", "2", "2026-13-01", "999999999w", "२h", "1e3s", "nan"]
)
def test_what_is_no_time_is_told(text):
    with pytest.raises(RequestError, match="is no time"):
        moment(text, NOW_S)


def test_a_label_without_a_value_is_told():
    with pytest.raises(RequestError, match="name=value"):
        asked(label="task")
