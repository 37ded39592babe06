"""What lint says, and above all that it is right when it says "never"."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.model.action import Exec, Facts
from runner.model.decision import STRICTNESS, AskTerms, Decision, Effect
from runner.model.intent import (
    Access,
    Assignment,
    Construct,
    Intent,
    PathUse,
    SimpleCommand,
    Word,
)
from runner.model.principal import Principal
from runner.model.rule import (
    CountOf,
    Frequency,
    Hours,
    Match,
    OnDoubt,
    OnUnknown,
    PolicyLayer,
    Rewrite,
    Rule,
)
from runner.policy.circumstances import Circumstances
from runner.policy.cover import covers
from runner.policy.engine import RulesDecisionPoint, subjects_of
from runner.policy.globs import glob
from runner.policy.languages import disjoint, includes
from runner.policy.lint import CLAIMS, Check, Linted, Severity, lint
from runner.policy.matching import CompiledRule

# Few words, so that rules and commands meet.

NAMES = ["rm", "cp", "*", "r*", "?p", "/bin/rm", "/bin/*", "**", "rm/", "..", "."]
ARGUMENTS = ["-r", "-f", "-*", "*", "push", "--force", "/etc", "p*"]
PATHS = ["/", "/etc/**", "/etc/*", "/etc/passwd", "**/a", "~/a", "a", "/etc/", "/**"]
HOSTS = ["a.org", "*.org", "*"]
VARIABLES = ["A", "LD_*", "*"]


def some(patterns: list[str], **options: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(patterns), unique=True, **options).map(tuple)


def seldom(strategy: st.SearchStrategy, default: object = ()) -> st.SearchStrategy:
    return st.one_of(st.just(default), st.just(default), st.just(default), strategy)


@st.composite
def matches(draw: st.DrawFn, depth: int = 2) -> Match:
    parts = seldom(st.lists(matches(depth - 1), max_size=2).map(tuple)) if depth else st.just(())
    return Match(
        commands=draw(st.one_of(st.just(()), some(NAMES, max_size=3))),
        args=draw(seldom(some(ARGUMENTS, max_size=2))),
        any_args=draw(seldom(some(ARGUMENTS, max_size=3))),
        ordered_args=draw(seldom(some(ARGUMENTS, max_size=2))),
        paths=draw(seldom(some(PATHS, max_size=3))),
        reads=draw(seldom(some(PATHS, max_size=2))),
        writes=draw(seldom(some(PATHS, max_size=2))),
        hosts=draw(seldom(some(HOSTS, max_size=2))),
        environment=draw(seldom(some(VARIABLES, max_size=2))),
        via=draw(seldom(some(["sudo", "s*", "env"], max_size=2))),
        constructs=draw(seldom(some(["shell:eval", "shell:*"], max_size=2))),
        agents=draw(seldom(some(["a", "b", "*"], max_size=2))),
        tenants=draw(seldom(some(["t", "u*"], max_size=2))),
        uids=draw(seldom(st.sampled_from([(1,), (2,), (1, 2)]))),
        labels=draw(seldom(st.sampled_from([(("k", "v"),), (("k", "*"),)]))),
        hours=draw(seldom(st.sampled_from([(Hours(0, 720),), (Hours(0, 720), Hours(720, 1440))]))),
        frequency=draw(seldom(st.sampled_from([_often(1), _often(3)]), None)),
        any_of=draw(parts),
        all_of=draw(parts),
        none_of=draw(parts),
    )


def _often(times: int) -> Frequency:
    return Frequency(CountOf.AGENT, 60.0, times)


@st.composite
def rules(draw: st.DrawFn, identity: str) -> Rule:
    effect = draw(st.sampled_from(Effect))
    doubt = st.sampled_from([None, *OnDoubt])
    return Rule(
        identity,
        effect,
        draw(matches()),
        "m",
        draw(doubt) if effect is not Effect.ALLOW else None,
        draw(st.sampled_from([None, AskTerms((("x",),), 5.0)])) if effect is Effect.ASK else None,
        Rewrite((draw(st.sampled_from(["cp", "ls"])),)) if effect is Effect.REWRITE else None,
    )


@st.composite
def nearly(draw: st.DrawFn, rule: Rule, identity: str) -> Rule:
    """A rule like another one: with another effect, or with a condition more or less."""
    match = rule.match
    field = draw(st.sampled_from(["commands", "args", "paths", "hosts", "agents", "none_of"]))
    other = draw(matches(1))
    changed = draw(
        st.sampled_from([match, replace(match, **{field: getattr(other, field)}),
                         replace(match, **{field: ()}), Match(all_of=(match,)),
                         Match(any_of=(match, other))])
    )  # fmt: skip
    return replace(draw(rules(identity)), match=changed)


@st.composite
def layers(draw: st.DrawFn, name: str, seed: Rule | None = None, *, profile: bool) -> PolicyLayer:
    listed = [draw(rules("one")) if seed is None else draw(nearly(seed, "one"))]
    for identity in ("two", "three")[: draw(st.integers(0, 2))]:
        listed.append(draw(st.one_of(rules(identity), nearly(listed[0], identity))))
    default = st.sampled_from([Effect.ALLOW, Effect.ASK, Effect.DENY])
    unknown = st.sampled_from([OnUnknown.ASK, OnUnknown.DENY])
    return PolicyLayer(
        name,
        tuple(listed),
        draw(default if profile else st.one_of(st.none(), default)),
        draw(unknown if profile else st.one_of(st.none(), unknown)),
        OnUnknown.DENY if profile else None,
        draw(st.sampled_from(OnDoubt)),
        observe=draw(seldom(st.just(True), default=False)) if profile else False,
    )


def words(literals: list[str]) -> st.SearchStrategy[Word]:
    ends = st.sampled_from(["", "-", "-f", "/etc/", "/a", "a", "p"])
    dynamic = st.builds(Word, st.sampled_from(["$x", "*", "$x/a", "$(y)"]), st.just(True),
                        ends, ends, st.booleans())  # fmt: skip
    return st.one_of(st.sampled_from(literals).map(Word), dynamic)


LITERALS = ["-r", "-rf", "-f", "--force", "push", "/etc", "/etc/passwd", "/", "a", "~/a", "../a",
            "http://a.org/x", "b.com:"]  # fmt: skip


@st.composite
def commands(draw: st.DrawFn) -> SimpleCommand:
    name = words(["rm", "cp", "/bin/rm", "./rm", "/opt/rm", "curl", "/bin/..", "ln/.", "eval"])
    return SimpleCommand(
        words=(draw(name), *draw(st.lists(words(LITERALS), max_size=3))),
        assignments=draw(seldom(st.sampled_from([(Assignment("A", Word("1")),),
                                                 (Assignment("PATH", Word("x")),)]))),
        redirects=draw(seldom(st.builds(
            lambda word, access: (PathUse(word, access),), words(LITERALS), st.sampled_from(Access)
        ))),
        via=draw(seldom(st.sampled_from([("sudo",), ("env", "sudo"), ("python",), ("awk",)]))),
        doubtful=draw(seldom(st.just(True), default=False)),
    )  # fmt: skip


@st.composite
def actions(draw: st.DrawFn) -> Exec:
    language = draw(st.sampled_from(["bash", "bash", "python"]))
    script = SimpleCommand((Word("python3"), Word("x.py")))
    found = []
    for each in draw(st.lists(commands(), min_size=1, max_size=2)):
        if each.via:  # a wrapper counts as a command too
            found.append(SimpleCommand((Word(each.via[0]), *each.words)))
        found.append(each)
    if language == "python":  # as it is read: the interpreter first
        found = [script, *(replace(each, via=("python", *each.via)) for each in found)]
    intent = Intent(
        language,
        tuple(found),
        draw(seldom(st.builds(
            lambda word, access: (PathUse(word, access),), words(LITERALS), st.sampled_from(Access)
        ))),
        draw(seldom(words(["a.org", "b.com"]).map(lambda word: (word,)))),
        None,
        draw(seldom(st.just((Construct("shell:eval"),)))),
    )  # fmt: skip
    return Exec(
        Principal(draw(st.integers(1, 2)), draw(st.sampled_from("ab")),
                  draw(st.sampled_from([None, "a", "c"])), None,
                  draw(st.sampled_from([None, "t", "u1"]))),
        intent,
        "/workspace",
        draw(seldom(st.sampled_from([("A",), ("LD_X",), ("HOME",)]))),
        draw(seldom(st.sampled_from([(("k", "v"),), (("k", "w"),)]))),
        "p",
        Facts(draw(st.sampled_from([None, 0.0, 50_000.0])),
              draw(st.sampled_from([{}, {(CountOf.AGENT, 60.0): 1}, {(CountOf.AGENT, 60.0): 5}]))),
    )  # fmt: skip


def told(decision: Decision) -> tuple[object, ...]:
    return decision.effect, decision.enforced, decision.rewrite, decision.ask


def without(layer: PolicyLayer, identity: str | None) -> PolicyLayer:
    return replace(layer, rules=tuple(r for r in layer.rules if r.id != identity))


def linted(layer: PolicyLayer) -> Linted:
    return Linted(layer, frozenset(rule.id for rule in layer.rules))


@st.composite
def policies(draw: st.DrawFn) -> tuple[PolicyLayer, PolicyLayer]:
    upper = draw(layers("upper", profile=False))
    return upper, draw(layers("profile", upper.rules[0], profile=True))


@settings(max_examples=60)
@given(policies(), st.lists(actions(), min_size=1, max_size=8))
def test_a_rule_that_never_matters_never_does(both, tried):
    upper, profile = both
    claims = [(0, f.rule) for f in lint(linted(upper)) if f.check in CLAIMS]
    claims += [(1, f.rule) for f in lint(linted(profile), [linted(upper)]) if f.check in CLAIMS]
    assume(claims)
    whole = RulesDecisionPoint(both, indexed=False)
    for index, identity in claims:
        less = [without(each, identity) if i == index else each for i, each in enumerate(both)]
        point = RulesDecisionPoint(less, indexed=False)
        for action in tried:
            assert told(point.decide(action)) == told(whole.decide(action)), identity


@settings(max_examples=60)
@given(rules("part"), st.data(), st.lists(actions(), min_size=1, max_size=8))
def test_what_covers_holds_at_least_as_far(part, data, tried):
    whole = data.draw(nearly(part, "whole"))
    assume(covers(whole, part))
    one, other = CompiledRule(whole), CompiledRule(part)
    for action in tried:
        circumstances = Circumstances.of(action)
        for subject in subjects_of(action):
            least = other.holds(subject, circumstances)
            if part.effect is Effect.ALLOW and subject.doubtful:
                least = min(least, type(least).POSSIBLY)  # as it is told of covers
            assert one.holds(subject, circumstances) >= least


PATTERNS = st.text(alphabet="ab/*?[]!-\\é", min_size=1, max_size=6)


@settings(max_examples=500)
@given(PATTERNS, PATTERNS, st.lists(st.text(alphabet="ab/-é]\n", max_size=5)), st.booleans())
def test_globs_are_compared_as_they_match(one, other, texts, path):
    matched = [
        (glob(one, path=path).matches(text), glob(other, path=path).matches(text))
        for text in [*texts, one, other]
    ]
    if includes(one, other, path=path):
        assert all(a or not b for a, b in matched)
    if disjoint(one, other, path=path):
        assert not any(a and b for a, b in matched)


@pytest.mark.parametrize(
    ("outer", "inner", "path", "yes"),
    [
        ("*", "rm", False, True),
        ("r*", "rm*", False, True),
        ("rm*", "r*", False, False),
        ("[a-z]?", "rm", False, True),
        ("/etc/**", "/etc", True, True),
        ("/etc/**", "/etc/x/*", True, True),
        ("/etc/*", "/etc/**", True, False),
        ("**/a", "/x/y/a", True, True),
    ],
)
def test_inclusion(outer, inner, path, yes):
    assert includes(outer, inner, path=path) is yes
    assert not disjoint(outer, inner, path=path) or not yes


def test_patterns_that_would_take_too_long_are_not_known():
    heavy = "*".join(["a?b?c"] * 12)
    assert not includes(heavy, heavy.replace("c", "[cd]"))


def of(*found: Rule, default: Effect = Effect.DENY, doubt: OnDoubt = OnDoubt.MATCHES, **more):
    layer = PolicyLayer("profile:x", found, default, OnUnknown.DENY, OnUnknown.DENY, doubt)
    return list(lint(linted(replace(layer, **more))))


def allow(identity: str, **match: object) -> Rule:
    return Rule(identity, Effect.ALLOW, Match(**match), "")


def deny(identity: str, **match: object) -> Rule:
    return Rule(identity, Effect.DENY, Match(**match), "m")


LS = allow("ls", commands=("ls",))


def test_an_allow_that_a_denial_always_beats():
    push = allow("push", commands=("git",), args=("push",))
    (found,) = of(push, deny("no", commands=("git", "hg")), LS)
    assert (found.rule, found.check, found.severity) == (
        "push", Check.ALWAYS_BEATEN, Severity.ERROR
    )  # fmt: skip
    assert "'no' matches all that it does and says deny" in found.what
    # The twin: what narrows the denial leaves something.
    assert not of(push, deny("no", commands=("git",), args=("--force",)))
    # Where doubt passes, `find $x` may leave the denial out: then it is not said for sure.
    (found,) = of(push, deny("no", commands=("git",)), doubt=OnDoubt.PASSES)
    assert (found.check, found.severity) == (Check.BEATEN_WHERE_SURE, Severity.WARNING)


def test_an_allow_that_a_policy_above_always_beats():
    upper = Linted(PolicyLayer("organisation:x", (deny("no", paths=("/etc/**",)),)), frozenset())
    layer = PolicyLayer("profile:x", (allow("a", commands=("cat",), paths=("/etc/*",)),),
                        Effect.DENY)  # fmt: skip
    (found,) = lint(linted(layer), [upper])
    assert found.check is Check.ALWAYS_BEATEN
    assert "'no' of 'organisation:x'" in found.what
    observed = replace(upper, layer=replace(upper.layer, observe=True))
    assert not list(lint(linted(layer), [observed]))


def test_of_two_rules_that_say_the_same_the_second_is_told_about():
    (found,) = of(deny("a", commands=("rm",)), deny("b", commands=("rm",)), LS)
    assert (found.rule, found.check) == ("b", Check.NEVER_MATTERS)
    assert "'a' states the same" in found.what
    asks = [replace(deny(i, commands=("rm",)), effect=Effect.ASK, ask=terms)
            for i, terms in (("a", None), ("b", AskTerms((("x",),))))]  # fmt: skip
    assert not of(*asks, LS)


def test_an_allow_where_all_is_allowed():
    (found,) = of(LS, default=Effect.ALLOW)
    assert (found.check, found.rule) == (Check.NEVER_MATTERS, "ls")
    assert not of(LS)


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ({"constructs": ("shell:eval",), "all_of": (Match(commands=("rm",)),)}, "construct"),
        ({"commands": ("rm",), "all_of": (Match(commands=("c*",)),)}, "both 'rm' and 'c*'"),
        ({"commands": ("/bin//rm",)}, "no command's name is spelled '/bin//rm'"),
        ({"uids": (1,), "all_of": (Match(uids=(2,)),)}, "no user"),
    ],
)
def test_a_rule_that_never_matches(match, why):
    found = [f for f in of(deny("x", **match), LS) if f.check is Check.NEVER_MATCHES]
    assert len(found) == 1
    assert why in found[0].what


def test_an_allow_that_takes_back_all_it_says():
    rm = {"commands": ("rm",), "none_of": (Match(commands=("r*",)),)}
    assert [f.check for f in of(allow("x", **rm), LS)] == [Check.NEVER_MATCHES]
    # A denial does match, of `./rm`: read narrowly, that is no `rm`.
    assert not of(deny("x", **rm), LS)


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ({"commands": ("git push",)}, "write command: git, args: [push]"),
        ({"commands": ("rm",), "args": ("-r -f",)}, "write args: [-r, -f]"),
        ({"paths": ("src/*.py",)}, "write **/src/*.py"),
        ({"paths": ("*.env",)}, "write **/*.env"),
        ({"paths": ("/etc/",)}, "write /etc"),
        ({"paths": ("~x/.ssh",)}, "absolute"),
        ({"hosts": ("https://a.org/",)}, "write a.org"),
        ({"hosts": ("a.org:443",)}, "write a.org"),
        ({"commands": ("/bin/rm",)}, "write rm"),
        ({"commands": ("$x",)}, "on_dynamic"),
        ({"environment": ("[A",)}, "not closed"),
        ({"constructs": ("eval",)}, "LANGUAGE:WHAT"),
        ({"writes": ("/etc/**",)}, "end it in a name"),
        ({"any_of": (Match(paths=("a",)),)}, "write **/a"),
    ],
)
def test_patterns_that_are_hardly_meant(match, told):
    (found,) = of(deny("x", **match), LS)
    assert found.check is Check.PATTERN
    assert told in f"{found.what}; {found.todo}"


@pytest.mark.parametrize(
    "match",
    [
        {"commands": ("[",), "args": ("[ab]", r"\[")},
        {"paths": ("/", "/etc/passwd", "~/.ssh/*.pem", "**/a", "**")},
        {"commands": ("rm", "bin/run", "/opt/x")},
        {"hosts": ("a.org", "::1", "[::1]", "*.b.org")},
        {"args": ("-r", "a b")},
    ],
)
def test_patterns_that_are_right(match):
    found = of(replace(deny("x", **match), on_doubt=OnDoubt.PASSES), LS)
    assert not found, found


def test_a_layer_that_allows_nothing():
    (found,) = of(deny("x", commands=("rm",)))
    assert (found.check, found.rule) == (Check.NOTHING_ALLOWED, None)
    assert not of(deny("x", commands=("rm",)), default=Effect.ALLOW)


def test_only_a_files_own_rules_are_told_about():
    layer = PolicyLayer("profile:x", (LS, deny("a", commands=("x y",))), Effect.DENY)
    assert not list(lint(Linted(layer, frozenset({"ls"}))))


def test_effects_are_ordered_as_lint_takes_them():
    assert sorted(Effect, key=STRICTNESS.get) == [
        Effect.ALLOW, Effect.REWRITE, Effect.ASK, Effect.DENY
    ]  # fmt: skip
