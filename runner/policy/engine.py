"""The policy decision point: rules in layers, one decision. Pure.

Each simple command is asked about by itself, in each layer by itself: the strictest rule that
matches speaks for the layer, else the layer's default; over layers and commands the strictest wins
(deny, ask, rewrite, allow). What no layer speaks about is denied.
"""

from __future__ import annotations

import functools
import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import rfc8785

from runner.model.action import Action, Connect, Exec, Request, Tool
from runner.model.decision import Decision, Effect
from runner.model.intent import Word
from runner.model.principal import Principal
from runner.model.rule import CountOf, Frequency, Match, OnUnknown, PolicyLayer
from runner.policy.circumstances import Circumstances
from runner.policy.folders import NamedPath
from runner.policy.index import View
from runner.policy.layer import Layer, unknown_name, unreadable
from runner.policy.memory import Memory
from runner.policy.observing import Observing, enforced
from runner.policy.subject import ADVICE, SHELL_LANGUAGES, Kind, Subject, subjects
from runner.policy.touched import clean_host
from runner.policy.verdict import Finding, Verdict, place

if TYPE_CHECKING:
    from runner.policy.trace import SubjectTrace

DECIDE_AT_EXEC = "decide_at_exec"
"""Obligation: whoever enforces decides each `execve` by the same rules."""
_NOBODY = Principal(0)


def create(layers: Sequence[PolicyLayer]) -> RulesDecisionPoint:
    """The decision point over these layers; their order means nothing but the order of reports.

    PolicyError: a rule states what can't be compiled.
    """
    return RulesDecisionPoint(layers)


class RulesDecisionPoint:
    """Decides by rules; implements `runner.ports.DecisionPoint`."""

    def __init__(self, layers: Sequence[PolicyLayer], *, indexed: bool = True) -> None:
        """`layers`: the organisation's, the user's, the profile's, the request's.

        `indexed` False asks every rule about everything each time, and remembers nothing: slow, and
        the same decisions. PolicyError: a rule states what can't be compiled.
        """
        speaking = [found for layer in layers if (found := enforced(layer)) is not None]
        stated = [each.on_dynamic for each in speaking if each.on_dynamic is not None]
        self._deferring = bool(stated) and all(each is OnUnknown.DEFER for each in stated)
        self.layers = tuple(
            Layer(layer, deferring=self._deferring, indexed=indexed) for layer in speaking
        )
        self._observing = Observing(layers)
        self._digest = digest(layers)
        self._counted = frozenset(
            (each.of, each.window_s)
            for layer in layers
            for rule in layer.rules
            for each in frequencies(rule.match)
        )
        every = (*self.layers, *self._observing.layers)
        memory = Memory(every)
        self._memory = memory if indexed else None
        self._follows_links = memory.paths
        self._quiet = self._by_default()

    @property
    def digest(self) -> str:
        """`sha256:` and hex over every rule that is asked."""
        return self._digest

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """What the rules' frequencies need counted."""
        return self._counted

    @property
    def follows_links(self) -> bool:
        """Whether some rule states paths."""
        return self._follows_links

    def decide(self, action: Action) -> Decision:
        """Never raises; what can't be evaluated is a deny that says so."""
        try:
            if self._memory is None or not isinstance(action, Exec):
                return self._with_observed(action, self._decide(action))
            key = self._memory.key(action)
            decision = self._memory.recall(key, action)
            if decision is None:
                decision = self._with_observed(action, self._decide(action))
                self._memory.keep(key, action, decision)
            return decision
        except Exception as error:
            return Decision(
                Effect.DENY,
                f"the policy could not be evaluated ({type(error).__name__}), so it is denied; "
                "report this as a fault of runner",
                self._digest,
            )

    def trace(self, action: Action) -> tuple[SubjectTrace, ...]:
        """What every rule of every layer says about each part of the action, and why."""
        from runner.policy.trace import trace  # noqa: PLC0415  (it is built on this module)

        return trace(self, action)

    def _with_observed(self, action: Action, decision: Decision) -> Decision:
        """With what is only observed, which changes nothing else of it."""
        if not self._observing.layers:
            return decision
        return replace(decision, observed=self._observing.told(action, subjects_of(action)))

    def _decide(self, action: Action) -> Decision:
        circumstances = Circumstances.of(action)
        asked = subjects_of(action)
        unreadable = action.intent.unreadable if isinstance(action, Exec) else None
        quiet = self._quiet if unreadable is None else None
        candidates = []
        for subject in asked:
            view = View(subject, circumstances)
            rules = [layer.candidates(view, subject.kind) for layer in self.layers]
            candidates.append(rules)
            if subject.name_unknown or any(rules):
                quiet = None
        if quiet is not None:
            return quiet
        verdict = Verdict()
        for subject, rules in zip(asked, candidates, strict=True):
            answers = [
                layer.says(subject, circumstances, found)
                for layer, found in zip(self.layers, rules, strict=True)
            ]
            self.consider(subject, answers, verdict)
        if isinstance(action, Exec) and action.intent.language in SHELL_LANGUAGES and unreadable:
            self._unreadable(unreadable, verdict)
        if verdict.rewriting:
            verdict.sole = _sole(action, asked)
        return verdict.decision(self._digest)

    def _by_default(self) -> Decision | None:
        """What an action gets that no rule could match, where every default allows."""
        stated = [layer.source.default for layer in self.layers if layer.source.default is not None]
        if not stated or any(each is not Effect.ALLOW for each in stated):
            return None
        verdict = Verdict()
        anything = Subject(Kind.COMMAND)
        self.consider(
            anything,
            [layer.says(anything, Circumstances(_NOBODY), ()) for layer in self.layers],
            verdict,
        )
        return verdict.decision(self._digest)

    def consider(
        self, subject: Subject, answers: Sequence[Sequence[Finding]], verdict: Verdict
    ) -> None:
        """Take what the layers say about a subject, in their order, into the verdict."""
        deferred = spoken = False
        for answer in answers:
            for finding in answer:
                if finding.deferred:
                    deferred = True
                else:
                    spoken = True
                    verdict.add(finding)
        if subject.name_unknown:
            self._dynamic(subject, verdict)
            return
        if deferred:
            verdict.obligations.add(DECIDE_AT_EXEC)
        if subject.defaulted and not spoken:
            verdict.silence(subject)

    def _dynamic(self, subject: Subject, verdict: Verdict) -> None:
        if subject.advice or any(name in ADVICE for name in subject.via):
            return
        if self._deferring:
            verdict.obligations.add(DECIDE_AT_EXEC)
            verdict.add(Finding(Effect.ALLOW, f"what {place(subject)} runs is decided as it runs"))
        for layer in self.layers:
            finding = layer.on_dynamic(subject)
            if finding is not None:
                verdict.add(finding)
        if all(layer.source.on_dynamic is None for layer in self.layers):
            by = "no layer says what it gets"
            verdict.add(unknown_name(subject, Effect.DENY, by, "default"))

    def _unreadable(self, reason: str, verdict: Verdict) -> None:
        stated = [x.source for x in self.layers if x.source.on_unreadable is not None]
        sources = [(x.name, x.on_unreadable, x.observe) for x in stated]
        for name, said, observed in sources or [("default", OnUnknown.DENY, False)]:
            verdict.add(unreadable(reason, said, name, observed=observed))


def subjects_of(action: Action) -> list[Subject]:
    """Everything in an action that rules are asked about."""
    return subjects(action) if isinstance(action, Exec) else [_network_subject(action)]


def frequencies(match: Match) -> Iterator[Frequency]:
    """Every frequency that a match states, those of its parts too."""
    if match.frequency is not None:
        yield match.frequency
    for part in (*match.any_of, *match.all_of, *match.none_of):
        yield from frequencies(part)


def digest(layers: Sequence[PolicyLayer]) -> str:
    """`sha256:` and hex over the canonical JSON (RFC 8785) of all layers, in order."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps([_plain(each) for each in layers])).hexdigest()


def _plain(value: object) -> Any:
    """JSON values of a dataclass; what is not UTF-8 is written out.

    What is not stated is left out: a later version's new keys change no digest of older rules.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        stated = [(name, getattr(value, name)) for name in _field_names(type(value))]
        return {name: _plain(each) for name, each in stated if each is not None and each != ()}
    return value


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def _sole(action: Action, asked: Sequence[Subject]) -> Subject | None:
    """The command that the whole request is: plain words, nothing in front, around or behind."""
    if not isinstance(action, Exec) or len(asked) != 1:
        return None
    subject, command = asked[0], asked[0].source
    if command is None or not command.words or action.intent.language not in SHELL_LANGUAGES:
        return None
    if command.assignments or command.redirects or command.via or command.doubtful:
        return None
    literal = not any(word.dynamic for word in command.words)
    return subject if literal and action.intent.unreadable is None else None


def _network_subject(action: Connect | Request | Tool) -> Subject:
    if isinstance(action, Tool):
        return Subject(Kind.NETWORK, shown=f"tool {action.name} of {action.server}")
    host = clean_host(action.host)
    if isinstance(action, Connect):
        shown = f"{action.protocol} {host}:{action.port}"
        return Subject(Kind.NETWORK, hosts=(Word(host),), shown=shown)
    path = NamedPath((posixpath.normpath("/" + action.path.partition("?")[0].lstrip("/")),))
    shown = f"{action.method} {host}:{action.port}{action.path}"
    return Subject(Kind.NETWORK, paths=(path,), hosts=(Word(host),), shown=shown)
