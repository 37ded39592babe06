"""One layer of the policy, compiled: what it says about one subject."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable

from runner.model.decision import STRICTNESS, Effect, MatchedRule
from runner.model.rule import OnDoubt, OnUnknown, PolicyLayer
from runner.policy.circumstances import Circumstances
from runner.policy.hold import Hold
from runner.policy.index import Entry, Index, View
from runner.policy.matching import CompiledRule
from runner.policy.subject import Kind, Subject
from runner.policy.verdict import VERBS, Finding, place

_BUILTINS = frozenset(
    {".", ":", "alias", "bg", "bind", "break", "builtin", "cd", "command", "continue", "declare",
     "echo", "enable", "eval", "exec", "exit", "export", "fg", "hash", "jobs", "kill", "let",
     "local", "mapfile", "popd", "printf", "pushd", "pwd", "read", "readarray", "readonly",
     "return", "set", "shift", "shopt", "source", "test", "[", "times", "trap", "type", "typeset",
     "ulimit", "umask", "unalias", "unset", "wait"}
)  # fmt: skip
"""Commands that a shell runs itself: no `execve` will show their words."""
_TOLD_LIMIT = 8
"""Names of allowed commands that a refusal lists."""


class Layer:
    """A layer with its rules compiled, and filed by what they can match."""

    def __init__(self, source: PolicyLayer, *, deferring: bool, indexed: bool = True) -> None:
        """`deferring`: what only running would tell of a program's words is left to the `execve`.

        `indexed` False asks every rule each time. PolicyError: a rule can't be compiled.
        """
        self.source = source
        self.rules = tuple(CompiledRule(rule) for rule in source.rules)
        self._deferring = deferring
        self._index = {
            kind: Index(
                [
                    Entry.of(
                        rule,
                        sure_only=rule.rule.effect is Effect.ALLOW
                        or (self.passes(rule) and not deferring),
                    )
                    for rule in self.rules
                    if kind in rule.concerns
                ],
                indexed=indexed,
            )
            for kind in Kind
        }
        self._allowed = self._told()

    @property
    def passes_doubt(self) -> bool:
        """Whether what may run nothing is no matter for `on_dynamic`.

        Not for a list of what is allowed: there what can't be told is not on the list.
        """
        open_by_default = self.source.default in (None, Effect.ALLOW)
        return self.source.on_doubt is OnDoubt.PASSES and open_by_default

    def passes(self, rule: CompiledRule) -> bool:
        """Whether a rule of this layer does not match what only may."""
        return (rule.rule.on_doubt or self.source.on_doubt) is OnDoubt.PASSES

    def candidates(self, view: View, kind: Kind) -> Collection[CompiledRule]:
        """The rules that could match a subject of this kind."""
        return self._index[kind].candidates(view)

    def says(
        self, subject: Subject, circumstances: Circumstances, rules: Iterable[CompiledRule]
    ) -> list[Finding]:
        """What this layer says about a subject: its strictest rules of these, or its default."""
        findings = self.each(subject, circumstances, rules)
        if len(findings) < 2 or not any(finding.speaks for finding in findings):
            return findings
        strictest = max(STRICTNESS[f.effect] for f in findings if f.speaks)
        # Rules of lesser effect did match, but it is the strictest that speak for the layer.
        return [f for f in findings if f.deferred or STRICTNESS[f.effect] == strictest]

    def each(
        self, subject: Subject, circumstances: Circumstances, rules: Iterable[CompiledRule]
    ) -> list[Finding]:
        """What each of these rules says by itself about a subject, and the default beside them.

        A rule that only may match does not stand in the default's place: the stricter one counts.
        """
        findings = []
        certain = False
        for rule in rules:
            hold = rule.holds(subject, circumstances)
            if hold is Hold.NO:
                continue
            later = hold is Hold.POSSIBLY and self._deferring and _will_be_executed(subject)
            if hold is Hold.POSSIBLY and not later and self.passes(rule):
                continue
            certain = certain or hold is Hold.SURELY
            findings.append(self._matched(rule, subject, hold, deferred=later))
        if len(findings) > 1:
            findings.sort(key=lambda finding: finding.matched.id if finding.matched else "")
        if not certain:
            findings += self._default(subject)
        return findings

    def on_dynamic(self, subject: Subject) -> Finding | None:
        """What this layer says about a command whose name only running would tell."""
        said = self.source.on_dynamic
        if said is None:
            return None
        if subject.doubtful and self.passes_doubt:
            return Finding(Effect.ALLOW, f"{place(subject)} may run nothing at all")
        if said is OnUnknown.DEFER:
            return None
        effect = Effect.ASK if said is OnUnknown.ASK else Effect.DENY
        by = f"'{self.source.name}' {VERBS[effect]} that"
        return unknown_name(subject, effect, by, self.source.name, observed=self.source.observe)

    def _default(self, subject: Subject) -> list[Finding]:
        effect = self.source.default
        if effect is None or not subject.defaulted or subject.name_unknown:
            return []
        if effect is Effect.ALLOW:
            reason = f"'{self.source.name}' allows by default and no rule stands against it"
            return [Finding(effect, reason, self.source.observe)]
        told = f"no rule of '{self.source.name}' allows {place(subject)}, and its default "
        told += f"{VERBS[effect]} what no rule allows; {self._allowed}"
        matched = MatchedRule("default", self.source.name, effect, "", subject.shown)
        return [Finding(effect, told, self.source.observe, matched)]

    def _told(self) -> str:
        """What a refused agent may use instead."""
        allowing = [rule.rule for rule in self.rules if rule.rule.effect is Effect.ALLOW]
        names = sorted({name for rule in allowing for name in rule.match.commands})
        if not names:
            return "use what a rule allows" if allowing else "it allows nothing else"
        more = ", …" if len(names) > _TOLD_LIMIT else ""
        return f"its rules allow some uses of: {', '.join(names[:_TOLD_LIMIT])}{more}"

    def _matched(
        self, compiled: CompiledRule, subject: Subject, hold: Hold, *, deferred: bool
    ) -> Finding:
        rule = compiled.rule
        doubt = " (a word that only running it would tell could make it match)"
        reason = (
            f"rule '{rule.id}' of '{self.source.name}' {VERBS[rule.effect]} {place(subject)}"
            f"{doubt if hold is Hold.POSSIBLY else ''}"
            f"{': ' + rule.message if rule.message else ''}"
        )
        matched = MatchedRule(rule.id, self.source.name, rule.effect, rule.message, subject.shown)
        return Finding(
            rule.effect,
            reason,
            self.source.observe,
            matched,
            deferred,
            ask=rule.ask,
            instead=compiled.rewrite,
            subject=subject,
        )


def unknown_name(
    subject: Subject, effect: Effect, by: str, layer: str, *, observed: bool = False
) -> Finding:
    """What a command gets whose name only running would tell."""
    return Finding(
        effect,
        f"what {place(subject)} runs can't be told before it runs, and {by}; "
        "write the command's name literally",
        observed=observed,
        matched=MatchedRule("on_dynamic", layer, effect, "", subject.shown),
    )


def unreadable(
    reason: str, said: OnUnknown | None, layer: str, *, observed: bool = False
) -> Finding:
    """What a text gets that can't be read, by what its layer says."""
    effect = Effect.ASK if said is OnUnknown.ASK else Effect.DENY
    return Finding(
        effect,
        f"the text can't be read for a decision ({reason}); write it so that every "
        "command stands plainly in it",
        observed=observed,
        matched=MatchedRule("on_unreadable", layer, effect, reason),
    )


def _will_be_executed(subject: Subject) -> bool:
    """Whether an `execve` will show the words of which something is unknown now."""
    if subject.name is None or any(path.redirect and path.dynamic for path in subject.paths):
        return False
    return subject.name.dynamic or posixpath.basename(subject.name.text) not in _BUILTINS
