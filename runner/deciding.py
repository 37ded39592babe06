"""Everything that is held against a request before it runs, as one decision.

Who asks, under which profile and how often before (`granting.py`), what the request sets (the
profile's `environment.deny`), what it would do (the rules), and what is run in its place where a
rule rewrites it. Pure, but for the facts that its caller looks up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from runner import charging, granting, killing, looping
from runner.analysis import read
from runner.analysis.wrappers.table import Table, load
from runner.audit.canonical import canonical
from runner.compile import HOME, denied_environment
from runner.model.action import Exec, Facts
from runner.model.budget import Stated
from runner.model.decision import Decision, Effect, MatchedRule
from runner.model.grant import CallBudget, Grant
from runner.model.intent import Access, Intent, PathUse, SimpleCommand, Word
from runner.model.loop_guard import Guarding
from runner.model.profile import Profile, WorkspaceMode
from runner.model.request import Argv, ExecRequest, Hold, Program
from runner.model.rule import CountOf
from runner.policy import following
from runner.ports import DecisionPoint

EMPTY = "a session begins with no program; each command in it is decided when it comes"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a request is held against: the tightened profile and what all layers say."""

    profile: Profile
    decisions: DecisionPoint
    grants: tuple[tuple[str, tuple[Grant, ...]], ...] = ()
    """Of each layer that states some: its name, and who may use which profiles how much."""
    wrappers: Table = field(default_factory=load)
    """The commands that run others, as requests are read by it."""
    budgets: Stated = ()
    """What all layers let be used within which time, the profile's own last."""
    loop_guard: Guarding | None = None
    """Pauses for what is tried again and again, the strictest of all layers."""

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """Whose earlier runs, within how many seconds, a decision needs counted (`Facts.runs`)."""
        return self.decisions.counted | granting.counted(self.grants)

    @property
    def call_budgets(self) -> frozenset[CallBudget]:
        """All that its grants state."""
        return granting.budgets(self.grants)

    @property
    def digest(self) -> str:
        """`sha256:` and hex over the rules, and over whatever else is stated beside them."""
        beside = (self.grants, self.wrappers.added, self.budgets, self.loop_guard)
        if not any(beside):
            return self.decisions.digest
        stated = [[layer, [asdict(grant) for grant in grants]] for layer, grants in self.grants]
        whole: list[object] = [self.decisions.digest, stated]
        if self.wrappers.added:
            whole.append(self.wrappers.digest)
        if self.budgets:
            whole.append({"budgets": charging.stated_data(self.budgets)})
        if self.loop_guard is not None:
            whole.append({"loop_guard": looping.stated_data(self.loop_guard)})
        return f"sha256:{hashlib.sha256(canonical(whole)).hexdigest()}"


FindLinks = Callable[[str, Sequence[str]], Mapping[str, str]]
"""Looks up the links of a workspace that paths go through (`runner.linked.find`)."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A request, read and decided."""

    request: ExecRequest
    """What would run: with another program than was asked for, where a rule rewrote it."""
    intent: Intent
    """What reading told of what was asked for."""
    decision: Decision
    facts: Facts = Facts()
    """What it depended on beside the request, with the links of what was asked for."""

    @property
    def permitted(self) -> bool:
        """Whether `request` may run."""
        return self.decision.permits or self.decision.rewrite is not None


class Asked:
    """A request, read once, to be decided as often as the facts change.

    Reading takes time, and may start a parser; deciding takes none. Links are found as it is read.
    """

    __slots__ = ("_find_links", "_policy", "_read", "_request")

    def __init__(
        self, request: ExecRequest, policy: Policy, find_links: FindLinks | None = None
    ) -> None:
        """Read it. `find_links`: None: the facts tell of all links that there are."""
        self._request = request
        self._policy = policy
        self._find_links = find_links
        self._read: dict[Program, tuple[Intent, Mapping[str, str]]] = {}
        self.read(request.program)

    def read(self, program: Program) -> None:
        """Read what a rule puts in the place of what was asked for (see `attempt`)."""
        request = replace(self._request, program=program)
        intent = read(program, self._policy.wrappers)
        self._read[program] = intent, _links(request, intent, self._policy, self._find_links)

    def decide(self, facts: Facts) -> Decided:
        """Decide, and read what has to be read for that."""
        decision, intent, known = self._first(facts)
        if decision.rewrite is None:
            return Decided(self._request, intent, decision, known)
        program = Argv(decision.rewrite)
        if program not in self._read:
            self.read(program)
        return self._rewritten(program, decision, facts)

    def attempt(self, facts: Facts) -> Decided | Program:
        """Decide with what was read; or what has to be read (`read`) before it can be decided.

        The latter once for each program that rules put in the place of this one.
        """
        decision, intent, known = self._first(facts)
        if decision.rewrite is None:
            return Decided(self._request, intent, decision, known)
        program = Argv(decision.rewrite)
        return self._rewritten(program, decision, facts) if program in self._read else program

    def _first(self, facts: Facts) -> tuple[Decision, Intent, Facts]:
        """About what was asked for; with a `rewrite` only where that is to run instead."""
        intent, known = self._known(self._request.program, facts)
        decision = _asked(self._request, intent, self._policy, known)
        if decision.effect is not Effect.REWRITE or not decision.enforced:
            decision = replace(decision, rewrite=None)
        return decision, intent, known

    def _rewritten(self, program: Argv, decision: Decision, facts: Facts) -> Decided:
        """`decision`: about what was asked for; `program`, which was read, would run instead."""
        instead = replace(self._request, program=program)
        other, other_facts = self._known(program, facts)
        second = _asked(instead, other, self._policy, other_facts)
        intent, known = self._known(self._request.program, facts)
        observed = (*decision.observed, *second.observed)
        obligations = tuple(sorted({*decision.obligations, *second.obligations}))
        if second.permits:
            decision = replace(decision, obligations=obligations, observed=observed)
            return Decided(instead, intent, decision, known)
        # A rewrite of a rewrite is not followed: two rules that undo each other would have no end.
        effect = Effect.DENY if second.effect is Effect.REWRITE else second.effect
        combined = replace(
            second,
            effect=effect,
            reason=f"{decision.reason}; but of '{' '.join(program.words)}': {second.reason}",
            rules=(*second.rules, *decision.rules),
            obligations=obligations,
            observed=observed,
            rewrite=None,
        )
        # Where it asks, it is about what would run instead.
        return Decided(instead, intent, combined, known)

    def _known(self, program: Program, facts: Facts) -> tuple[Intent, Facts]:
        intent, links = self._read[program]
        return intent, replace(facts, links=links) if links else facts


def decide(
    request: ExecRequest, policy: Policy, facts: Facts, find_links: FindLinks | None = None
) -> Decided:
    """Read the request and decide about it; what a rule puts in its place is decided as well.

    `find_links`: asked once it is read; None: `facts` tells of all that there are.
    """
    return Asked(request, policy, find_links).decide(facts)


def _links(
    request: ExecRequest, intent: Intent, policy: Policy, find_links: FindLinks | None
) -> Mapping[str, str]:
    if find_links is None or not policy.decisions.follows_links:
        return {}
    action = action_of(request, intent, policy.profile, Facts())
    if policy.profile.workspace is WorkspaceMode.NONE or action.workspace is None:
        return {}
    paths = following.paths(action)
    return find_links(action.workspace, paths) if paths else {}


def decide_path(
    request: ExecRequest, path: str, access: Access, policy: Policy, facts: Facts
) -> Decision:
    """Whether a path (absolute) may be written, or read, as if the request were `> PATH` and no
    more, or `< PATH`.

    No run begins by that, so no budget is held against it.
    """
    use = PathUse(Word(path), access)
    intent = Intent("sh", (SimpleCommand((), redirects=(use,)),))
    return _asked(request, intent, policy, facts, begins=False)


def action_of(request: ExecRequest, intent: Intent, profile: Profile, facts: Facts) -> Exec:
    """What the decision point is asked about a request."""
    return Exec(
        principal=request.principal,
        intent=intent,
        workspace=HOME if profile.workspace is WorkspaceMode.NONE else request.directory,
        environment=tuple(name for name, _ in request.environment),
        labels=request.labels,
        profile=profile.name,
        facts=facts,
    )


def _asked(
    request: ExecRequest, intent: Intent, policy: Policy, facts: Facts, *, begins: bool = True
) -> Decision:
    """`begins`: whether it is about a run that would begin, which a budget is held against."""
    profile = policy.profile
    if isinstance(request.program, Hold):
        decision = Decision(Effect.ALLOW, EMPTY, policy.digest)
    else:
        decision = policy.decisions.decide(action_of(request, intent, profile, facts))
    # Whatever the rules say, and whether they are observed or enforced.
    refusals = [
        *(killing.refusals(facts.killed) if begins else ()),
        *granting.not_granted(request, profile, policy.grants),
        *(granting.used_up(request, profile, policy.grants, facts) if begins else ()),
        *(charging.refusals(facts.spent) if begins else ()),
        *_environment(request, profile),
        *(looping.refusals(facts.paused) if begins else ()),
    ]
    if not refusals:
        return replace(decision, policy_digest=policy.digest)
    return Decision(
        Effect.DENY,
        refusals[0].message,
        policy.digest,
        (*refusals, *decision.rules),
        decision.obligations,
        observed=decision.observed,
    )


def _environment(request: ExecRequest, profile: Profile) -> list[MatchedRule]:
    denied = denied_environment(request, profile)
    if not denied:
        return []
    # Variables that make programs load code are the profile's to refuse.
    names = ", ".join(denied)
    reason = f"the profile '{profile.name}' does not let a request set {names}; leave it out"
    layer = f"profile:{profile.name}"
    return [MatchedRule("environment.deny", layer, Effect.DENY, reason, names)]
