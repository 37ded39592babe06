"""Cedar, Rego and several at once: held to the suite of every decision point, and to their own."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.analysis import read
from runner.errors import PolicyError
from runner.model.action import Connect, Exec, Facts, Request, Tool
from runner.model.decision import AskTerms, Decision, Effect
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.policy_text import PolicyTexts
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.model.rule import Match, PolicyLayer, Rule
from runner.policy.combined import CombinedDecisionPoint, combine
from runner.policy.engine import create as create_rules
from runner.policy_points import cedar, rego
from runner.policy_points.rego_process import EvaluationError, RegoProcess
from runner.ports import DecisionPoint
from runner.testing.decision_contract import (
    CODER,
    HOSTILE_TEXTS,
    NOON_S,
    DecisionPointContract,
    exec_of,
)

FOLDER = "organisation:/etc/runner/policy.d"
OPEN = PolicyLayer("profile:open", default=Effect.ALLOW)
NO_RM = PolicyLayer(
    "profile:open", (Rule("no-rm", Effect.DENY, Match(commands=("rm",)), "no"),), Effect.ALLOW
)
CEDAR_OPEN = "permit(principal, action, resource);\n"
CEDAR_NO_RM = CEDAR_OPEN + '@id("no-rm") forbid(principal, action, resource == Command::"rm");\n'
REGO_OPEN = """package runner
allow := true
handles := {"dynamic_arguments", "escaped_text"}
"""
REGO_NO_RM = REGO_OPEN + 'deny contains "rm is not for agents" if input.resource.name == "rm"\n'


def skip_without(package: str) -> None:
    """Not by importing it: regopy is for a process of its own (see `runner.policy.cel`)."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def cedar_point(*texts: str) -> Any:
    skip_without("cedarpy")
    files = tuple((f"{FOLDER}/{n}.cedar", text) for n, text in enumerate(texts))
    return cedar.create(PolicyTexts("cedar", FOLDER, files))


def rego_point(*texts: str) -> Any:
    skip_without("regopy")
    files = tuple((f"{FOLDER}/{n}.rego", text) for n, text in enumerate(texts))
    return rego.create(PolicyTexts("rego", FOLDER, files))


class TestRules(DecisionPointContract):
    def make_open(self) -> DecisionPoint:
        return create_rules([OPEN])

    def make_without_rm(self) -> DecisionPoint:
        return create_rules([NO_RM])


class TestCedar(DecisionPointContract):
    def make_open(self) -> DecisionPoint:
        return cedar_point(CEDAR_OPEN)

    def make_without_rm(self) -> DecisionPoint:
        return cedar_point(CEDAR_NO_RM)


class TestRego(DecisionPointContract):
    def make_open(self) -> DecisionPoint:
        return rego_point(REGO_OPEN)

    def make_without_rm(self) -> DecisionPoint:
        return rego_point(REGO_NO_RM)


class TestCombined(DecisionPointContract):
    """Each refuses by another of its points."""

    def make_open(self) -> DecisionPoint:
        return combine([create_rules([OPEN]), cedar_point(CEDAR_OPEN), rego_point(REGO_OPEN)])

    def make_without_rm(self) -> DecisionPoint:
        return combine([create_rules([OPEN]), cedar_point(CEDAR_NO_RM), rego_point(REGO_OPEN)])


def shell(text: str, **changes: Any) -> Exec:
    principal = changes.pop("principal", CODER)
    facts = changes.pop("facts", Facts(NOON_S))
    return Exec(
        principal, read(ShellText(text)), "/srv/work", profile="agent", facts=facts, **changes
    )


# Cedar.

CEDAR_TABLE = """
permit(principal, action, resource);
@id("no-recursion") @message("Move it to trash/.")
forbid(principal, action == Action::"exec", resource == Command::"rm")
  when { context.flags.contains("-r") };
@id("asks") @effect("ask")
forbid(principal, action == Action::"exec", resource == Command::"git")
  when { context.args.contains("push") };
@id("etc") forbid(principal, action == Action::"exec", resource)
  when { context.certain.writes_under.contains("/etc") };
@id("inside") forbid(principal, action == Action::"exec", resource == Command::"cp")
  unless { context.writes_outside.isEmpty() };
@id("hosts") forbid(principal, action == Action::"exec", resource == Command::"curl")
  unless { ["example.com"].containsAll(context.hosts) };
@id("night") forbid(principal, action == Action::"exec", resource == Command::"deploy")
  when { context.now.toTime() < duration("6h") };
"""


@pytest.mark.parametrize(
    ("text", "effect", "rule"),
    [
        ("rm x", Effect.ALLOW, None),
        ("rm -fr x", Effect.DENY, "no-recursion"),
        ("nice env rm -r x", Effect.DENY, "no-recursion"),
        ("rm $x", Effect.DENY, "no-recursion"),
        ("echo rm -r x", Effect.ALLOW, None),
        ("ls $x", Effect.ALLOW, None),
        ("git push", Effect.ASK, "asks"),
        ("git pull", Effect.ALLOW, None),
        ("git push; rm -r x", Effect.DENY, "no-recursion"),
        ("echo 1 > /etc/hosts", Effect.DENY, "etc"),
        ("cat /etc/hosts", Effect.ALLOW, None),
        ("cp a b", Effect.ALLOW, None),
        ("cp a ../b", Effect.DENY, "inside"),
        ('cp a "$b"', Effect.DENY, "inside"),
        ("curl https://example.com/x", Effect.ALLOW, None),
        ("curl https://example.org/x", Effect.DENY, "hosts"),
        ('curl "$url"', Effect.DENY, "hosts"),
        ("deploy", Effect.ALLOW, None),
        ("$tool", Effect.DENY, "dynamic"),
        ("if (", Effect.DENY, None),
    ],
)
def test_cedar_decides(text: str, effect: Effect, rule: str | None) -> None:
    decision = cedar_point(CEDAR_TABLE).decide(shell(text))
    assert decision.effect is effect, decision.reason
    if rule is not None:
        assert decision.rules[0].id == rule


def test_cedar_tells_what_to_do_instead() -> None:
    decision = cedar_point(CEDAR_TABLE).decide(shell("rm -r x"))
    assert "Move it to trash/." in decision.reason
    assert decision.rules[0].layer == f"{FOLDER}/0.cedar"
    told = cedar_point(CEDAR_TABLE).decide(shell("rm $x")).reason
    assert "known only when it runs" in told


def test_cedar_at_another_time() -> None:
    point = cedar_point(CEDAR_TABLE)
    assert point.decide(shell("deploy", facts=Facts(NOON_S - 8 * 3600))).effect is Effect.DENY
    # No time at all: the policy can't be evaluated.
    assert point.decide(shell("deploy", facts=Facts())).effect is Effect.DENY
    assert point.decide(shell("ls", facts=Facts())).effect is Effect.ALLOW


def test_cedar_permits_a_dynamic_name_only_by_name() -> None:
    text = CEDAR_OPEN + "permit(principal, action, resource is DynamicCommand);"
    assert cedar_point(CEDAR_OPEN).decide(shell("$tool")).effect is Effect.DENY
    assert cedar_point(text).decide(shell("$tool")).effect is Effect.ALLOW
    assert cedar_point(text).decide(shell("if (")).effect is Effect.DENY


def test_cedar_denies_by_default_and_a_failing_permit_permits_nothing() -> None:
    point = cedar_point(
        'permit(principal, action == Action::"exec", resource == Command::"git") '
        'when { context.args.contains("status") };'
    )
    assert point.decide(shell("git status")).effect is Effect.ALLOW
    assert point.decide(shell("git push")).effect is Effect.DENY
    assert point.decide(shell("ls")).rules[0].id == "default"
    decision = point.decide(shell("git $x"))
    assert decision.effect is Effect.DENY
    assert "could not be evaluated" in decision.reason


def test_cedar_asks_only_where_the_rest_permits() -> None:
    text = '@effect("ask") forbid(principal, action, resource == Command::"git");'
    decision = cedar_point(text + CEDAR_OPEN).decide(shell("git push"))
    assert decision.effect is Effect.ASK
    assert decision.ask == AskTerms()
    assert cedar_point(text).decide(shell("git push")).effect is Effect.DENY


def test_cedar_by_agent_parent_tenant_and_labels() -> None:
    point = cedar_point(
        """
        permit(principal == Agent::"lead", action, resource);
        permit(principal in Agent::"lead", action, resource == Command::"ls");
        permit(principal in Tenant::"acme", action, resource == Command::"pwd");
        permit(principal, action, resource == Command::"id") when {
          principal.hasTag("team") && principal.getTag("team") == "ops"
        };
        permit(principal == Agent::"x", action, resource);
        """
    )

    def effect(text: str, who: Principal, *labels: tuple[str, str]) -> Effect:
        return point.decide(shell(text, principal=who, labels=labels)).effect

    child = Principal(1, "child", "lead")
    assert effect("make", Principal(1, "lead")) is Effect.ALLOW
    assert effect("make", child) is Effect.DENY
    assert effect("ls", child) is Effect.ALLOW
    # x may do all, the agent that started it may not: it can't hand on more than it has.
    assert effect("make", Principal(1, "x")) is Effect.ALLOW
    assert effect("make", Principal(1, "x", "other")) is Effect.DENY
    assert effect("pwd", Principal(1, "y", tenant="acme")) is Effect.ALLOW
    assert effect("pwd", Principal(1, "y", tenant="other")) is Effect.DENY
    assert effect("id", Principal(1, "y"), ("team", "ops")) is Effect.ALLOW
    assert effect("id", Principal(1, "y"), ("team", "dev")) is Effect.DENY


def test_cedar_connections_requests_and_tools() -> None:
    point = cedar_point(
        """
        permit(principal, action == Action::"connect", resource in Host::"example.com")
          when { context.port == 443 };
        permit(principal, action == Action::"connect", resource)
          when { context has ip && context.ip.isInRange(ip("192.0.2.0/24")) };
        permit(principal, action == Action::"request", resource)
          when { context.method == "GET" && context.path like "/public/*" };
        permit(principal, action == Action::"tool", resource in Server::"tracker");
        forbid(principal, action == Action::"tool", resource)
          when { resource.hasTag("options.force") };
        """
    )

    def effect(action: Any) -> Effect:
        return point.decide(action).effect

    assert effect(Connect(CODER, "API.example.com.", 443)) is Effect.ALLOW
    assert effect(Connect(CODER, "example.com.evil.org", 443)) is Effect.DENY
    assert effect(Connect(CODER, "api.example.com", 80)) is Effect.DENY
    assert effect(Connect(CODER, "192.0.2.7", 80)) is Effect.ALLOW
    assert effect(Request(CODER, "GET", "a.org", 443, "/public/x")) is Effect.ALLOW
    assert effect(Request(CODER, "POST", "a.org", 443, "/public/x")) is Effect.DENY
    assert effect(Tool(CODER, "tracker", "close", {"id": 3})) is Effect.ALLOW
    assert effect(Tool(CODER, "tracker", "close", {"options": {"force": None}})) is Effect.DENY
    assert effect(Tool(CODER, "other", "close", {})) is Effect.DENY


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permit(principal", "is no Cedar policy"),
        ("// nothing yet\n", "holds no policy"),
        ('forbid(principal, action, resource == Comand::"rm");', "Comand"),
        ('forbid(principal, action == Action::"exce", resource);', "exce"),
        (
            'forbid(principal, action == Action::"exec", resource) when { context.arg == "x" };',
            "arg",
        ),
        ("permit(principal == ?principal, action, resource);", "template"),
        ('@effect("aks") forbid(principal, action, resource);', "@effect"),
        ('@effect("ask") permit(principal, action, resource);', "@effect"),
        (f"permit(principal, action, resource) when {{ {'(' * 5000}true{')' * 5000} }};", "nests"),
    ],
)
def test_a_cedar_policy_that_can_not_be_used(text: str, told: str) -> None:
    with pytest.raises(PolicyError, match=r"/etc/runner/policy\.d/1\.cedar") as caught:
        cedar_point(CEDAR_OPEN, text)
    assert told in str(caught.value)


# Rego.

REGO_TABLE = """package runner

default allow := true
handles contains "dynamic_arguments"

name := input.resource.name
args := input.context.args

deny contains "Move it to trash/." if {
  name == "rm"
  some flag in {"-r", "-R", "--recursive"}
  flag in input.context.certain.flags
}
deny contains "rm with words that are not known" if {
  name == "rm"
  input.context.dynamic
}
ask contains sprintf("push of %s", [input.principal.agent]) if {
  name == "git"
  args[0] == "push"
}
deny contains msg if {
  some path in input.context.writes
  startswith(path, "/etc/")
  msg := concat("", ["no writing to ", path])
}
"""


@pytest.mark.parametrize(
    ("text", "effect", "told"),
    [
        ("rm x", Effect.ALLOW, ""),
        ("rm -fr x", Effect.DENY, "Move it to trash/."),
        ("nice env rm -r x", Effect.DENY, "trash"),
        ("rm $x", Effect.DENY, "not known"),
        ("ls $x", Effect.ALLOW, ""),
        ("git push", Effect.ASK, "push of coder"),
        ("git add push", Effect.ALLOW, ""),
        ("git push; rm -r x", Effect.DENY, "trash"),
        ("echo 1 > /etc/hosts", Effect.DENY, "no writing to /etc/hosts"),
        ("$tool", Effect.DENY, 'handles contains "dynamic_command"'),
        ("echo 'a\"b'", Effect.DENY, 'handles contains "escaped_text"'),
        ('echo "$x"', Effect.ALLOW, ""),
        ("if (", Effect.DENY, "can't be read"),
    ],
)
def test_rego_decides(text: str, effect: Effect, told: str) -> None:
    decision = rego_point(REGO_TABLE).decide(shell(text))
    assert decision.effect is effect, decision.reason
    assert told in decision.reason


def test_rego_says_what_it_handles() -> None:
    handles = 'handles := {"dynamic_command", "dynamic_arguments", "escaped_text"}\n'
    point = rego_point(f"package runner\nallow := true\n{handles}")
    for text in ("$tool", "ls $x", "echo 'a\"b'"):
        assert point.decide(shell(text)).effect is Effect.ALLOW
        assert rego_point("package runner\nallow := true\n").decide(shell(text)).effect is (
            Effect.DENY
        )
    assert point.decide(shell("if (")).effect is Effect.DENY


@pytest.mark.parametrize(
    ("rules", "effect", "told"),
    [
        ('decision := "allow"', Effect.ALLOW, ""),
        ('decision := "ask"', Effect.ASK, ""),
        ('decision := {"effect": "deny", "reason": "because"}', Effect.DENY, "because"),
        ('decision := "allow"\ndeny contains "x"', Effect.DENY, "x"),
        ("allow := false", Effect.DENY, "neither"),
        ("helper := true", Effect.DENY, "neither"),
        ('decision := "allow" if input.nothing', Effect.DENY, "neither"),
        ('decision := "permit"', Effect.DENY, "'permit'"),
        ('decision := {"effect": "rewrite"}', Effect.DENY, "'rewrite'"),
        ('decision := {"effect": "allow", "obligations": []}', Effect.DENY, "'obligations'"),
        ('decision := {"reason": "x"}', Effect.DENY, "no effect"),
        ("decision := true", Effect.DENY, "no effect"),
        ('decision := {"effect": 1}', Effect.DENY, "failed"),
        ('decision := "allow"\ndecision := "deny"', Effect.DENY, "failed"),
        ('allow := true\ndeny contains "x" if to_number("y") > 1', Effect.DENY, "failed"),
        ('allow := true\ndeny contains {"msg": "x"}', Effect.DENY, "failed"),
        ("allow := true\nf(x) := f(x)\ndeny contains f(1)", Effect.DENY, "failed"),
        ('allow := true\ndeny contains "say \\"no\\""', Effect.DENY, 'say "no"'),
        ('allow := true\ndeny contains "é😀"', Effect.DENY, "é😀"),
    ],
)
def test_rego_results(rules: str, effect: Effect, told: str) -> None:
    decision = rego_point(f"package runner\n{rules}\n").decide(shell("ls"))
    assert decision.effect is effect, decision.reason
    assert told in decision.reason


def test_rego_files_of_a_folder_are_one_policy() -> None:
    point = rego_point(
        'package lists\nforbidden := {"rm"}\n',
        "package runner\nimport data.lists\nallow := true\n"
        'deny contains "listed" if input.resource.name in lists.forbidden\n',
    )
    assert point.decide(shell("rm x")).effect is Effect.DENY
    assert point.decide(shell("ls x")).effect is Effect.ALLOW


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_a_text_that_a_rego_policy_repeats_adds_nothing_to_the_answer(text: str) -> None:
    point = rego_point(
        "package runner\n"
        'decision := {"effect": "deny", "reason": input.context.args[0]}\n'
        'deny contains input.context.args[0]\nhandles contains "escaped_text"\n'
    )
    intent = Intent("bash", (SimpleCommand((Word("ls"), Word(text))),))
    decision = point.decide(Exec(CODER, intent, "/srv"))
    assert decision.effect is Effect.DENY


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("package runner\nallow := {{{\n", "does not compile"),
        ("package other\nallow := true\n", "package runner"),
        ("package runner\nallow if time.now_ns() > 0\n", "input.context.now_ns"),
        ('package runner\nallow if http.send({"method": "get"})\n', "http.send"),
        ("package runner\nallow := opa.runtime()\n", "opa.runtime"),
    ],
)
def test_a_rego_policy_that_can_not_be_used(text: str, told: str) -> None:
    with pytest.raises(PolicyError, match=r"/etc/runner/policy\.d") as caught:
        rego_point(text)
    assert told in str(caught.value)


RUNAWAYS = {
    "time": "count({[a, b, c] | some a in numbers.range(1, 900); some b in numbers.range(1, 900);"
    " some c in numbers.range(1, 900)}) > 1",
    "memory": "count(numbers.range(1, 100000000)) > 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(RUNAWAYS))
def test_a_runaway_rego_policy_is_a_denial_and_the_next_is_decided(kind: str) -> None:
    point = rego_point(
        "package runner\nallow := true\n"
        f'deny contains "x" if {{ input.resource.name == "loop"; {RUNAWAYS[kind]} }}\n'
    )
    decision = point.decide(shell("loop"))
    assert decision.effect is Effect.DENY
    assert "gave no decision" in decision.reason
    assert point.decide(shell("ls")).effect is Effect.ALLOW


def test_a_rego_process_that_was_ended_is_started_again() -> None:
    point = rego_point(REGO_OPEN)
    first = point.decide(shell("ls"))
    point.close()
    point.close()
    assert point.decide(shell("ls")) == first


def test_a_rego_process_that_dies_is_an_error_once() -> None:
    skip_without("regopy")
    process = RegoProcess([("a.rego", REGO_OPEN)])
    held = process._process
    assert held is not None
    held.kill()
    held.wait()
    with pytest.raises(EvaluationError):
        process.ask(["{}"])
    assert process.ask(["{}"])[0]["value"]["allow"] == [True]


def test_a_rego_process_has_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without("regopy")
    monkeypatch.setenv("SECRET", "s3cret")
    process = RegoProcess([("a.rego", REGO_OPEN)])
    held = process._process
    assert held is not None
    with open(f"/proc/{held.pid}/environ", "rb") as file:
        assert b"SECRET" not in file.read()


# Missing packages.


@pytest.mark.parametrize(("language", "module"), [("cedar", "cedarpy"), ("rego", "regopy")])
def test_a_policy_whose_package_is_missing_is_not_skipped(
    language: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    texts = PolicyTexts(language, FOLDER, ((f"{FOLDER}/1.{language}", "package runner\n"),))
    create = {"cedar": cedar.create, "rego": rego.create}[language]
    with pytest.raises(PolicyError) as caught:
        create(texts)
    assert f"install runner-sandbox[{language}]" in str(caught.value)
    assert f"/etc/runner/policy.d/1.{language} needs" in str(caught.value)


# Several at once.


class Fixed:
    """Always the same answer."""

    counted = frozenset()
    follows_links = False

    def __init__(self, effect: Effect | None, **fields: Any) -> None:
        self.effect = effect
        self.fields = fields
        self.digest = "sha256:" + f"{effect}{sorted(fields)}".encode().hex().ljust(64, "0")[:64]

    def decide(self, action: object) -> Decision:
        if self.effect is None:
            raise ValueError("broken")
        return Decision(self.effect, f"said {self.effect.value}", self.digest, **self.fields)


ALLOW, REWRITE, ASK, DENY = Effect.ALLOW, Effect.REWRITE, Effect.ASK, Effect.DENY


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ((ALLOW, ALLOW), ALLOW),
        ((ALLOW, DENY), DENY),
        ((DENY, ALLOW), DENY),
        ((ASK, DENY, ALLOW), DENY),
        ((ALLOW, ASK), ASK),
        ((REWRITE, ALLOW), REWRITE),
        ((REWRITE, ASK), ASK),
        ((ALLOW, None), DENY),
        ((), DENY),
    ],
)
def test_the_strictest_wins(effects: tuple[Effect | None, ...], expected: Effect) -> None:
    decision = CombinedDecisionPoint([Fixed(each) for each in effects]).decide(exec_of("ls"))
    assert decision.effect is expected
    assert decision.enforced
    if expected in effects:
        assert decision.reason == f"said {expected.value}"


def test_what_only_observes_stands_against_nothing() -> None:
    observing = Fixed(DENY, enforced=False)
    decision = combine([observing, Fixed(ALLOW)]).decide(exec_of("ls"))
    assert (decision.effect, decision.enforced, decision.permits) == (DENY, False, True)
    decision = combine([observing, Fixed(ASK)]).decide(exec_of("ls"))
    assert (decision.effect, decision.enforced) == (ASK, True)


def test_obligations_rules_and_terms_are_joined() -> None:
    one = Fixed(ASK, obligations=("b",), ask=AskTerms((("lead",),), 60.0))
    other = Fixed(ASK, obligations=("a", "b"), ask=AskTerms((("ops",),), 30.0))
    decision = combine([one, other, Fixed(ALLOW)]).decide(exec_of("ls"))
    assert decision.obligations == ("a", "b")
    assert decision.ask == AskTerms((("lead",), ("ops",)), 30.0)


def test_two_rewrites_that_differ_are_a_denial() -> None:
    one, other = Fixed(REWRITE, rewrite=("make",)), Fixed(REWRITE, rewrite=("pytest",))
    assert combine([one, one]).decide(exec_of("x")).rewrite == ("make",)
    decision = combine([one, other]).decide(exec_of("x"))
    assert (decision.effect, decision.rewrite) == (DENY, None)


def test_one_point_stays_itself_and_order_is_no_matter_for_effects() -> None:
    one = Fixed(ALLOW)
    assert combine([one]) is one
    assert combine([one, Fixed(DENY)]).digest != combine([one, Fixed(ASK)]).digest


# Any input.

WORDS = st.builds(
    Word,
    st.text(max_size=20) | st.sampled_from(HOSTILE_TEXTS),
    st.booleans(),
    st.text(max_size=3),
    st.text(max_size=3),
    st.booleans(),
)
COMMANDS = st.lists(
    st.lists(WORDS, max_size=4).map(lambda words: SimpleCommand(tuple(words))), max_size=3
)


@pytest.fixture(scope="module")
def points() -> list[DecisionPoint]:
    return [cedar_point(CEDAR_NO_RM), rego_point(REGO_NO_RM)]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(commands=COMMANDS, agent=st.text(max_size=5), words=st.lists(WORDS, max_size=3))
def test_whatever_stands_beside_it_rm_is_denied(
    points: list[DecisionPoint], commands: list[SimpleCommand], agent: str, words: list[Word]
) -> None:
    harmless = Intent("bash", tuple(commands))
    remove = SimpleCommand((Word("rm"), *words))
    harmful = Intent("bash", (*commands, remove))
    for point in points:
        for intent in (harmless, harmful):
            decision = point.decide(Exec(Principal(1000, agent), intent, "/srv"))
            assert decision.policy_digest == point.digest
        assert decision.effect is Effect.DENY
