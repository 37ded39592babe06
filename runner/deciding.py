"""Everything that is held against a request before it runs, as one decision.

Who asks and under which profile (grants), what the request sets (the profile's `environment.deny`),
what it would do (the rules), and what is run in its place where a rule rewrites it. Pure, but for
the facts that its caller looks up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase

from runner.analysis import read
from runner.analysis.wrappers.table import Table, load
from runner.audit.canonical import canonical
from runner.compile import HOME, denied_environment, is_named
from runner.model.action import Exec, Facts
from runner.model.decision import Decision, Effect, MatchedRule
from runner.model.grant import Grant
from runner.model.intent import Access, Intent, PathUse, SimpleCommand, Word
from runner.model.principal import Principal
from runner.model.profile import Profile, WorkspaceMode
from runner.model.request import Argv, ExecRequest
from runner.policy import following
from runner.ports import DecisionPoint


@dataclass(frozen=True, slots=True)
class Policy:
    """What a request is held against: the tightened profile and what all layers say."""

    profile: Profile
    decisions: DecisionPoint
    grants: tuple[tuple[str, tuple[Grant, ...]], ...] = ()
    """Of each layer that states some: its name, and who may use which profiles."""
    wrappers: Table = field(default_factory=load)
    """The commands that run others, as requests are read by it."""

    @property
    def digest(self) -> str:
        """`sha256:` and hex over the rules, and over grants and added wrappers if there are any."""
        if not self.grants and not self.wrappers.added:
            return self.decisions.digest
        stated = [[layer, [asdict(grant) for grant in grants]] for layer, grants in self.grants]
        whole = [self.decisions.digest, stated]
        if self.wrappers.added:
            whole.append(self.wrappers.digest)
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


def decide(
    request: ExecRequest, policy: Policy, facts: Facts, find_links: FindLinks | None = None
) -> Decided:
    """Read the request and decide about it; what a rule puts in its place is decided as well.

    `find_links`: asked once it is read; None: `facts` tells of all that there are.
    """
    intent = read(request.program, policy.wrappers)
    given, facts = facts, _with_links(request, intent, policy, facts, find_links)
    decision = _asked(request, intent, policy, facts)
    if decision.effect is not Effect.REWRITE or not decision.enforced or decision.rewrite is None:
        return Decided(request, intent, replace(decision, rewrite=None), facts)
    instead = replace(request, program=Argv(decision.rewrite))
    other = read(instead.program, policy.wrappers)
    known = _with_links(instead, other, policy, given, find_links)
    second = _asked(instead, other, policy, known)
    if second.permits:
        obligations = tuple(sorted({*decision.obligations, *second.obligations}))
        observed = (*decision.observed, *second.observed)
        return Decided(
            instead, intent, replace(decision, obligations=obligations, observed=observed), facts
        )
    # A rewrite of a rewrite is not followed: two rules that undo each other would have no end.
    effect = Effect.DENY if second.effect is Effect.REWRITE else second.effect
    words = " ".join(decision.rewrite)
    reason = f"{decision.reason}; but of '{words}': {second.reason}"
    rules = (*second.rules, *decision.rules)
    combined = replace(
        second,
        effect=effect,
        reason=reason,
        rules=rules,
        observed=(*decision.observed, *second.observed),
        rewrite=None,
    )
    return Decided(request, intent, combined, facts)


def _with_links(
    request: ExecRequest,
    intent: Intent,
    policy: Policy,
    facts: Facts,
    find_links: FindLinks | None,
) -> Facts:
    if find_links is None or not policy.decisions.follows_links:
        return facts
    action = action_of(request, intent, policy.profile, facts)
    if policy.profile.workspace is WorkspaceMode.NONE or action.workspace is None:
        return facts
    paths = following.paths(action)
    links = find_links(action.workspace, paths) if paths else {}
    return replace(facts, links=links) if links else facts


def decide_write(request: ExecRequest, path: str, policy: Policy, facts: Facts) -> Decision:
    """Whether a path (absolute) may be written, as if the request were `> PATH` and no more."""
    use = PathUse(Word(path), Access.WRITE)
    intent = Intent("sh", (SimpleCommand((), redirects=(use,)),))
    return _asked(request, intent, policy, facts)


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


def _asked(request: ExecRequest, intent: Intent, policy: Policy, facts: Facts) -> Decision:
    profile = policy.profile
    decision = policy.decisions.decide(action_of(request, intent, profile, facts))
    # Whatever the rules say, and whether they are observed or enforced.
    refusals = [*_not_granted(request, policy), *_environment(request, profile)]
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


def _not_granted(request: ExecRequest, policy: Policy) -> list[MatchedRule]:
    """A refusal for each layer and each of agent and parent that no grant covers."""
    who = request.principal
    labels = dict(request.labels)
    agents = [who.agent] if who.parent in (None, who.agent) else [who.agent, who.parent]
    refused = []
    for layer, grants in policy.grants:
        for agent in agents:
            held = [grant for grant in grants if _covers(grant, agent or "", who, labels)]
            if any(is_named(policy.profile, grant.profiles) for grant in held):
                continue
            usable = sorted({pattern for grant in held for pattern in grant.profiles})
            role = "agent" if agent == who.agent else "parent"
            reason = (
                f"'{layer}' grants the {role} '{agent}' no use of the profile "
                f"'{policy.profile.name}'; "
                + (f"use one of: {', '.join(usable)}" if usable else "ask who keeps that policy")
            )
            refused.append(MatchedRule("grants", layer, Effect.DENY, reason, agent or ""))
    return refused


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _covers(grant: Grant, agent: str, who: Principal, labels: Mapping[str, str]) -> bool:
    return (
        (not grant.agents or _matches(agent, grant.agents))
        and (not grant.tenants or (who.tenant is not None and _matches(who.tenant, grant.tenants)))
        and (not grant.uids or who.uid in grant.uids)
        and all(name in labels and fnmatchcase(labels[name], p) for name, p in grant.labels)
    )
