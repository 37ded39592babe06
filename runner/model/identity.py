"""Who calls the exec API, and what they may do there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Verb(StrEnum):
    """What a caller may do; closed list."""

    RUN = "run"
    """Check, begin, feed and cancel runs."""
    READ = "read"
    """Look at runs, their output and changes, at budgets and at the log."""
    APPLY = "apply"
    """Write what a run changed into its workspace, or throw it away."""
    APPROVE = "approve"
    """Answer what a rule asks."""
    BUDGET = "budget"
    """Change budgets, or begin them anew."""
    KILL = "kill"
    """End runs of others, and keep agents from beginning more."""
    ADMIN = "admin"
    """Make and revoke keys."""


AGENT_VERBS = frozenset({Verb.RUN, Verb.READ, Verb.APPLY})
"""All that an agent can ever be given: it does not govern itself."""

ANY = ("*",)


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who proved to be who they are. Globs are those of `fnmatch`, case counts."""

    name: str
    """As the log has it: `key:ID`, `uid:1000`, `oidc:ISSUER#SUBJECT`."""
    verbs: frozenset[Verb]
    agent: str | None = None
    """The agent that it is: it runs under no other name. None: it speaks for all of `agents`."""
    agents: tuple[str, ...] = ()
    """Globs over names of agents that it may run as and look at."""
    tenants: tuple[str, ...] = ()
    """Globs over tenants; what belongs to no tenant is within reach of `*` alone."""
    profiles: tuple[str, ...] = ()
    """Globs over names of profiles that its runs may use; a file is never one."""

    def __post_init__(self) -> None:
        """ValueError: an agent with a verb that no agent has."""
        if self.agent is not None and (beyond := self.verbs - AGENT_VERBS):
            names = ", ".join(sorted(beyond))
            raise ValueError(f"the agent '{self.agent}' can't be given the verb {names}")

    def may(self, verb: Verb) -> bool:
        """Whether it has the verb, for whatever is in its reach."""
        return verb in self.verbs

    def reaches(self, agent: str, tenant: str | None) -> bool:
        """Whether what belongs to this agent and tenant is any business of its."""
        if self.agent is not None and agent != self.agent:
            return False
        own = self.agent is not None or _matches(agent, self.agents)
        return own and ("*" in self.tenants if tenant is None else _matches(tenant, self.tenants))

    def may_use(self, profile: str) -> bool:
        """Whether its runs may be under this profile, given by name."""
        return "/" not in profile and _matches(profile, self.profiles)


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
