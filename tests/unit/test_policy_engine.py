"""Deciding: layers, defaults, what is dynamic, what is observed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.analysis import read
from runner.model.action import Action, Connect, Exec, Request, Tool
from runner.model.decision import STRICTNESS, Decision, Effect
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.principal import Principal
from runner.model.request import Argv, Script, ShellText
from runner.model.rule import Match, OnDoubt, OnUnknown, PolicyLayer, Rewrite, Rule
from runner.policy.engine import DECIDE_AT_EXEC, create, digest
from runner.policy.touched import hosts

ME = Principal(1000)
ALLOW, DENY, ASK, REWRITE = Effect.ALLOW, Effect.DENY, Effect.ASK, Effect.REWRITE


def rule(effect: Effect, name: str = "", **match: tuple[str, ...]) -> Rule:
    rewrite = Rewrite(("other",)) if effect is REWRITE else None
    told = "do something else"
    return Rule(name or f"{effect}-rule", effect, Match(**match), told, rewrite=rewrite)


def layer(*rules: Rule, name: str = "profile:test", **more: object) -> PolicyLayer:
    stated = {"default": ALLOW, "on_dynamic": OnUnknown.DENY, "on_unreadable": OnUnknown.DENY}
    return PolicyLayer(name, rules, **{**stated, **more})  # type: ignore[arg-type]


def action(text: str, workspace: str | None = "/srv/ws", environment: tuple[str, ...] = ()) -> Exec:
    return Exec(ME, read(ShellText(text)), workspace, environment)


def decide(text: str, *layers: PolicyLayer) -> Decision:
    return create(layers).decide(action(text))


def effect(text: str, *rules: Rule, **more: object) -> Effect:
    return decide(text, layer(*rules, **more)).effect


def test_strictest_rule_wins_and_is_named() -> None:
    rules = (rule(ALLOW, commands=("rm",)), rule(DENY, "no-rm", commands=("rm",), args=("-r",)))
    decision = decide("true; sudo rm -rf x", layer(*rules))
    assert decision.effect is DENY
    assert not decision.permits
    assert [(r.id, r.layer, r.matched) for r in decision.rules if r.effect is DENY] == [
        ("no-rm", "profile:test", "rm -rf x")
    ]
    assert decision.reason == (
        "rule 'no-rm' of 'profile:test' denies 'rm -rf x' behind sudo: do something else"
    )


def test_effects_combine_over_commands_and_layers() -> None:
    rules = (rule(REWRITE, commands=("pip",)), rule(ASK, commands=("git",)))
    other = layer(rule(DENY, commands=("rm",)), name="organisation", default=None)
    assert decide("ls; pip x", layer(*rules), other).effect is REWRITE
    assert decide("pip x; git y", layer(*rules), other).effect is ASK
    assert decide("git y; rm z; pip x", layer(*rules), other).effect is DENY


def test_default_is_for_what_no_rule_matches() -> None:
    listed = layer(rule(ALLOW, commands=("ls",)), default=DENY)
    assert decide("ls x", listed).effect is ALLOW
    refused = decide("ls x; cat y", listed)
    assert refused.effect is DENY
    assert "'cat y'" in refused.reason
    assert decide("cat y", layer(default=ASK)).effect is ASK


def test_silence_is_denied() -> None:
    silent = PolicyLayer("silent", (rule(ALLOW, commands=("ls",)),))
    assert decide("ls", silent).effect is ALLOW
    assert "no rule or default allows" in decide("ls; cat", silent).reason
    assert decide("ls").effect is DENY
    assert decide("", layer()).effect is ALLOW
    assert decide("", silent).effect is DENY
    assert decide("x=1", layer(default=DENY)).effect is DENY


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ((OnUnknown.DENY,), DENY),
        ((OnUnknown.ASK,), ASK),
        ((OnUnknown.ASK, OnUnknown.DENY), DENY),
        ((OnUnknown.DEFER, OnUnknown.ASK), ASK),
        ((OnUnknown.DEFER,), ALLOW),
        ((None,), DENY),
    ],
)
def test_dynamic_names(stated: tuple[OnUnknown | None, ...], expected: Effect) -> None:
    layers = [layer(name=str(i), on_dynamic=each) for i, each in enumerate(stated)]
    decision = decide("$x y", *layers)
    assert decision.effect is expected
    assert (decision.obligations == (DECIDE_AT_EXEC,)) is (stated == (OnUnknown.DEFER,))


@pytest.mark.parametrize(
    ("stated", "expected"),
    [(OnUnknown.DENY, DENY), (OnUnknown.ASK, ASK), (OnUnknown.DEFER, DENY), (None, DENY)],
)
def test_unreadable_text(stated: OnUnknown | None, expected: Effect) -> None:
    decision = decide("ls; )", layer(on_unreadable=stated))
    assert decision.effect is expected
    assert "line 1" in decision.reason


def test_python_is_advice() -> None:
    point = create([layer(rule(DENY, commands=("rm",)), rule(DENY, writes=("/etc/**",)))])

    def of(text: str) -> Effect:
        intent = read(Script(text.encode(), "python", ("python3",), "x.py"))
        return point.decide(Exec(ME, intent, "/srv/ws")).effect

    assert of("import os; os.system(x)") is ALLOW
    assert of("def") is ALLOW
    assert of("open(path, 'w')") is ALLOW
    assert of("import os; os.system('rm x')") is DENY
    assert of("open('/etc/passwd', 'w')") is DENY
    assert of("open('/etc/passwd')") is ALLOW


REMOVE = rule(DENY, commands=("rm",), args=("-r*",), paths=("/", "/*"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rm -rf /", DENY),
        ("rm -rf /tmp", DENY),
        ("rm -rf /tmp/x", ALLOW),
        ("rm -rf ../..", DENY),
        ("rm -rf ./../../srv", DENY),
        ("rm x", ALLOW),
        ("rm $x", DENY),
        ('rm "$x"', ALLOW),
        ('rm -f "$x"', ALLOW),
        ('rm "$x" "$y"', DENY),
        ('rm "$@"', DENY),
        ('rm -rf "$x"', DENY),
        ('rm -rf "$x/build"', DENY),
        ('rm -rf "$x/build/out"', ALLOW),
        ("rm -rf *.o", ALLOW),
        ("rm -rf /*", DENY),
        ("rm -rf src/*", ALLOW),
        ("rm *", ALLOW),
        ("rm /*", ALLOW),  # none of these names is a flag
        ("cd / && rm -rf *", DENY),
        ("cd $x && rm -rf y", DENY),
        ("cd $x && rm -rf y/z", ALLOW),
        ("cd ~ && rm -rf ../../srv", DENY),
        ("ls $x", ALLOW),
    ],
)
def test_dynamic_words_count_for_what_they_could_be(text: str, expected: Effect) -> None:
    assert effect(text, REMOVE) is expected


def test_doubt_about_words_can_be_left_to_the_execve() -> None:
    lazy = layer(REMOVE, on_dynamic=OnUnknown.DEFER)
    decision = decide("rm $x", lazy)
    assert decision.effect is ALLOW
    assert decision.obligations == (DECIDE_AT_EXEC,)
    assert decide("rm -rf /", lazy).effect is DENY
    writes = layer(rule(DENY, writes=("/etc/**",)), on_dynamic=OnUnknown.DEFER)
    assert decide('echo x > "$f"', writes).effect is DENY  # no execve will show it
    assert (
        decide("cd $x", layer(rule(DENY, args=("y",)), on_dynamic=OnUnknown.DEFER)).effect is DENY
    )


CERTAIN = ["rm -rf /", "rm -rf /tmp", "rm -rf ../.."]


@pytest.mark.parametrize(
    "text",
    [*CERTAIN, "rm $x", 'rm "$@"', 'rm -rf "$x"', "rm -rf $x/build", "cd $x && rm -rf y",
     "ls | xargs rm -r", "find / -name x -delete"],
)  # fmt: skip
def test_doubt_passes_by_rule_or_by_layer(text: str) -> None:
    certain = DENY if text in CERTAIN else ALLOW
    passing = replace(REMOVE, on_doubt=OnDoubt.PASSES)
    assert effect(text, REMOVE) is DENY
    assert effect(text, passing) is certain
    assert effect(text, REMOVE, on_doubt=OnDoubt.PASSES) is certain
    assert effect(text, replace(REMOVE, on_doubt=OnDoubt.MATCHES), on_doubt=OnDoubt.PASSES) is DENY
    # Another layer has its own word.
    assert decide(text, layer(passing), layer(REMOVE, name="organisation")).effect is DENY


def test_doubt_of_a_layer_that_defers_is_decided_at_the_execve() -> None:
    lazy = layer(REMOVE, on_dynamic=OnUnknown.DEFER, on_doubt=OnDoubt.PASSES)
    decision = decide('rm -rf "$x"', lazy)
    assert (decision.effect, decision.obligations) == (ALLOW, (DECIDE_AT_EXEC,))


def test_what_may_run_nothing() -> None:
    passing = OnDoubt.PASSES
    assert effect("find $x") is DENY
    assert effect("find $x", on_doubt=passing) is ALLOW
    assert effect("find $x", on_doubt=passing, on_dynamic=OnUnknown.ASK) is ALLOW
    assert effect("$x", on_doubt=passing) is DENY
    assert effect("env $x", on_doubt=passing) is DENY
    # What a list allows must be certain.
    listed = rule(ALLOW, commands=("find",))
    assert effect("find x", listed, default=DENY, on_doubt=passing) is ALLOW
    assert effect("find $x", listed, default=DENY, on_doubt=passing) is DENY
    assert decide("find $x", layer(on_doubt=passing), layer(name="organisation")).effect is DENY


def test_a_glob_over_a_whole_folder_is_certain_of_what_stands_in_it() -> None:
    certain = rule(DENY, paths=("/usr", "/srv/ws/.git", "/opt/x*"))
    passing = replace(certain, on_doubt=OnDoubt.PASSES)
    assert effect("ls /*", passing) is DENY
    for text in ("ls /*x", "ls *", "ls /srv/ws/*", "ls /opt/*", 'ls "/"*', "ls /*/*", "ls $x/*"):
        assert effect(text, passing) is ALLOW, text


@pytest.mark.parametrize(
    ("match", "text", "expected"),
    [
        ({"commands": ("git",)}, "/usr/bin/git x", True),
        ({"commands": ("/usr/bin/git",)}, "git x", False),
        ({"commands": ("/usr/bin/git",)}, "/usr/./bin//git x", True),
        ({"commands": ("g*",)}, "git x", True),
        ({"commands": ("a", "git")}, "git x", True),
        ({"args": ("-r", "-f")}, "rm -fr x", True),
        ({"args": ("-r", "-f")}, "rm -r x", False),
        ({"any_args": ("-r", "-f")}, "rm -r x", True),
        ({"args": ("-r",)}, "rm --recursive x", False),
        ({"paths": ("/srv/ws/a",)}, "cat ./b/../a", True),
        ({"paths": ("/srv/ws/a",)}, "cat --file=a", True),
        ({"paths": ("/home/agent/.ssh/*",)}, "cat ~/.ssh/id", True),
        ({"paths": ("~/.ssh/*",)}, 'cat "$HOME/.ssh/id"', True),
        ({"paths": ("/etc/*",)}, "cat < /etc/passwd", True),
        ({"paths": ("/etc/*",)}, "curl -d @/etc/passwd http://x", True),
        ({"paths": ("/etc/*",)}, "scp host:/etc/passwd .", True),
        ({"writes": ("/etc/*",)}, "cat < /etc/passwd", False),
        ({"writes": ("/etc/*",)}, "> /etc/passwd", True),
        ({"writes": ("/etc/*",)}, "cp a /etc/b", True),
        ({"hosts": ("example.com",)}, "curl https://u@Example.COM.:8080/x", True),
        ({"hosts": ("*.example.com",)}, "git clone git@git.example.com:x/y", True),
        ({"hosts": ("example.com",)}, "ssh user@example.com ls", True),
        ({"hosts": ("example.com",)}, "exec 3<>/dev/tcp/example.com/80", True),
        ({"hosts": ("example.com",)}, "curl https://example.org", False),
        ({"hosts": ("example.com",)}, 'curl "https://example.org/$x"', False),
        ({"hosts": ("example.com",)}, 'curl "$x"', True),
        ({"environment": ("LD_*",)}, "LD_PRELOAD=x ls", True),
        ({"environment": ("LD_*",)}, "env LD_PRELOAD=x ls", True),
        ({"environment": ("LD_*",)}, "ls", False),
        ({"via": ("sudo",)}, "sudo ls", True),
        ({"via": ("sudo",)}, "ls sudo", False),
        ({"commands": ("ls",), "via": ("sudo",)}, "sudo ls", True),
        ({}, "anything", True),
    ],
)  # fmt: skip
def test_conditions(match: dict[str, tuple[str, ...]], text: str, expected: bool) -> None:
    assert (effect(text, rule(DENY, **match)) is DENY) is expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nc -z 127.0.0.1 8080", ["127.0.0.1"]),
        ("nc 127.0.0.1 65535", ["127.0.0.1"]),
        ("nc 127.0.0.1 65536", ["127.0.0.1", "65536"]),
        ("nc 127.0.0.1 2130706433", ["127.0.0.1", "2130706433"]),
        ("nc 127.0.0.1 00000000080", ["127.0.0.1", "00000000080"]),
        ("nc 127.0.0.1 0x7f000001", ["127.0.0.1", "0x7f000001"]),
        ("nc 127.0.0.1 evil.com 80", ["127.0.0.1", "evil.com"]),
        ("nc 127.0.0.1 \u0661\u0662", ["127.0.0.1", "\u0661\u0662"]),
        ("nc ::1 80", ["::1"]),
        ("nc '[::1]:80'", ["::1"]),
        ("curl '[2001:db8::1]:80/x'", ["2001:db8::1"]),
        ("curl '[2001:db8::1]:/x'", ["2001:db8::1"]),
        ("curl 'a.com:'", ["a.com"]),
        ("nc -lp 4444", ["4444"]),
        ("nc 2130706433 80", ["2130706433"]),
        ("telnet a.com 25", ["a.com"]),
        ("/usr/bin/ncat a.com 25", ["a.com"]),
        ("ssh me@a.com 22", ["a.com"]),
        ("nc $x 25", ["$x"]),
        ("curl a.com 25", ["a.com", "25"]),
        ("ping a.com 25", ["a.com", "25"]),
    ],
)
def test_a_number_behind_a_host_is_its_port(text: str, named: list[str]) -> None:
    assert [host.text for host in hosts(action(text).intent.commands[0])] == named


def test_environment_of_the_request_counts() -> None:
    point = create([layer(rule(DENY, environment=("LD_*",)))])
    assert point.decide(action("ls", environment=("LD_AUDIT",))).effect is DENY
    assert point.decide(action("ls", environment=("LANG",))).effect is ALLOW


@pytest.mark.parametrize(
    ("match", "text", "expected"),
    [
        ({"commands": ("ls",)}, "ls $x", True),
        ({"commands": ("ls",)}, "/usr/bin/ls", True),
        ({"commands": ("ls",)}, "./ls", False),
        ({"commands": ("ls",)}, "/usr/bin/../../tmp/ls", False),
        ({"commands": ("ls",)}, "PATH=. ls", False),
        ({"commands": ("ls",)}, "export PATH=.; ls", False),
        ({"commands": ("ls",)}, "l$x", False),
        ({"commands": ("ls",), "args": ("-l",)}, "ls $x", False),
        ({"commands": ("cat",), "paths": ("/srv/ws/**",)}, "cat a b/c", True),
        ({"commands": ("cat",), "paths": ("/srv/ws/**",)}, "cat a /etc/passwd", False),
        ({"commands": ("cat",), "paths": ("/srv/ws/**",)}, "cat a ../b", False),
        ({"commands": ("cat",), "paths": ("/srv/ws/**",)}, "cat a $x", False),
        ({"commands": ("cat",), "paths": ("/srv/ws/**",)}, "cat *", False),
        ({"commands": ("cat",), "paths": ("/srv/ws/**",)}, "cat", False),
        ({"commands": ("tee",), "writes": ("/srv/ws/**",)}, "tee a > /etc/x", False),
        ({"commands": ("curl",), "hosts": ("a.com",)}, "curl https://a.com/x", True),
        ({"commands": ("curl",), "hosts": ("a.com",)}, "curl https://a.com https://b.com", False),
        ({"commands": ("curl",), "hosts": ("a.com",)}, "curl $x", False),
    ],
)
def test_allow_rules_are_narrow(
    match: dict[str, tuple[str, ...]], text: str, expected: bool
) -> None:
    rules = (rule(ALLOW, **match), rule(ALLOW, "x", commands=("export",)))
    assert (effect(text, *rules, default=DENY) is ALLOW) is expected


def test_observing_layer_is_recorded_and_not_enforced() -> None:
    watching = layer(rule(DENY, "no-rm", commands=("rm",)), observe=True)
    above = layer(rule(DENY, "no-cp", commands=("cp",)), name="organisation")
    decision = decide("rm x", watching, above)
    assert (decision.effect, decision.enforced, decision.permits) == (DENY, False, True)
    assert [r.id for r in decision.rules] == ["no-rm"]
    enforced = decide("rm x; cp y z", watching, above)
    assert (enforced.effect, enforced.permits) == (DENY, False)
    assert {r.id for r in enforced.rules} == {"no-rm", "no-cp"}
    assert "no-cp" in enforced.reason
    assert decide("rm x", watching).permits
    assert decide("ls", watching, above).enforced


def test_connections_and_requests_match_by_host() -> None:
    rules = (
        rule(DENY, "no-evil", hosts=("*.evil.com", "evil.com")),
        rule(DENY, "no-admin", hosts=("api.com",), paths=("/admin/**",)),
        rule(DENY, "commands-only", commands=("*",), hosts=("*",)),
    )
    point = create([layer(*rules)])

    def of(each: Action) -> Effect:
        return point.decide(each).effect

    assert of(Connect(ME, "x.EVIL.com.", 443)) is DENY
    assert of(Connect(ME, "good.com", 443)) is ALLOW
    assert of(Connect(ME, "api.com", 443)) is ALLOW
    assert of(Request(ME, "GET", "api.com", 443, "/a/../admin/x?y")) is DENY
    assert of(Request(ME, "GET", "api.com", 443, "/x")) is ALLOW
    assert of(Tool(ME, "server", "tool", {})) is ALLOW
    assert create([layer(default=DENY)]).decide(Tool(ME, "s", "t", {})).effect is DENY
    assert create([]).decide(Connect(ME, "a", 1)).effect is DENY


def test_nothing_raises() -> None:
    point = create([layer()])
    broken = Exec(ME, None, "/srv")  # type: ignore[arg-type]
    decision = point.decide(broken)
    assert decision.effect is DENY
    assert "could not be evaluated" in decision.reason


def test_digest_is_of_every_rule() -> None:
    one, other = layer(rule(DENY, commands=("rm",))), layer(rule(ASK, commands=("rm",)))
    assert digest([one]).startswith("sha256:")
    assert len({digest(each) for each in ([], [one], [other], [one, other])}) == 4
    assert create([one]).digest == digest([one]) == decide("ls", one).policy_digest
    assert digest([replace(one, name="\udcff")]) != digest([one])
    passing = (replace(each, on_doubt=OnDoubt.PASSES) for each in (one, one.rules[0]))
    assert len({digest([one]), digest([next(passing)]),
                digest([replace(one, rules=(next(passing),))])}) == 3  # fmt: skip


COMMANDS = st.sampled_from(
    ["ls", "rm -rf /", "rm $x", "sudo rm x", "cat < /etc/x", "$x", "git push", "echo > a", "A=1 ls",
     "curl https://a.com", "x=1", "rm *.o", "ls; )", "cd /; rm x",
     "find $x", "rm /*", 'sh -c "ls $x"',
     'python3 -c "open(\'/x\', \'w\')"']
)  # fmt: skip
MATCHES = st.builds(
    Match,
    commands=st.sampled_from([(), ("rm",), ("ls",), ("*",), ("r*", "git"), ("/bin/ls",)]),
    args=st.sampled_from([(), (), ("-r",), ("push",), ("x", "-r*")]),
    paths=st.sampled_from([(), (), ("/",), ("/srv/**",), ("/etc/*",)]),
    writes=st.sampled_from([(), (), ("/srv/**",)]),
    hosts=st.sampled_from([(), (), ("a.com",)]),
    via=st.sampled_from([(), (), ("sudo",)]),
)
RULES = st.lists(
    st.builds(Rule, st.sampled_from(["a", "b", "c"]), st.sampled_from(list(Effect)), MATCHES,
              st.sampled_from(["", "m"]), st.sampled_from([None, *OnDoubt])).map(
        lambda each: replace(each, rewrite=Rewrite(("o", each.id)))
        if each.effect is REWRITE else each
    ),
    max_size=4,
    unique_by=lambda each: each.id,
)  # fmt: skip
LAYERS = st.builds(
    PolicyLayer,
    name=st.sampled_from(["p", "q"]),
    rules=RULES.map(tuple),
    default=st.sampled_from([None, *Effect]),
    on_dynamic=st.sampled_from([None, *OnUnknown]),
    on_unreadable=st.sampled_from([None, *OnUnknown]),
    on_doubt=st.sampled_from(list(OnDoubt)),
    observe=st.booleans(),
)
TEXTS = st.lists(COMMANDS, min_size=1, max_size=3).map("; ".join)


@given(TEXTS, LAYERS, st.randoms())
@settings(max_examples=100, deadline=None)
def test_order_of_rules_never_matters(text: str, one: PolicyLayer, chance: random.Random) -> None:
    shuffled = list(one.rules)
    chance.shuffle(shuffled)
    first, second = decide(text, one), decide(text, replace(one, rules=tuple(shuffled)))
    assert replace(first, policy_digest="") == replace(second, policy_digest="")


def test_a_rule_that_only_may_match_does_not_stand_for_a_stricter_default() -> None:
    rules = (rule(REWRITE, args=("-r",)),)
    base = PolicyLayer("base", rules, Effect.ASK, OnUnknown.DENY, OnUnknown.DENY)
    assert decide("rm $x", base).effect is Effect.ASK
    assert decide("rm -r", base).effect is Effect.REWRITE


@given(
    TEXTS, LAYERS, LAYERS, st.sampled_from(list(Effect)), st.sampled_from(list(OnUnknown)),
    st.sampled_from(list(OnUnknown)), st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_another_layer_never_widens(
    text: str, base: PolicyLayer, more: PolicyLayer, default: Effect, dynamic: OnUnknown,
    unreadable: OnUnknown, first: bool,
) -> None:  # fmt: skip
    base = replace(
        base, name="base", default=default, on_dynamic=dynamic, on_unreadable=unreadable,
        observe=False,
    )  # fmt: skip
    alone = decide(text, base)
    both = decide(text, *((more, base) if first else (base, more)))
    assert both.permits <= alone.permits
    if both.enforced:
        assert STRICTNESS[both.effect] >= STRICTNESS[alone.effect]


WORDS = st.builds(
    Word,
    st.text(max_size=6),
    st.booleans(),
    st.text(max_size=2),
    st.text(max_size=2),
    st.booleans(),
)


@given(st.lists(st.lists(WORDS, max_size=4), max_size=3), LAYERS, st.text(max_size=3))
@settings(max_examples=100, deadline=None)
def test_no_intent_fails(commands: list[list[Word]], one: PolicyLayer, workspace: str) -> None:
    intent = Intent("bash", tuple(SimpleCommand(tuple(words)) for words in commands))
    decision = create([one]).decide(Exec(ME, intent, workspace))
    assert "could not be evaluated" not in decision.reason


def test_a_word_that_begins_with_an_equals_sign_is_no_flag() -> None:
    assert decide('rm "=$x"', layer(REMOVE)).effect is ALLOW
    assert "could not be evaluated" not in decide('ls "=$x"', layer(REMOVE)).reason


def test_argv_is_decided_like_text() -> None:
    point = create([layer(REMOVE)])
    assert point.decide(Exec(ME, read(Argv(("sh", "-c", "rm -rf /"))), None)).effect is DENY
    assert point.decide(Exec(ME, read(Argv(("rm", "-rf", "x/y"))), None)).effect is ALLOW
