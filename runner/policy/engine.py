"""The policy decision point: rules in layers, one decision. Pure.

Each simple command is asked about by itself, in each layer by itself: the strictest rule that
matches speaks for the layer, else the layer's default; over layers and commands the strictest wins
(deny, ask, rewrite, allow). What no layer speaks about is denied.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import rfc8785

from runner.model.action import Action, Connect, Exec, Request, Tool
from runner.model.decision import STRICTNESS, Decision, Effect, MatchedRule
from runner.model.intent import Word
from runner.model.rule import CountOf, Frequency, Match, OnDoubt, OnUnknown, PolicyLayer
from runner.policy.globs import is_literal
from runner.policy.matching import CompiledRule, Hold
from runner.policy.subject import (
    ADVICE,
    SHELL_LANGUAGES,
    NamedPath,
    Subject,
    clean_host,
    subjects,
)
from runner.policy.verdict import Finding, Verdict, place

DECIDE_AT_EXEC = "decide_at_exec"
"""Obligation: whoever enforces decides each `execve` by the same rules."""
_BUILTINS = frozenset(
    {".", ":", "alias", "bg", "bind", "break", "builtin", "cd", "command", "continue", "declare",
     "echo", "enable", "eval", "exec", "exit", "export", "fg", "hash", "jobs", "kill", "let",
     "local", "mapfile", "popd", "printf", "pushd", "pwd", "read", "readarray", "readonly",
     "return", "set", "shift", "shopt", "source", "test", "[", "times", "trap", "type", "typeset",
     "ulimit", "umask", "unalias", "unset", "wait"}
)  # fmt: skip
"""Commands that a shell runs itself: no `execve` will show their words."""
_VERBS = {Effect.DENY: "denies", Effect.ASK: "asks about", Effect.REWRITE: "rewrites",
          Effect.ALLOW: "allows"}  # fmt: skip


def create(layers: Sequence[PolicyLayer]) -> RulesDecisionPoint:
    """The decision point over these layers; their order means nothing but the order of reports."""
    return RulesDecisionPoint(layers)


class RulesDecisionPoint:
    """Decides by rules; implements `runner.ports.DecisionPoint`."""

    def __init__(self, layers: Sequence[PolicyLayer]) -> None:
        """`layers`: the organisation's, the user's, the profile's, the request's."""
        self._layers = tuple(_Layer(layer) for layer in layers)
        self._digest = digest(layers)

    @property
    def digest(self) -> str:
        """`sha256:` and hex over every rule that is asked."""
        return self._digest

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """What the rules' frequencies need counted."""
        return frozenset(
            (each.of, each.window_s)
            for layer in self._layers
            for rule in layer.source.rules
            for each in frequencies(rule.match)
        )

    def decide(self, action: Action) -> Decision:
        """Never raises; what can't be evaluated is a deny that says so."""
        try:
            return self._decide(action)
        except Exception as error:
            return Decision(
                Effect.DENY,
                f"the policy could not be evaluated ({type(error).__name__}), so it is denied; "
                "report this as a fault of runner",
                self._digest,
            )

    def _decide(self, action: Action) -> Decision:
        verdict = Verdict()
        if isinstance(action, Exec):
            self._exec(action, verdict)
        else:
            subject = _network_subject(action)
            self._spoken(
                subject, [layer.network(subject, action) for layer in self._layers], verdict
            )
        return verdict.decision(self._digest)

    def _exec(self, action: Exec, verdict: Verdict) -> None:
        deferring = self._deferring()
        for subject in subjects(action):
            if not subject.defaulted and subject.advice and not self._mentions(subject):
                continue
            self._subject(subject, verdict, deferring=deferring)
        shell = action.intent.language in SHELL_LANGUAGES
        if shell and action.intent.unreadable is not None:
            self._unreadable(action.intent.unreadable, verdict)

    def _mentions(self, subject: Subject) -> bool:
        """Whether any rule could speak about a path or host outside of commands."""
        return any(layer.any_for(subject) for layer in self._layers)

    def _subject(self, subject: Subject, verdict: Verdict, *, deferring: bool) -> None:
        dynamic = subject.name is not None and subject.name.dynamic
        answers = [layer.command(subject, deferring=deferring) for layer in self._layers]
        for answer in answers:
            verdict.add_all(answer)
        if dynamic:
            self._dynamic(subject, verdict)
            return
        if any(finding.deferred for answer in answers for finding in answer):
            verdict.obligations.add(DECIDE_AT_EXEC)
        if subject.defaulted and not any(
            finding.speaks for answer in answers for finding in answer
        ):
            verdict.silence(subject)

    def _spoken(
        self, subject: Subject, answers: Sequence[Sequence[Finding]], verdict: Verdict
    ) -> None:
        for answer in answers:
            verdict.add_all(answer)
        if not any(answers):
            verdict.silence(subject)

    def _deferring(self) -> bool:
        stated = [x.source.on_dynamic for x in self._layers if x.source.on_dynamic is not None]
        return bool(stated) and all(each is OnUnknown.DEFER for each in stated)

    def _dynamic(self, subject: Subject, verdict: Verdict) -> None:
        if any(name in ADVICE for name in subject.via) or subject.advice:
            return
        stated = [layer for layer in self._layers if layer.source.on_dynamic is not None]
        if self._deferring():
            verdict.obligations.add(DECIDE_AT_EXEC)
            verdict.add(Finding(Effect.ALLOW, f"what {place(subject)} runs is decided as it runs"))
        for layer in stated:
            if subject.doubtful and layer.passes_doubt:
                verdict.add(Finding(Effect.ALLOW, f"{place(subject)} may run nothing at all"))
            elif layer.source.on_dynamic is not OnUnknown.DEFER:
                verdict.add(_dynamic_finding(layer, subject))
        if not stated:
            verdict.add(_dynamic_finding(None, subject))

    def _unreadable(self, reason: str, verdict: Verdict) -> None:
        stated = [layer for layer in self._layers if layer.source.on_unreadable is not None]
        sources = [(x.source.name, x.source.on_unreadable, x.source.observe) for x in stated]
        for name, said, observed in sources or [("default", OnUnknown.DENY, False)]:
            effect = Effect.ASK if said is OnUnknown.ASK else Effect.DENY
            verdict.add(
                Finding(
                    effect,
                    f"the text can't be read for a decision ({reason}); write it so that every "
                    "command stands plainly in it",
                    observed=observed,
                    matched=MatchedRule("on_unreadable", name, effect, reason),
                )
            )


class _Layer:
    """A layer with its rules compiled and sorted by the command names they can match."""

    def __init__(self, source: PolicyLayer) -> None:
        self.source = source
        self._named: dict[str, list[CompiledRule]] = {}
        self._general: list[CompiledRule] = []
        self._outside: list[CompiledRule] = []
        for rule in source.rules:
            compiled = CompiledRule.of(rule)
            if not rule.match.commands:
                self._outside.append(compiled)
            if rule.match.commands and all(is_literal(name) for name in rule.match.commands):
                for base in {posixpath.basename(name) for name in rule.match.commands}:
                    self._named.setdefault(base, []).append(compiled)
            else:
                self._general.append(compiled)

    @property
    def passes_doubt(self) -> bool:
        """Whether what may run nothing is no matter for `on_dynamic`.

        Not for a list of what is allowed: there what can't be told is not on the list.
        """
        open_by_default = self.source.default in (None, Effect.ALLOW)
        return self.source.on_doubt is OnDoubt.PASSES and open_by_default

    def any_for(self, subject: Subject) -> bool:
        """Whether a rule without `commands` is there at all."""
        return bool(self._outside) and subject.name is None

    def command(self, subject: Subject, *, deferring: bool) -> list[Finding]:
        """What this layer says about a command: its strictest rules, or its default.

        A rule that only may match does not stand in the default's place: the stricter one counts.
        """
        findings = []
        certain = False
        deferrable = deferring and _will_be_executed(subject)
        for compiled in self._candidates(subject):
            hold = compiled.holds(subject)
            if hold is Hold.NO:
                continue
            later = hold is Hold.POSSIBLY and deferrable
            if hold is Hold.POSSIBLY and not later and self._passes(compiled):
                continue
            certain = certain or hold is Hold.SURELY
            findings.append(self._matched(compiled, subject, hold, deferred=later))
        findings.sort(key=lambda finding: finding.matched.id if finding.matched else "")
        if not certain:
            findings += self._default(subject)
        if not any(finding.speaks for finding in findings):
            return findings
        strictest = max(STRICTNESS[f.effect] for f in findings if f.speaks)
        # Rules of lesser effect did match, but it is the strictest that speak for the layer.
        return [f for f in findings if f.deferred or STRICTNESS[f.effect] == strictest]

    def network(self, subject: Subject, action: Connect | Request | Tool) -> list[Finding]:
        """What this layer says about a connection, a request or a tool."""
        findings = []
        for compiled in self._outside:
            match = compiled.rule.match
            if isinstance(action, Tool) or not match.hosts or _more_than_hosts(match, action):
                continue
            hold = compiled.holds(subject)
            if hold is Hold.SURELY or (hold is Hold.POSSIBLY and not self._passes(compiled)):
                findings.append(self._matched(compiled, subject, hold, deferred=False))
        return findings or self._default(subject)

    def _passes(self, compiled: CompiledRule) -> bool:
        return (compiled.rule.on_doubt or self.source.on_doubt) is OnDoubt.PASSES

    def _candidates(self, subject: Subject) -> Iterable[CompiledRule]:
        if subject.name is None:
            return self._outside
        if subject.name.dynamic:
            return self._general
        base = posixpath.basename(subject.name.text)
        return (*self._named.get(base, ()), *self._general)

    def _default(self, subject: Subject) -> list[Finding]:
        effect = self.source.default
        dynamic = subject.name is not None and subject.name.dynamic
        if effect is None or not subject.defaulted or dynamic:
            return []
        if effect is Effect.ALLOW:
            reason = f"'{self.source.name}' allows by default and no rule stands against it"
            return [Finding(effect, reason, self.source.observe)]
        told = f"no rule of '{self.source.name}' allows {place(subject)}, and its default "
        told += f"{'denies' if effect is Effect.DENY else 'asks about'} what no rule allows"
        matched = MatchedRule("default", self.source.name, effect, "", subject.shown)
        return [Finding(effect, told, self.source.observe, matched)]

    def _matched(
        self, compiled: CompiledRule, subject: Subject, hold: Hold, *, deferred: bool
    ) -> Finding:
        rule = compiled.rule
        verb = _VERBS[rule.effect]
        doubt = " (a word that only running it would tell could make it match)"
        reason = (
            f"rule '{rule.id}' of '{self.source.name}' {verb} {place(subject)}"
            f"{doubt if hold is Hold.POSSIBLY else ''}"
            f"{': ' + rule.message if rule.message else ''}"
        )
        matched = MatchedRule(rule.id, self.source.name, rule.effect, rule.message, subject.shown)
        return Finding(rule.effect, reason, self.source.observe, matched, deferred)


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
    """JSON values of a dataclass; what is not UTF-8 is written out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _dynamic_finding(layer: _Layer | None, subject: Subject) -> Finding:
    said = layer.source.on_dynamic if layer is not None else OnUnknown.DENY
    effect = Effect.ASK if said is OnUnknown.ASK else Effect.DENY
    name = layer.source.name if layer is not None else "default"
    by = f"'{name}' {_VERBS[effect]} that" if layer is not None else "no layer says what it gets"
    return Finding(
        effect,
        f"what {place(subject)} runs can't be told before it runs, and {by}; "
        "write the command's name literally",
        observed=layer is not None and layer.source.observe,
        matched=MatchedRule("on_dynamic", name, effect, "", subject.shown),
    )


def _will_be_executed(subject: Subject) -> bool:
    """Whether an `execve` will show the words of which something is unknown now."""
    if subject.name is None or any(path.redirect and path.dynamic for path in subject.paths):
        return False
    return subject.name.dynamic or posixpath.basename(subject.name.text) not in _BUILTINS


def _more_than_hosts(match: Match, action: Connect | Request | Tool) -> bool:
    """Whether a rule states what a connection or a request does not have."""
    stated = (
        match.commands,
        match.args,
        match.any_args,
        match.writes,
        match.environment,
        match.via,
    )
    return any(stated) or (bool(match.paths) and not isinstance(action, Request))


def _network_subject(action: Connect | Request | Tool) -> Subject:
    if isinstance(action, Tool):
        return Subject(None, shown=f"tool {action.name} of {action.server}")
    host = clean_host(action.host)
    if isinstance(action, Connect):
        return Subject(None, hosts=(Word(host),), shown=f"{action.protocol} {host}:{action.port}")
    return _request_subject(action, host)


def _request_subject(action: Request, host: str) -> Subject:
    path = NamedPath((posixpath.normpath("/" + action.path.partition("?")[0].lstrip("/")),))
    shown = f"{action.method} {host}:{action.port}{action.path}"
    return Subject(None, paths=(path,), hosts=(Word(host),), shown=shown)
