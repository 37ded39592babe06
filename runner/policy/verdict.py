"""What layers said about subjects, and the decision that it comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runner.model.decision import STRICTNESS, Decision, Effect, MatchedRule
from runner.policy.subject import Subject

RULES_LIMIT = 100
"""Most rules that a decision lists."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one layer says about one subject."""

    effect: Effect
    reason: str
    observed: bool = False
    matched: MatchedRule | None = None
    deferred: bool = False
    """Nothing is said now: the `execve` decides."""

    @property
    def speaks(self) -> bool:
        """Whether it counts now."""
        return not self.deferred


@dataclass(slots=True)
class Verdict:
    """The strictest of everything said, and what was said."""

    enforced: Finding | None = None
    every: Finding | None = None
    rules: dict[tuple[str, str, str], MatchedRule] = field(default_factory=dict)
    obligations: set[str] = field(default_factory=set)

    def add_all(self, findings: Iterable[Finding]) -> None:
        """Take each that counts now."""
        for finding in findings:
            if not finding.deferred:
                self.add(finding)

    def add(self, finding: Finding) -> None:
        """Take what a layer says."""
        self.every = _stricter(self.every, finding)
        if not finding.observed:
            self.enforced = _stricter(self.enforced, finding)
        rule = finding.matched
        if rule is not None:
            self.rules.setdefault((rule.layer, rule.id, rule.matched), rule)

    def silence(self, subject: Subject) -> None:
        """No layer says anything about the subject: it is denied."""
        self.add(
            Finding(
                Effect.DENY,
                f"no rule or default allows {place(subject)}; add a rule that does, or a default",
            )
        )

    def decision(self, policy_digest: str) -> Decision:
        """What all that was said comes to."""
        every = self.every or Finding(Effect.DENY, "no rule or default allows it")
        # Where only observing layers spoke, nothing stands against it.
        enforced = self.enforced or Finding(Effect.ALLOW, every.reason)
        free = enforced.effect is Effect.ALLOW and every.effect is not Effect.ALLOW
        said = every if free or self.enforced is None else enforced
        rules = sorted(
            self.rules.values(),
            key=lambda rule: (-STRICTNESS[rule.effect], rule.layer, rule.id, rule.matched),
        )
        return Decision(
            effect=said.effect,
            reason=said.reason,
            policy_digest=policy_digest,
            rules=tuple(rules[:RULES_LIMIT]),
            obligations=tuple(sorted(self.obligations)),
            enforced=not free,
        )


def _stricter(one: Finding | None, other: Finding) -> Finding:
    return other if one is None or STRICTNESS[other.effect] > STRICTNESS[one.effect] else one


def place(subject: Subject) -> str:
    """How a reason names the command: as read, behind what, on which line."""
    behind = f" behind {' '.join(subject.via)}" if subject.via else ""
    line = f" on line {subject.line}" if subject.line > 1 else ""
    return f"'{subject.shown}'{behind}{line}"
