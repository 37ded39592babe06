"""Patterns that begin with `./`, and options whose value is the next word."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_cases import ALLOW, DENY, action, allowed, decide, denied, layer, rule

from runner.model.action import Request
from runner.model.principal import Principal
from runner.model.rule import Match, OnDoubt
from runner.policy.engine import RulesDecisionPoint, create
from runner.policy.lint import Check, Linted, Severity, lint
from runner.policy.notation import in_workspace, local

HOOKS = Match(writes=("./.git/hooks/**",))


@pytest.mark.parametrize(
    "text",
    ["tee .git/hooks/pre-commit", "tee ./.git/hooks/x", "tee /srv/ws/.git/hooks/x",
     "tee ../ws/.git/hooks/x", "cd .git; tee hooks/x", "cd /srv && tee ws/.git//hooks/../hooks/x",
     "echo > .git/hooks/x", "rm -r .git/hooks"],
)  # fmt: skip
def test_a_place_in_the_workspace_is_the_same_however_it_is_written(text: str) -> None:
    assert denied(text, HOOKS)


@pytest.mark.parametrize(
    "text",
    ["tee sub/.git/hooks/x", "tee /tmp/.git/hooks/x", "cd sub; tee other/x", "tee .git/hook",
     "cat .git/hooks/x"],
)  # fmt: skip
def test_and_no_other_place_is(text: str) -> None:
    assert not denied(text, HOOKS)


def test_the_workspace_of_the_request_counts() -> None:
    other = replace(action("tee .git/hooks/x"), workspace="/home/me/a [b]*?\\")
    assert denied(other, HOOKS)
    assert not denied(replace(action("tee /srv/ws/.git/hooks/x"), workspace="/home/me"), HOOKS)
    assert not denied(replace(action("tee /home/me/ax/x"), workspace="/home/me/a?"),
                      Match(writes=("./**",)))  # fmt: skip


@pytest.mark.parametrize(("pattern", "path"), [(".", "."), ("./**", "."), ("./**", "a/b"),
                                               ("./*", "a"), ("./[ab]", "a")])  # fmt: skip
def test_the_workspace_itself_and_what_is_in_it(pattern: str, path: str) -> None:
    assert denied(f"ls {path}", Match(paths=(pattern,)))
    assert not denied("ls /srv", Match(paths=(pattern,)))
    assert not denied("ls /srv/wsx/a", Match(paths=(pattern,)))


def test_an_allow_needs_every_path_in_the_workspace() -> None:
    match = Match(commands=("tee",), writes=("./out/**",))
    assert allowed("tee out/a ../ws/out/b", match)
    assert not allowed("tee out/a /tmp/b", match)
    assert not allowed('tee "out/$x"', match)
    assert not allowed("cd $x; tee out/a", match)


def test_doubt_counts_as_for_absolute_patterns() -> None:
    assert denied('tee "$x/pre-commit"', HOOKS)
    assert not denied('tee "$x/pre-commit"', HOOKS, on_doubt=OnDoubt.PASSES)
    assert not denied("tee out/*.o", HOOKS)
    assert denied("rm out/*", Match(paths=("./out/x",)), on_doubt=OnDoubt.PASSES)
    assert not denied("rm out/*", Match(paths=("./x",)), on_doubt=OnDoubt.PASSES)


def test_a_request_over_the_network_has_no_workspace() -> None:
    asked = Request(Principal(1), "GET", "a.com", 443, "/workspace/x")
    one = layer(rule(DENY, Match(hosts=("a.com",), paths=("./**",))))
    assert create([one]).decide(asked).effect is ALLOW


@pytest.mark.parametrize("workspace", ["/", "/a", "/a/b*"])
def test_both_ways_of_writing_a_place_fit(workspace: str) -> None:
    assert local(workspace, workspace) == "."
    inside = workspace.rstrip("/") + "/x"
    assert local(inside, workspace) == "./x"
    assert in_workspace("./x", workspace).replace("\\", "") == inside
    assert in_workspace(".", "/") == "/"
    assert local("/other", "/a") is None


def _problems(pattern: str) -> list[str]:
    found = lint(Linted(layer(rule(DENY, Match(paths=(pattern,)), "r")), frozenset({"r"})))
    return [
        f"{each.what}; {each.todo}"
        for each in found
        if each.check is Check.PATTERN and each.severity is Severity.ERROR
    ]


@pytest.mark.parametrize(
    ("pattern", "todo"),
    [("out/x", "./out/x for the one in the workspace"), ("**/", "write **"),
     ("./out/", "write ./out"), ("./", "write ."), ("./a/../b", "write ./b"),
     ("../x", "never above"), ("./../x", "never above"), ("x", "./x for the one"),
     ("/etc/", "write /etc")],
)  # fmt: skip
def test_what_matches_no_path_is_an_error(pattern: str, todo: str) -> None:
    assert any(todo in each for each in _problems(pattern)), _problems(pattern)


@pytest.mark.parametrize("pattern", ["./out/x", ".", "/", "~", "~/x", "**/x", "./**/x"])
def test_what_matches_some_path_is_none(pattern: str) -> None:
    assert _problems(pattern) == []


# Options and their values.

FAST = Match(commands=("build",), args=("--mode=fast",))


@pytest.mark.parametrize("text", ["build --mode=fast", "build --mode fast", "build x --mode fast y",
                                  "build --mode 'fast'"])  # fmt: skip
def test_the_value_of_an_option_may_be_the_next_word(text: str) -> None:
    assert denied(text, FAST)
    assert allowed(text, FAST)


@pytest.mark.parametrize("text", ["build --mode slow", "build --mode x fast", "build --mod fast",
                                  "build fast --mode", "build mode fast",
                                  "build --mode"])  # fmt: skip
def test_another_value_is_none(text: str) -> None:
    assert not denied(text, FAST)
    assert not allowed(text, FAST)


@pytest.mark.parametrize("text", ['build --mode "$x"', "build --mode $x", 'build --mode "f$x"',
                                  'build "$o" fast', 'build "--$o" fast',
                                  "build --mode `x`"])  # fmt: skip
def test_a_value_that_only_running_would_tell_is_a_doubt(text: str) -> None:
    assert denied(text, FAST)
    assert not denied(text, FAST, on_doubt=OnDoubt.PASSES)
    assert not allowed(text, FAST)


@pytest.mark.parametrize("text", ['build --mode "s$x"', 'build --oth "s$x"', 'build "--x$o" fast'])
def test_what_it_can_not_become_is_none(text: str) -> None:
    assert not denied(text, FAST)


def test_lists_and_globs_read_options_alike() -> None:
    assert denied("build --mode fast", Match(any_args=("-x", "--mode=f*")))
    assert denied("build --mode fast go", Match(ordered_args=("--mode=fast", "go")))
    assert not denied("build go --mode fast", Match(ordered_args=("--mode=fast", "go")))
    assert not denied("build --mode fast", Match(args=("*=fast",)))
    assert denied("build --mode 'a b'", Match(args=("--mode=*",)))


def test_the_index_finds_them() -> None:
    many = [rule(DENY, Match(args=(f"--o{n}={n}",)), f"r{n}") for n in range(20)]
    many += [rule(DENY, Match(paths=(f"./d{n}/**",)), f"p{n}") for n in range(20)]
    one = layer(*many)
    for text in ("x --o7 7", "x d7", "x ../ws/d7/a/b", "x d7/*", 'x --o7 "$y"', "x e7"):
        each = action(text)
        assert create([one]).decide(each) == RulesDecisionPoint([one], indexed=False).decide(each)
    assert decide("x --o7 7", one).effect is DENY
    assert decide("x ../ws/d7/a/b", one).effect is DENY
    assert decide("x e7", one).effect is ALLOW
