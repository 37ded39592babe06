"""Rules and layers that are only observed: what they would have said. Pure.

They are asked beside the others and apart from them. What is decided is decided without them, so
that they can neither tighten nor loosen it: no default that they state counts, and no rule of
theirs stands in the place of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner.model.action import Action, Exec
from runner.model.decision import Effect, MatchedRule
from runner.model.rule import PolicyLayer
from runner.policy.circumstances import Circumstances
from runner.policy.layer import Layer, unreadable
from runner.policy.subject import ADVICE, SHELL_LANGUAGES, Subject
from runner.policy.verdict import RULES_LIMIT, Finding, Verdict

FAULT = "fault"
"""Stands for a rule where what is observed could not be evaluated."""


def enforced(layer: PolicyLayer) -> PolicyLayer | None:
    """What has a say of a layer; None: nothing."""
    if layer.on_trial:
        return None
    if not any(rule.observe for rule in layer.rules):
        return layer
    return replace(layer, rules=tuple(rule for rule in layer.rules if not rule.observe))


def observed(layer: PolicyLayer) -> PolicyLayer | None:
    """What is only observed of a layer; None: nothing."""
    if layer.on_trial:
        return layer
    rules = tuple(rule for rule in layer.rules if rule.observe)
    if not rules:
        return None
    return replace(layer, rules=rules, default=None, on_dynamic=None, on_unreadable=None)


class Observing:
    """What is only observed of several layers."""

    def __init__(self, layers: Sequence[PolicyLayer]) -> None:
        """PolicyError: a rule states what can't be compiled."""
        apart = [found for layer in layers if (found := observed(layer)) is not None]
        self.layers = tuple(Layer(each, deferring=False) for each in apart)

    def told(self, action: Action, asked: Sequence[Subject]) -> tuple[MatchedRule, ...]:
        """What would have been refused, asked about or rewritten, strictest first.

        Never raises: what can't be evaluated is told as a fault, and changes nothing either.
        """
        try:
            return self._told(action, asked)
        except Exception as error:
            why = f"it could not be evaluated ({type(error).__name__})"
            return (MatchedRule(FAULT, self.layers[0].source.name, Effect.DENY, why),)

    def _told(self, action: Action, asked: Sequence[Subject]) -> tuple[MatchedRule, ...]:
        circumstances = Circumstances.of(action)
        verdict = Verdict()
        for subject in asked:
            advised = subject.advice or any(name in ADVICE for name in subject.via)
            for layer in self.layers:
                # A layer on trial speaks as it would; rules that are observed each for itself,
                # for whoever tries one wants to know what it does, whatever others do.
                says = layer.says if layer.source.on_trial else layer.each
                for finding in says(subject, circumstances, layer.rules):
                    if not finding.deferred:
                        verdict.add(finding)
                if subject.name_unknown and not advised:
                    for finding in _one(layer.on_dynamic(subject)):
                        verdict.add(finding)
        intent = action.intent if isinstance(action, Exec) else None
        if intent is not None and intent.unreadable and intent.language in SHELL_LANGUAGES:
            for layer in self.layers:
                said = layer.source.on_unreadable
                if said is not None:
                    verdict.add(unreadable(intent.unreadable, said, layer.source.name))
        rules = verdict.decision("").rules
        return tuple(rule for rule in rules if rule.effect is not Effect.ALLOW)[:RULES_LIMIT]


def _one(finding: Finding | None) -> tuple[Finding, ...]:
    return () if finding is None else (finding,)
