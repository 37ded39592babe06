"""How a decision came about: every rule, and how far each of its conditions holds.

It asks what deciding asks, by the same code, but of every rule: the index is left out, so that what
did not match is told too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.model.action import Action
from runner.model.rule import PolicyLayer, Rule
from runner.policy.circumstances import Circumstances
from runner.policy.hold import Condition, Hold
from runner.policy.subject import Subject
from runner.policy.verdict import Finding, Verdict

if TYPE_CHECKING:
    from runner.policy.engine import RulesDecisionPoint
    from runner.policy.layer import Layer


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """One rule, asked about one subject."""

    rule: Rule
    concerned: bool
    """Whether it speaks about such subjects at all."""
    hold: Hold
    passed: bool
    """It only may match, and `on_doubt: passes` says that this is no match."""
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class LayerTrace:
    """One layer, asked about one subject."""

    layer: PolicyLayer
    rules: tuple[RuleTrace, ...]
    """In the order of the layer."""
    says: tuple[Finding, ...]
    """Its strictest rules, or its default; empty: it says nothing."""


@dataclass(frozen=True, slots=True)
class SubjectTrace:
    """One command, path, host, construct or connection, and what is said about it."""

    subject: Subject
    layers: tuple[LayerTrace, ...]
    """In their order."""
    said: Finding | None
    """What it comes to for this subject alone; None: nothing is said about it."""


def trace(point: RulesDecisionPoint, action: Action) -> tuple[SubjectTrace, ...]:
    """What every rule says about each part of an action, in the order of `Intent`."""
    from runner.policy.engine import subjects_of  # noqa: PLC0415  (it is built on this module)

    circumstances = Circumstances.of(action)
    found = []
    for subject in subjects_of(action):
        layers = tuple(_layer(each, subject, circumstances) for each in point.layers)
        verdict = Verdict()
        point.consider(subject, [each.says for each in layers], verdict)
        found.append(SubjectTrace(subject, layers, verdict.enforced or verdict.every))
    return tuple(found)


def _layer(layer: Layer, subject: Subject, circumstances: Circumstances) -> LayerTrace:
    rules = []
    for rule in layer.rules:
        concerned = subject.kind in rule.concerns
        hold = rule.holds(subject, circumstances)
        rules.append(
            RuleTrace(
                rule=rule.rule,
                concerned=concerned,
                hold=hold,
                passed=hold is Hold.POSSIBLY and layer.passes(rule),
                conditions=rule.conditions(subject, circumstances) if concerned else (),
            )
        )
    says = layer.says(subject, circumstances, layer.rules)
    return LayerTrace(layer.source, tuple(rules), tuple(says))
