"""Looking up the links of a workspace, and deciding with them."""

from __future__ import annotations

import os

import pytest

from runner import linked
from runner.deciding import Policy, decide
from runner.intake import build_request
from runner.model.action import Facts
from runner.model.decision import Effect
from runner.model.rule import Match, OnDoubt, PolicyLayer, Rule
from runner.policy import following
from runner.policy.engine import create
from runner.schema.profiles import load_profile


@pytest.fixture
def ws(tmp_path):
    folder = tmp_path / "ws"
    (folder / "real/deep").mkdir(parents=True)
    (folder / "l").symlink_to("/etc")
    (folder / "rel").symlink_to("real")
    (folder / "real/deep/up").symlink_to("../../l")
    (folder / "loop").symlink_to("loop")
    (tmp_path / "beside").symlink_to("/etc")
    return folder


def found(ws, *paths):
    return linked.find(str(ws), [f"{ws}/{path}" for path in paths])


def test_links_on_the_way_are_found_and_nothing_else(ws):
    assert found(ws, "l/passwd") == {f"{ws}/l": "/etc"}
    assert found(ws, "rel/deep/up/passwd") == {
        f"{ws}/rel": "real", f"{ws}/real/deep/up": "../../l", f"{ws}/l": "/etc",
    }  # fmt: skip
    assert found(ws, "real/deep/x", "missing/l", "real/../real", "\0") == {}
    assert found(ws, "../beside/passwd", "../../etc") == {}
    assert found(ws, "loop/x") == {f"{ws}/loop": "loop"}


def test_look_ups_are_bounded(ws, monkeypatch):
    asked = []
    readlink = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: asked.append(path) or readlink(path))
    found(ws, *(f"x{n}" for n in range(linked.LOOKUPS_LIMIT * 2)))
    assert len(asked) == linked.LOOKUPS_LIMIT
    asked.clear()
    found(ws, *["real/deep/x"] * 100)
    assert len(asked) == 3


def policy(*rules):
    layer = PolicyLayer("p", rules, default=Effect.ALLOW)
    return Policy(load_profile("agent"), create([layer]))


PASSWD = Rule("passwd", Effect.DENY, Match(paths=("/etc/passwd",)), "", on_doubt=OnDoubt.PASSES)


@pytest.mark.parametrize("text", ["cat l/passwd", "cat rel/deep/up/passwd", "cd l; cat passwd",
                                  "cat < l/passwd", "cat rel/../l/passwd",
                                  "sudo cat ./l/passwd"])  # fmt: skip
def test_rules_see_where_links_lead(ws, text):
    request = build_request(shell=text, cwd=ws)
    assert decide(request, policy(PASSWD), Facts(), linked.find).decision.effect is Effect.DENY
    assert decide(request, policy(PASSWD), Facts()).decision.effect is Effect.ALLOW


def test_rules_on_the_path_as_it_is_written_still_match(ws):
    written = Rule("l", Effect.DENY, Match(paths=("./l/passwd",)), "")
    request = build_request(shell="cat l/passwd", cwd=ws)
    assert decide(request, policy(written), Facts(), linked.find).decision.effect is Effect.DENY


def test_a_link_that_changes_changes_the_decision(ws):
    request, held = build_request(shell="cat l/passwd", cwd=ws), policy(PASSWD)
    effects = []
    for target in ("/etc", "/tmp", "/etc"):
        (ws / "l").unlink()
        (ws / "l").symlink_to(target)
        effects.append(decide(request, held, Facts(), linked.find).decision.effect)
    assert effects == [Effect.DENY, Effect.ALLOW, Effect.DENY]


def test_nothing_is_looked_up_where_no_rule_states_paths(ws):
    def never(workspace, paths):
        raise AssertionError

    request = build_request(shell="cat l/passwd", cwd=ws)
    held = policy(Rule("rm", Effect.DENY, Match(commands=("rm",)), ""))
    assert decide(request, held, Facts(), never).permitted
    inner = policy(Rule("x", Effect.DENY, Match(any_of=(Match(writes=("/x",)),)), ""))
    with pytest.raises(AssertionError):
        decide(request, inner, Facts(), never)


def test_the_number_of_paths_is_bounded(ws):
    request = build_request(shell="cat " + " ".join(f"f{n}" for n in range(1000)), cwd=ws)
    seen = []
    decide(request, policy(PASSWD), Facts(), lambda _, paths: seen.append(len(paths)) or {})
    assert seen == [following.PATHS_LIMIT]
