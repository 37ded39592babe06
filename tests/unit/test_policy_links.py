"""Paths that go through links, made by the text itself or there before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_cases import ALLOW, DENY, action, allowed, denied, layer, rule

from runner.model.action import Facts
from runner.model.rule import Match, OnDoubt
from runner.policy.engine import RulesDecisionPoint, create
from runner.policy.links import Links

ETC = Match(paths=("/etc/passwd",))
SURE = {"on_doubt": OnDoubt.PASSES}


@pytest.mark.parametrize(
    "text",
    ["ln -s / l; cat l/etc/passwd", "ln -sf /etc l && cat l/passwd",
     "ln -sfn /etc ./l; cat ./l/passwd",
     "ln -s -t . /etc; cat etc/passwd", "ln -st d /etc; cat d/etc/passwd",
     "ln --symbolic --target-directory=d /etc; cat d/etc/passwd", "ln -s /etc; cat etc/passwd",
     "ln -s /etc d; cat d/etc/passwd", "cp -s /etc/passwd p; cat p", "ln /etc/passwd p; cat < p",
     "link /etc/passwd p; cat p", "ln -s ../../etc l; cat l/passwd",
     "ln -s / a; ln -s a/etc b; cat b/passwd",
     "ln -s / l; cd l; cat etc/passwd", "ln -s /etc/x l; cat l/../passwd",
     "sudo ln -s / l; cat l/etc/passwd",
     "ln -s / l; cat l/*/passwd", "ln -s /etc l; cat l/pass*", "ln -s /etc/passwd p; cp p out"],
)  # fmt: skip
def test_a_link_of_the_same_text_is_followed(text: str) -> None:
    if "*" in text:
        assert denied(text, ETC)
    else:
        last = text.replace(" && ", "; ").rpartition("; ")[2].partition(" ")[0]
        assert denied(text, replace(ETC, commands=(last,)), **SURE)


@pytest.mark.parametrize(
    "text",
    ["ln -s /tmp l; cat l/etc/passwd", "ln -s / l; cat m/etc/passwd", "ln -s /etc l; rm l",
     "ln -s /etc l; ls l", "cp / l; cat l/etc/passwd", "ln -s /etc/passwd d/x; cat d",
     "ln -s a b; cat *"],
)  # fmt: skip
def test_other_paths_are_not(text: str) -> None:
    assert not denied(text, replace(ETC, commands=("cat", "rm", "ls")), **SURE)


def test_the_path_as_it_is_written_counts_too() -> None:
    assert denied("ln -s / l; cat l/x", Match(paths=("./l/x",)), **SURE)
    assert not allowed("ln -s / l; cat l/x", Match(commands=("cat", "ln"), paths=("./**",)))
    assert allowed("cat l/x", Match(commands=("cat",), paths=("./**",)))


def test_taking_a_link_away_is_not_taking_away_what_it_leads_to() -> None:
    whole = Match(commands=("rm",), paths=("/",))
    assert not denied("ln -s / l; rm l", whole)
    assert denied("ln -s / l; rm -rf l/", whole)


def test_a_target_that_only_running_would_tell_is_a_doubt() -> None:
    text = 'ln -s "$x" l; cat l/passwd'
    cat = replace(ETC, commands=("cat",))
    assert denied(text, cat)
    assert not denied(text, cat, **SURE)
    assert not denied('ln -s "$x" l; cat m/passwd', cat)
    assert not denied('ln -s "$x" l; cat l/other', cat)


def test_links_in_circles_end() -> None:
    links = Links()
    links.add("/a", "/b/x")
    links.add("/b", "/a/x")
    assert links.through("/a/y")[1]
    links.add("/c", "/c")
    assert links.through("/c/y") == (["/c/y"], [])


LINKED = Facts(links={"l": "/etc", "/srv/ws/up": "../../etc"})


@pytest.mark.parametrize("text", ["cat l/passwd", "cat up/passwd", "cat ../ws/l/passwd",
                                  "cd l && cat passwd", "echo > l/passwd"])  # fmt: skip
def test_links_that_are_there_are_followed(text: str) -> None:
    each = replace(action(text), facts=LINKED)
    assert denied(each, ETC, **SURE)
    assert not denied(text, ETC, **SURE)
    assert not denied(each, Match(paths=("/etc/shadow",)), **SURE)


def test_a_decision_is_remembered_with_the_links() -> None:
    point = create([layer(rule(DENY, ETC, **SURE))])
    plain = action("cat l/passwd")
    for _ in range(2):
        assert point.decide(plain).effect is ALLOW
        assert point.decide(replace(plain, facts=LINKED)).effect is DENY
    assert RulesDecisionPoint([layer(rule(DENY, ETC, **SURE))], indexed=False).decide(
        replace(plain, facts=LINKED)
    ) == point.decide(replace(plain, facts=LINKED))
