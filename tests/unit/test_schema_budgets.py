"""`budgets:` of policies and profiles: what is read, and what is refused with its place."""

from __future__ import annotations

import pytest

from runner.errors import BadInputError
from runner.model.budget import Budget, BudgetOf, Calendar, Period, PerRun, Resource, Sliding
from runner.schema.budgets import parse_money
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile


def stated(tmp_path, *lines: str) -> tuple[Budget, ...]:
    path = tmp_path / "policy.yaml"
    path.write_text("budgets:\n" + "".join(f"  - {line}\n" for line in lines))
    return load_policy_file(path).budgets


def test_everything_that_can_be_stated(tmp_path):
    (found,) = stated(
        tmp_path,
        "{ id: team, of: 'label:team', per: calendar month, zone: Europe/Berlin, calls: 10, "
        "wall: 90m, cpu: 0.5, execs: 3, connections: 4, requests: 5, bytes: 1MiB, tokens: 6, "
        "money: 12.50, at_once: 2, agents: a*, tenants: [t], uids: [7], labels: {k: v*}, "
        "profiles: agent, warn_at: [80%, 50%], soft: true }",
    )
    assert found == Budget(
        id="team", of=BudgetOf.LABEL, label="team",
        window=Calendar(Period.MONTH, "Europe/Berlin"),
        amounts=(
            (Resource.CALLS, 10), (Resource.WALL, 5_400_000_000), (Resource.CPU, 500_000),
            (Resource.EXECS, 3), (Resource.CONNECTIONS, 4), (Resource.REQUESTS, 5),
            (Resource.BYTES, 1 << 20), (Resource.TOKENS, 6), (Resource.MONEY, 12_500_000),
            (Resource.AT_ONCE, 2),
        ),
        agents=("a*",), tenants=("t",), uids=(7,), labels=(("k", "v*"),), profiles=("agent",),
        warn_at=(50, 80), soft=True,
    )  # fmt: skip
    assert {resource for resource, _ in found.amounts} == set(Resource)


def test_windows(tmp_path):
    found = stated(
        tmp_path,
        "{ id: a, of: all, per: 10m, calls: 1 }",
        "{ id: b, of: agent, per: 30, calls: 1 }",
        "{ id: c, of: uid, per: calendar day, calls: 1 }",
        "{ id: d, of: session, per: run, wall: 1m }",
        "{ id: e, of: tenant, at_once: 3 }",
    )
    assert [each.window for each in found] == [
        Sliding(600.0), Sliding(30.0), Calendar(Period.DAY, "UTC"), PerRun.RUN, None,
    ]  # fmt: skip


BAD = [
    ("{ of: all, at_once: 1 }", "id"),
    ("{ id: a, at_once: 1 }", "of"),
    ("{ id: A, of: all, at_once: 1 }", "small letters"),
    ("{ id: a, of: everybody, at_once: 1 }", "label:NAME"),
    ("{ id: a, of: 'label:', at_once: 1 }", "label:NAME"),
    ("{ id: a, of: all }", "bounds nothing"),
    ("{ id: a, of: all, calls: 3 }", "no 'per'"),
    ("{ id: a, of: all, per: 1h, at_once: 3 }", "every moment"),
    ("{ id: a, of: all, per: run, calls: 3 }", "one run"),
    ("{ id: a, of: all, per: run, wall: 1s, at_once: 1 }", "one run"),
    ("{ id: a, of: all, per: 1:30, calls: 1 }", "1:30"),
    ("{ id: a, of: all, per: unlimited, calls: 1 }", "an end"),
    ("{ id: a, of: all, per: 500ms, calls: 1 }", "less than a second"),
    ("{ id: a, of: all, per: calendar year, calls: 1 }", "no part of the calendar"),
    ("{ id: a, of: all, per: 0, calls: 1 }", "not above zero"),
    ("{ id: a, of: all, per: 1h, zone: UTC, calls: 1 }", "calendar window"),
    ("{ id: a, of: all, per: calendar day, zone: Mars/Base, calls: 1 }", "Mars/Base"),
    ("{ id: a, of: all, per: 1h, calls: 0 }", "calls"),
    ("{ id: a, of: all, per: 1h, calls: yes }", "calls"),
    ("{ id: a, of: all, per: 1h, calls: true }", "calls"),
    ("{ id: a, of: all, per: 1h, calls: 1.5 }", "calls"),
    ("{ id: a, of: all, per: 1h, wall: 1:30 }", "1:30"),
    ("{ id: a, of: all, per: 1h, wall: unlimited }", "an end"),
    ("{ id: a, of: all, per: 1h, cpu: -1 }", "not above zero"),
    ("{ id: a, of: all, per: 1h, bytes: unlimited }", "an end"),
    ("{ id: a, of: all, per: 1h, money: 0 }", "nothing"),
    ("{ id: a, of: all, per: 1h, money: 0.0000001 }", "money"),
    ("{ id: a, of: all, per: 1h, money: true }", "money"),
    ("{ id: a, of: all, per: 1h, money: .inf }", "money"),
    ("{ id: a, of: all, per: 1h, money: 5 USD }", "money"),
    ("{ id: a, of: all, per: 1h, disk: 5 }", "disk"),
    ("{ id: a, of: all, at_once: 1, warn_at: [0.5] }", "percents"),
    ("{ id: a, of: all, at_once: 1, warn_at: [0%] }", "percents"),
    ("{ id: a, of: all, at_once: 1, warn_at: [101%] }", "percents"),
    ("{ id: a, of: all, at_once: 1, warn_at: [] }", "empty"),
    ("{ id: a, of: all, at_once: 1, soft: 1 }", "soft"),
    ("{ id: a, of: all, at_once: 1, uids: [-1] }", "uids"),
    ("{ id: a, of: all, at_once: 1, agents: [] }", "empty"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_what_is_wrong_is_said_with_its_place(tmp_path, line, said):
    with pytest.raises(BadInputError) as caught:
        stated(tmp_path, line)
    assert said in str(caught.value)
    assert "policy.yaml:2" in str(caught.value)


def test_an_id_is_used_once(tmp_path):
    line = "{ id: a, of: all, at_once: 1 }"
    with pytest.raises(BadInputError, match="there already"):
        stated(tmp_path, line, line)


@pytest.mark.parametrize(
    ("written", "microdollars"),
    [(5, 5_000_000), (0.1, 100_000), (12.5, 12_500_000), ("12.50", 12_500_000),
     ("0.000001", 1), (1e-06, 1), (2.5e-05, 25), (999_999_999.999999, 999_999_999_999_999)],
)  # fmt: skip
def test_money_is_decimal(written, microdollars):
    assert parse_money(written) == microdollars


@pytest.mark.parametrize("written", [-1, "1,5", "1e3", 1e12, None, "", "\u0665", 0.1 + 0.2, [1]])
def test_what_is_no_money(written):
    with pytest.raises(ValueError, match="money"):
        parse_money(written)


def test_a_profile_adds_to_what_it_extends(tmp_path):
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    base.write_text("extends: agent\nbudgets: [{ id: a, of: all, at_once: 4 }]\n")
    child.write_text("extends: ./base.yaml\nbudgets: [{ id: b, of: uid, at_once: 2 }]\n")
    assert [each.id for each in load_profile(str(child)).budgets] == ["a", "b"]
    child.write_text("extends: ./base.yaml\nbudgets: [{ id: a, of: all, at_once: 99 }]\n")
    with pytest.raises(BadInputError, match="give this another id"):
        load_profile(str(child))


def test_what_only_observes_states_none(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("observe: true\nbudgets: [{ id: a, of: all, at_once: 1 }]\n")
    with pytest.raises(BadInputError, match="only observes"):
        load_policy_file(path)
