"""What is wrong with rules, found without running anything. Pure.

Where a finding says "never" it is sure: taking that rule away changes the effect of no decision
(`CLAIMS`). What can't be shown for sure is not said, so a rule set without findings may still hold
a rule that does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from runner.model.decision import STRICTNESS, Effect
from runner.model.rule import OnDoubt, OnUnknown, PolicyLayer, Rule
from runner.policy.cover import contradiction, covers
from runner.policy.patterns import misspelt, needless, useless_names


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """It can't do what it says."""
    WARNING = "warning"
    """It does, and is hardly meant so."""


class Check(StrEnum):
    """What is looked for; closed list, the words that `--json` uses."""

    NEVER_MATCHES = "never-matches"
    ALWAYS_BEATEN = "always-beaten"
    """An `allow`, where a stricter rule always matches as well."""
    NEVER_MATTERS = "never-matters"
    """It matches, and what is decided is the same without it."""
    BEATEN_WHERE_SURE = "beaten-where-sure"
    NOTHING_ALLOWED = "nothing-allowed"
    PATTERN = "pattern"
    """A pattern that matches nothing that is written out, or not what is meant."""
    EXAMPLE = "example"
    """A rule does not do what its example says."""


CLAIMS = frozenset({Check.NEVER_MATCHES, Check.ALWAYS_BEATEN, Check.NEVER_MATTERS})
"""Findings by which the rule may be taken away, and no decision has another effect."""


@dataclass(frozen=True, slots=True)
class Linted:
    """A layer to look at."""

    layer: PolicyLayer
    own: frozenset[str]
    """Ids of the rules that findings are told about; the others stand in another file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    layer: str
    rule: str | None
    """None: the layer as a whole."""
    check: Check
    severity: Severity
    what: str
    todo: str


def lint(each: Linted, above: Sequence[Linted] = ()) -> Iterator[Finding]:
    """What is wrong with a layer's own rules.

    `above`: the policies that always hold beside it: of a profile all, of a policy the others.
    """
    deferring = any(x.layer.on_dynamic is OnUnknown.DEFER for x in (each, *above))
    for index, rule in enumerate(each.layer.rules):
        if rule.id in each.own:
            yield from _rule(each, index, above, deferring=deferring)
    yield from _layer(each)


def _rule(
    each: Linted, index: int, above: Sequence[Linted], *, deferring: bool
) -> Iterator[Finding]:
    layer = each.layer
    rule = layer.rules[index]
    found = _never_matches(layer, rule)
    if found is None and not deferring:
        # With `defer` a rule that may match says something at the `execve`.
        found = _covered(each, index, above) or _by_default(layer, rule)
    if found is not None:
        yield found
    doubtful = rule.effect is not Effect.ALLOW and _on_doubt(layer, rule) is OnDoubt.MATCHES
    for problem in misspelt(rule.match, allows=rule.effect is Effect.ALLOW, doubtful=doubtful):
        severity = Severity.ERROR if problem.useless else Severity.WARNING
        yield Finding(layer.name, rule.id, Check.PATTERN, severity, problem.what, problem.todo)


def _never_matches(layer: PolicyLayer, rule: Rule) -> Finding | None:
    why = contradiction(rule.match) or useless_names(rule.match)
    if why is None and rule.effect is Effect.ALLOW:
        why = needless(rule.match)
    if why is None:
        return None
    return Finding(
        layer.name, rule.id, Check.NEVER_MATCHES, Severity.ERROR,
        f"never matches: {why}", "correct its match, or take the rule out",
    )  # fmt: skip


def _by_default(layer: PolicyLayer, rule: Rule) -> Finding | None:
    if rule.effect is not Effect.ALLOW or layer.default not in (None, Effect.ALLOW):
        return None
    if layer.default is Effect.ALLOW:
        why = f"'{layer.name}' allows by default"
    else:
        why = f"'{layer.name}' has no default, and an allow takes nothing back that others deny"
    return Finding(
        layer.name, rule.id, Check.NEVER_MATTERS, Severity.WARNING,
        f"never matters: {why}", "take the rule out, or say default: deny",
    )  # fmt: skip


def _covered(each: Linted, index: int, above: Sequence[Linted]) -> Finding | None:
    """Another rule that matches whatever this one does, and is at least as strict."""
    layer = each.layer
    rule = layer.rules[index]
    # What is only observed stands against nothing.
    candidates = [(each, one) for one in layer.rules if one is not rule and not one.observe]
    enforced = [one for one in above if not (one.layer.observe or one.layer.on_trial)]
    candidates += [
        (other, one) for other in enforced for one in other.layer.rules if not one.observe
    ]
    sure: Finding | None = None
    for holder, other in candidates:
        if STRICTNESS[other.effect] < STRICTNESS[rule.effect] or not covers(other, rule):
            continue
        if holder is each and _later_of_equals(layer, index, other):
            continue
        if _stands_for(other, holder, rule, each):
            return _beaten(layer, rule, holder.layer, other)
        if rule.effect is Effect.ALLOW and other.effect is not Effect.ALLOW and sure is None:
            sure = _beaten_where_sure(layer, rule, holder.layer, other)
    return sure


def _later_of_equals(layer: PolicyLayer, index: int, other: Rule) -> bool:
    """Of two rules that do without each other the second is told about."""
    rule = layer.rules[index]
    return (
        rule.effect is other.effect
        and layer.rules.index(other) > index
        and covers(rule, other)
        and _counts_alike(rule, other, layer)
    )


def _counts_alike(rule: Rule, other: Rule, layer: PolicyLayer) -> bool:
    return _on_doubt(layer, rule) is _on_doubt(layer, other)


def _stands_for(other: Rule, holder: Linted, rule: Rule, each: Linted) -> bool:
    """Whether `other`, which covers `rule`, decides the same without it."""
    if rule.effect is other.effect and (rule.ask, rule.rewrite) != (other.ask, other.rewrite):
        return False
    allows = rule.effect is Effect.ALLOW
    counts_doubt = allows or _on_doubt(each.layer, rule) is OnDoubt.MATCHES
    if (
        other.effect is not Effect.ALLOW
        and counts_doubt
        and _on_doubt(holder.layer, other) is not OnDoubt.MATCHES
    ):
        return False
    if holder is each and not allows:
        return True
    if holder is each and other.effect is Effect.ALLOW:
        return True
    # Without the rule its layer's default may speak, which must not be the stricter one.
    default = each.layer.default or Effect.ALLOW
    return STRICTNESS[other.effect] >= STRICTNESS[default]


def _beaten(layer: PolicyLayer, rule: Rule, holder: PolicyLayer, other: Rule) -> Finding:
    by = f"'{other.id}'" if holder.name == layer.name else f"'{other.id}' of '{holder.name}'"
    if rule.effect is Effect.ALLOW and other.effect is not Effect.ALLOW:
        return Finding(
            layer.name, rule.id, Check.ALWAYS_BEATEN, Severity.ERROR,
            f"allows nothing, ever: {by} matches all that it does and says {other.effect.value}",
            f"narrow the match of {by}, or take one of the two out",
        )  # fmt: skip
    same = rule.match == other.match and rule.effect is other.effect
    what = f"never matters: {by} " + (
        "states the same" if same else f"matches all that it does and says {other.effect.value}"
    )
    return Finding(
        layer.name, rule.id, Check.NEVER_MATTERS, Severity.WARNING,
        what, f"take it out, or narrow the match of {by}",
    )  # fmt: skip


def _beaten_where_sure(layer: PolicyLayer, rule: Rule, holder: PolicyLayer, other: Rule) -> Finding:
    by = f"'{other.id}'" if holder.name == layer.name else f"'{other.id}' of '{holder.name}'"
    return Finding(
        layer.name, rule.id, Check.BEATEN_WHERE_SURE, Severity.WARNING,
        f"allows next to nothing: {by} matches all that it surely does and says "
        f"{other.effect.value}",
        f"narrow the match of {by}, or take one of the two out",
    )  # fmt: skip


def _layer(each: Linted) -> Iterator[Finding]:
    layer = each.layer
    allowing = any(rule.effect in (Effect.ALLOW, Effect.REWRITE) for rule in layer.rules)
    if layer.default in (Effect.DENY, Effect.ASK) and not allowing:
        yield Finding(
            layer.name, None, Check.NOTHING_ALLOWED, Severity.WARNING,
            f"nothing is allowed: the default says {layer.default.value} and no rule allows",
            "write a rule with effect: allow, or another default",
        )  # fmt: skip


def _on_doubt(layer: PolicyLayer, rule: Rule) -> OnDoubt:
    return rule.on_doubt or layer.on_doubt
