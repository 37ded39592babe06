"""Cases: what a policy should decide, held against what it does decide. Pure.

A case is a request and what is expected of its decision. A rule's examples are cases as well:
what it `catches` must match that very rule, with its own effect; what it `passes` must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runner.analysis import read
from runner.analysis.wrappers.table import Table
from runner.model.action import Exec, Facts
from runner.model.decision import Decision, Effect
from runner.model.place import Place
from runner.model.principal import Principal
from runner.model.request import Program, ShellText
from runner.model.rule import CountOf, Match, PolicyLayer, Rule
from runner.policy.engine import RulesDecisionPoint

EXAMPLES_WORKSPACE = "/workspace"
"""The folder that the examples of rules are read in, and cases that name none."""
_SHOWN_LIMIT = 160
_CIRCUMSTANCES = ("agents", "sessions", "tenants", "uids", "labels", "hours", "frequency")
"""Conditions that a command line by itself can't show to hold."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a decision should be; None says nothing."""

    effect: Effect
    rule: str | None = None
    """A rule of this id is among those that matched, with this effect."""
    reason: str | None = None
    """The reason holds this text."""
    rewrite: tuple[str, ...] | None = None
    """The words to run instead."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what should be decided about it."""

    name: str
    place: Place
    program: Program
    expected: Expected
    principal: Principal
    workspace: str = EXAMPLES_WORKSPACE
    environment: tuple[str, ...] = ()
    """Names of the variables that it asks to set."""
    labels: tuple[tuple[str, str], ...] = ()
    at_s: float | None = None
    """When it is decided, in seconds since the epoch; None: not stated."""
    calls: Mapping[tuple[CountOf, float], int] = field(default_factory=dict)
    """Earlier runs, by whose and within how many seconds; those that are not stated are 0."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Links in the workspace, each with what it leads to."""


@dataclass(frozen=True, slots=True)
class Example:
    """A shell text that shows what a rule is for."""

    layer: str
    rule: str
    text: str
    catches: bool
    """Whether the rule is to match it; False: it is to let it be."""
    place: Place


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case or an example."""

    name: str
    suite: str
    """The file that it stands in."""
    place: Place
    failures: tuple[str, ...] = ()
    """Each a sentence; empty: it holds."""

    @property
    def holds(self) -> bool:
        """Whether all was as expected."""
        return not self.failures


Decide = Callable[[Case, Facts], Decision]
"""Decides about a case, under the policy that is tested."""


def try_case(case: Case, counted: frozenset[tuple[CountOf, float]], decide: Decide) -> Result:
    """Decide about a case; `counted`: what the policy needs counted (`deciding.Policy.counted`)."""
    failures = [
        f"it states {_spelled(key)}, which no rule counts; {_those_counted(counted)}"
        for key in case.calls
        if key not in counted
    ]
    facts = Facts(case.at_s, {key: case.calls.get(key, 0) for key in counted}, case.links)
    failures += _differences(case.expected, decide(case, facts))
    return Result(case.name, case.place.source, case.place, tuple(failures))


def try_examples(
    layer: PolicyLayer, examples: Sequence[Example], wrappers: Table | None = None
) -> Iterator[Result]:
    """Hold each rule of a layer that has examples against them, each rule by itself.

    An example is a command line and says nothing of who asks, when and how often: what a rule
    states of that, beside its other conditions, is taken as given. Cases are there to try it.
    `wrappers`: the table that they are read by; None: the shipped one.
    """
    points = {rule.id: _alone(layer, rule) for rule in layer.rules}
    effects = {rule.id: rule.effect for rule in layer.rules}
    for example in examples:
        if example.rule in points:
            matched = _matches(points[example.rule], example, wrappers)
            name = f"{example.rule} {'catches' if example.catches else 'passes'}: {example.text}"
            failure = _example_failure(example, effects[example.rule], matched)
            yield Result(
                name, example.place.source, example.place, (failure,) if failure is not None else ()
            )


def shown(text: str) -> str:
    """A text on one line, short enough to be read, with nothing in it that moves a cursor."""
    line = ascii(text)[1:-1] if not text.isprintable() else text
    return line if len(line) <= _SHOWN_LIMIT else f"{line[: _SHOWN_LIMIT - 1]}…"


def _alone(layer: PolicyLayer, rule: Rule) -> RulesDecisionPoint:
    """The rule and nothing beside it: neither other rules nor a default."""
    unstated = Match()
    circumstances = {name: getattr(unstated, name) for name in _CIRCUMSTANCES}
    rule = replace(rule, match=replace(rule.match, **circumstances), observe=None)
    alone = replace(layer, rules=(rule,), default=None, observe=False, on_trial=None)
    return RulesDecisionPoint([alone])


def _matches(
    point: RulesDecisionPoint, example: Example, wrappers: Table | None
) -> tuple[Effect, ...]:
    """The effects with which the one rule of `point` matches the example."""
    decision = point.decide(
        Exec(
            principal=Principal(uid=0),
            intent=read(ShellText(example.text), wrappers),
            workspace=EXAMPLES_WORKSPACE,
            facts=Facts(None, dict.fromkeys(point.counted, 0)),
        )
    )
    return tuple(
        rule.effect
        for rule in decision.rules
        if (rule.layer, rule.id) == (example.layer, example.rule)
    )


def _example_failure(example: Example, effect: Effect, matched: tuple[Effect, ...]) -> str | None:
    if example.catches and not matched:
        return (
            f"rule '{example.rule}' says that it catches '{shown(example.text)}' and does not; "
            "change its match, or the example"
        )
    if example.catches and effect not in matched:
        return (
            f"rule '{example.rule}' catches '{shown(example.text)}' with "
            f"'{matched[0].value}' and not with '{effect.value}'"
        )
    if not example.catches and matched:
        return (
            f"rule '{example.rule}' says that it passes '{shown(example.text)}' and matches it; "
            "narrow its match, or change the example"
        )
    return None


def _differences(expected: Expected, decision: Decision) -> Iterator[str]:
    said = f"{decision.effect.value}: {shown(decision.reason)}"
    if decision.effect is not expected.effect:
        by = f" by rule '{expected.rule}'" if expected.rule is not None else ""
        yield f"expected {expected.effect.value}{by}, and it is {said}"
    elif expected.rule is not None and not any(
        rule.id == expected.rule and rule.effect is expected.effect for rule in decision.rules
    ):
        others = ", ".join(dict.fromkeys(f"'{rule.id}'" for rule in decision.rules)) or "no rule"
        yield (
            f"expected {expected.effect.value} by rule '{expected.rule}', and it is "
            f"{decision.effect.value} by {others}"
        )
    if expected.reason is not None and expected.reason not in decision.reason:
        yield f"expected a reason with '{expected.reason}', and it is {said}"
    if expected.rewrite is not None and decision.effect is Effect.REWRITE:
        instead = decision.rewrite
        if instead is None:
            yield "expected another command, and the text holds more than the one to put it in"
        elif instead != expected.rewrite:
            yield f"expected {list(expected.rewrite)} to run instead, and it is {list(instead)}"


def _spelled(key: tuple[CountOf, float]) -> str:
    return f"'{key[0].value}/{key[1]:g}s'"


def _those_counted(counted: frozenset[tuple[CountOf, float]]) -> str:
    if not counted:
        return "none counts anything"
    return f"counted are {', '.join(_spelled(key) for key in sorted(counted))}"
