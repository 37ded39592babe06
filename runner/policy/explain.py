"""Why something was decided, and what would have to change. Pure.

What would change it is not guessed: each change is made and decided again. Changes of a command
are made to what was read of it, one command at a time, with the others as they are.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from runner.model.action import Exec
from runner.model.decision import STRICTNESS, Decision, Effect, MatchedRule
from runner.model.intent import SimpleCommand, Word
from runner.model.rule import PolicyLayer
from runner.policy.circumstances import Circumstances
from runner.policy.engine import RulesDecisionPoint, subjects_of
from runner.policy.hold import Condition, Hold
from runner.policy.others import Others, PointTold
from runner.policy.subject import Subject
from runner.policy.trace import SubjectTrace
from runner.policy.verdict import Finding, Verdict
from runner.policy.witness import Reason, reasons
from runner.ports import DecisionPoint

BY_DEFAULT = "default"
ON_DYNAMIC = "on_dynamic"
ON_UNREADABLE = "on_unreadable"
_REFUSED_LIMIT = 20
"""Refused parts of a text that changes are looked for; a person mends one after the other."""
_LONG_TEXT = 300
_REFUSED_OF_LONG = 3
"""The same of a text with more than so many commands, where each try takes longer."""
_ARGUMENTS_LIMIT = 32
"""Arguments that are changed one by one."""
_PAIRED_LIMIT = 12
"""Changes that are tried in pairs, where none suffices by itself."""
_PAIRS_TOLD = 4
_ROUNDS_LIMIT = 8
"""Times that rules are taken out and it is decided again."""
_LITERAL = Word("name")
"""Stands for what somebody would write."""
_OTHER_NAME = Word("another-command")


@dataclass(frozen=True, slots=True)
class RuleTold:
    """A rule that has to do with a part of the text."""

    layer: str
    rule: str
    effect: Effect
    hold: Hold
    passed: bool
    """It only may match, and `on_doubt: passes` says that this is no match."""
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class PartTold:
    """One command, path, host or construct: what rules made of it."""

    subject: Subject
    said: Finding | None
    """None: nothing is said about it, and nothing stands against it."""
    says: tuple[tuple[str, tuple[Finding, ...]], ...]
    """What each layer says that says something, by its name."""
    rules: tuple[RuleTold, ...]
    changes: tuple[str, ...] = ()
    """What would get it allowed, each by itself, in imperative clauses; for what is refused."""
    others: tuple[MatchedRule, ...] = ()
    """Policies of points beside the rules that stand against it."""

    @property
    def refused(self) -> bool:
        """Whether it stands in the way."""
        return bool(self.others) or self.refused_by_rules

    @property
    def refused_by_rules(self) -> bool:
        """Whether it does by the rules alone."""
        return self.said is not None and self.said.effect is not Effect.ALLOW


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What in the policy stands in the way."""

    layer: str
    rule: str
    """A rule's id, or `default`, `on_dynamic`, `on_unreadable`."""
    effect: Effect
    of_rules: bool
    """Whether it is a rule, and no word of the layer as a whole."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was made of an action, and why."""

    action: Exec
    parts: tuple[PartTold, ...]
    obstacles: tuple[Obstacle, ...]
    """Without all of these it would be `then`; the first ones decided."""
    then: Effect
    others: tuple[PointTold, ...] = ()
    """What each point beside the rules says."""


def explain(
    point: RulesDecisionPoint,
    action: Exec,
    *,
    every: bool = False,
    beside: Sequence[DecisionPoint] = (),
) -> Explanation:
    """Trace an action; `every`: with the rules on such commands that do not match.

    `beside`: the points that are asked beside the rules. Only they know their own policies, so of
    these it is told what they say; a change of a command is tried with them too.
    """
    circumstances = Circumstances.of(action)
    others = Others(beside, action)
    parts = []
    refused = 0
    limit = _REFUSED_OF_LONG if len(action.intent.commands) > _LONG_TEXT else _REFUSED_LIMIT
    for index, traced in enumerate(point.trace(action)):
        told = _part(traced, circumstances, every=every)
        told = replace(told, others=others.against(traced.subject.shown))
        if told.refused and refused < limit:
            refused += 1
            changes = tuple(_changes(point, action, index, circumstances, others))
            told = replace(told, changes=changes)
        parts.append(told)
    obstacles, then = _obstacles(point, action)
    effects = [then, *(told.decision.effect for told in others.told if told.refuses)]
    then = max(effects, key=STRICTNESS.__getitem__)
    return Explanation(action, tuple(parts), obstacles, then, others.told)


def _part(traced: SubjectTrace, circumstances: Circumstances, *, every: bool) -> PartTold:
    rules = [
        RuleTold(
            layer.layer.name,
            each.rule.id,
            each.rule.effect,
            each.hold,
            each.passed,
            reasons(each.rule.match, each.conditions, traced.subject, circumstances),
        )
        for layer in traced.layers
        for each in layer.rules
        if each.concerned and (each.hold is not Hold.NO or (every and _about(each.conditions)))
    ]
    rules.sort(key=lambda told: (-told.hold, -STRICTNESS[told.effect]))
    says = tuple((each.layer.name, each.says) for each in traced.layers if each.says)
    return PartTold(traced.subject, traced.said, says, tuple(rules))


def _about(conditions: Sequence[Condition]) -> bool:
    """Whether a rule that does not match names such a command, or no command in particular."""
    return all(each.hold is not Hold.NO for each in conditions if each.name == "command")


# What could be written instead.


@dataclass(frozen=True, slots=True)
class _Step:
    """A small change of a command."""

    told: str
    """An imperative clause."""
    command: SimpleCommand


def _changes(
    point: RulesDecisionPoint,
    action: Exec,
    index: int,
    circumstances: Circumstances,
    beside: Others,
) -> Iterator[str]:
    """Changes of one command after which nothing stands against it any more, single ones first."""
    commands = action.intent.commands
    if index >= len(commands):
        return  # a path, a host or a construct: no words to change
    command, inner = commands[index], _inside(commands, index)

    def allowed(changed: SimpleCommand) -> bool:
        others = (*commands[:index], changed, *commands[index + 1 :])
        other = replace(action, intent=replace(action.intent, commands=others))
        subject = subjects_of(other)[index]
        return _permitted(point, subject, circumstances) and beside.permit(other, subject.shown)

    steps = [*_steps(command, inner)]
    if single := [step.told for step in steps if allowed(step.command)]:
        yield from single
        return
    pairs = (
        (one, other)
        for one in steps[:_PAIRED_LIMIT]
        for other in [*_steps(one.command)][:_PAIRED_LIMIT]
    )
    seen: set[frozenset[str]] = set()
    found = 0
    for one, other in pairs:
        both = frozenset((one.told, other.told))
        if both not in seen and len(both) == 2 and allowed(other.command):
            found += 1
            yield f"{one.told}, and {other.told}"
            if found == _PAIRS_TOLD:
                return
        seen.add(both)


def _steps(command: SimpleCommand, inner: SimpleCommand | None = None) -> Iterator[_Step]:
    if inner is not None:
        told = f"run '{_shown(inner)}' by itself, without {command.words[0].text}"
        yield _Step(told, inner)
    words, rest = command.words, command.words[1 : _ARGUMENTS_LIMIT + 1]
    for number, word in enumerate((*words[:1], *rest)):
        if word.dynamic:
            what = "a command that is allowed" if number == 0 else "what it stands for"
            literal = (*words[:number], _LITERAL, *words[number + 1 :])
            yield _Step(f"write {what} in place of {word.text}", replace(command, words=literal))
    for number, word in enumerate(rest, start=1):
        left = (*words[:number], *words[number + 1 :])
        yield _Step(f"leave out {word.text}", replace(command, words=left))
    for number, use in enumerate(command.redirects):
        redirects = (*command.redirects[:number], *command.redirects[number + 1 :])
        told = f"leave out the redirection that {use.access.value}s {use.path.text}"
        yield _Step(told, replace(command, redirects=redirects))
    for number, each in enumerate(command.assignments):
        assignments = (*command.assignments[:number], *command.assignments[number + 1 :])
        yield _Step(f"leave out {each.name}=…", replace(command, assignments=assignments))
    if words and not words[0].dynamic and words[0] != _OTHER_NAME:
        named = replace(command, words=(_OTHER_NAME, *words[1:]))
        yield _Step(f"use another command than '{words[0].text}'", named)


def _inside(commands: Sequence[SimpleCommand], index: int) -> SimpleCommand | None:
    """The command that a wrapper runs, as if it stood there by itself."""
    wrapper = commands[index]
    depth = len(wrapper.via)
    for each in commands[index + 1 :]:
        if len(each.via) <= depth or each.via[:depth] != wrapper.via:
            return None
        if len(each.via) == depth + 1:
            return replace(each, via=wrapper.via)
    return None


def _permitted(point: RulesDecisionPoint, subject: Subject, circumstances: Circumstances) -> bool:
    verdict = Verdict()
    answers = [layer.says(subject, circumstances, layer.rules) for layer in point.layers]
    point.consider(subject, answers, verdict)
    said = verdict.enforced or verdict.every
    return said is None or said.effect is Effect.ALLOW


# What could be decided instead.


def _obstacles(point: RulesDecisionPoint, action: Exec) -> tuple[tuple[Obstacle, ...], Effect]:
    """Rules and defaults that stand in the way, taken out round by round until nothing does."""
    layers = [layer.source for layer in point.layers]
    found: list[Obstacle] = []
    decision = point.decide(action)
    for _ in range(_ROUNDS_LIMIT):
        if decision.effect is Effect.ALLOW:
            break
        standing = dict.fromkeys(_standing(decision, layers))
        fresh = [each for each in standing if each not in found]
        found += fresh
        removable = [each for each in fresh if each.of_rules or each.rule == BY_DEFAULT]
        if not removable:
            break
        layers = [_without(layer, removable) for layer in layers]
        decision = RulesDecisionPoint(layers, indexed=False).decide(action)
    return tuple(found), decision.effect


def _standing(decision: Decision, layers: Sequence[PolicyLayer]) -> Iterator[Obstacle]:
    ids = {layer.name: {rule.id for rule in layer.rules} for layer in layers}
    strictest = max((STRICTNESS[rule.effect] for rule in decision.rules), default=0)
    for rule in decision.rules:
        if STRICTNESS[rule.effect] == strictest and rule.effect is not Effect.ALLOW:
            of_rules = rule.id in ids.get(rule.layer, ())
            yield Obstacle(rule.layer, rule.id, rule.effect, of_rules)


def _without(layer: PolicyLayer, obstacles: Sequence[Obstacle]) -> PolicyLayer:
    own = [each for each in obstacles if each.layer == layer.name]
    gone = {each.rule for each in own if each.of_rules}
    rules = tuple(rule for rule in layer.rules if rule.id not in gone)
    opened = any(each.rule == BY_DEFAULT and not each.of_rules for each in own)
    return replace(layer, rules=rules, default=Effect.ALLOW if opened else layer.default)


def _shown(command: SimpleCommand) -> str:
    return " ".join(word.text for word in command.words)


def draft(part: PartTold) -> str | None:
    """A rule that would allow a command where only a default stands against it, or None."""
    name = part.subject.name
    if name is None or name.dynamic or not part.subject.defaulted:
        return None
    base = posixpath.basename(name.text)
    return f"{{id: {_identifier(base)}, effect: allow, match: {{command: {base}}}}}"


def _identifier(name: str) -> str:
    return (
        "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-") or "x"
    )
