"""What layers said about subjects, and the decision that it comes to."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.model.decision import STRICTNESS, AskTerms, Decision, Effect, MatchedRule
from runner.policy.asking import strictest
from runner.policy.rewriting import CompiledRewrite
from runner.policy.subject import Subject

RULES_LIMIT = 100
"""Most rules that a decision lists."""
VERBS = {Effect.DENY: "denies", Effect.ASK: "asks about", Effect.REWRITE: "rewrites",
         Effect.ALLOW: "allows"}  # fmt: skip


class Finding(NamedTuple):
    """What one layer says about one subject."""

    effect: Effect
    reason: str
    observed: bool = False
    matched: MatchedRule | None = None
    deferred: bool = False
    """Nothing is said now: the `execve` decides."""
    ask: AskTerms | None = None
    instead: CompiledRewrite | None = None
    subject: Subject | None = None
    """What a rule speaks about."""

    @property
    def speaks(self) -> bool:
        """Whether it counts now."""
        return not self.deferred


@dataclass(slots=True)
class Verdict:
    """The strictest of everything said, and what was said."""

    sole: Subject | None = None
    """The one command that the request is, with nothing around it: a rewrite can replace it."""
    enforced: Finding | None = None
    every: Finding | None = None
    rules: dict[MatchedRule, None] = field(default_factory=dict)
    asking: list[Finding] = field(default_factory=list)
    rewriting: list[Finding] = field(default_factory=list)
    obligations: set[str] = field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Take what a layer says."""
        self.every = _stricter(self.every, finding)
        if not finding.observed:
            self.enforced = _stricter(self.enforced, finding)
        if finding.effect is Effect.ASK:
            self.asking.append(finding)
        elif finding.effect is Effect.REWRITE:
            self.rewriting.append(finding)
        rule = finding.matched
        if rule is not None:
            self.rules[rule] = None

    def silence(self, subject: Subject) -> None:
        """No layer says anything about the subject: it is denied."""
        self.add(
            Finding(
                Effect.DENY,
                f"no rule or default allows {place(subject)}; use what a rule allows, or have one "
                "added",
            )
        )

    def decision(self, policy_digest: str) -> Decision:
        """What all that was said comes to."""
        every = self.every or Finding(Effect.DENY, "no rule or default allows it")
        # Where only observing layers spoke, nothing stands against it.
        enforced = self.enforced or Finding(Effect.ALLOW, every.reason)
        free = enforced.effect is Effect.ALLOW and every.effect is not Effect.ALLOW
        said = every if free or self.enforced is None else enforced
        effect, reason, rewrite, ask = said.effect, said.reason, None, None
        if effect is Effect.ASK:
            terms = [f.ask or AskTerms() for f in self.asking if free or not f.observed]
            ask = strictest(terms)
        elif effect is Effect.REWRITE:
            rewriting = [f for f in self.rewriting if free or not f.observed]
            effect, reason, rewrite = self._rewritten(rewriting)
        rules = sorted(
            self.rules,
            key=lambda rule: (
                -STRICTNESS[rule.effect],
                rule.layer,
                rule.id,
                rule.matched,
                rule.message,
            ),
        )
        return Decision(
            effect=effect,
            reason=reason,
            policy_digest=policy_digest,
            rules=tuple(rules[:RULES_LIMIT]),
            obligations=tuple(sorted(self.obligations)),
            enforced=not free,
            rewrite=rewrite,
            ask=ask,
        )

    def _rewritten(self, findings: list[Finding]) -> tuple[Effect, str, tuple[str, ...] | None]:
        """What the rewriting rules come to together."""
        first: dict[int, tuple[str, Finding]] = {}
        for finding in findings:
            shown = _instead(finding)
            told, other = first.setdefault(id(finding.subject), (shown, finding))
            if told != shown:
                return Effect.DENY, _disagreement(told, other, shown, finding), None
        shown, said = next(iter(first.values()))
        if not shown:
            return Effect.REWRITE, said.reason, None
        if self.sole is not None and said.instead is not None:
            return (
                Effect.REWRITE,
                f"{said.reason}; use: {shown}",
                said.instead.words(self.sole.literals),
            )
        return Effect.REWRITE, f"{said.reason}; use instead, by itself: {shown}", None


def _instead(finding: Finding) -> str:
    """The command to use, for a person; with `…` for what only running would tell."""
    if finding.instead is None or finding.subject is None:
        return ""
    literals = [*finding.subject.literals]
    words = finding.instead.words(literals + (["…"] if finding.subject.unsure else []))
    return " ".join(word if word == "…" else shlex.quote(word) for word in words)


def _disagreement(told: str, one: Finding, shown: str, other: Finding) -> str:
    pairs = sorted(
        (f"'{text}' (rule '{f.matched.id}' of '{f.matched.layer}')" if f.matched else text)
        for text, f in ((told, one), (shown, other))
    )
    subject = place(one.subject) if one.subject is not None else "the command"
    wanted = ", ".join(pairs)
    return f"rules want different commands in the place of {subject}; run one of: {wanted}"


def _stricter(one: Finding | None, other: Finding) -> Finding:
    return other if one is None or STRICTNESS[other.effect] > STRICTNESS[one.effect] else one


def place(subject: Subject) -> str:
    """How a reason names the command: as read, behind what, on which line."""
    behind = f" behind {' '.join(subject.via)}" if subject.via else ""
    line = f" on line {subject.line}" if subject.line > 1 else ""
    return f"'{subject.shown}'{behind}{line}"
