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
NO_TENANT = ""
"""Among `tenants`: what belongs to no tenant."""

NAME_CHARACTERS = 256
"""The longest name of an agent or a tenant, as requests have it."""
MOST_GLOBS = 64
"""Of one kind: more would be a list to keep elsewhere, and each request is held against all."""

_MAGIC = frozenset("*?[]")


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who proved to be who they are. Globs are those of `fnmatch`, case counts.

    A glob fits a whole name. An empty list fits nothing. Letters that look alike and are not the
    same characters are not equal, so that what can't be told apart is out of reach.
    """

    name: str
    """As the log has it: `key:ID`, `uid:1000`, `oidc:ISSUER#SUBJECT`."""
    verbs: frozenset[Verb]
    agent: str | None = None
    """The agent that it is: it runs under no other name. None: it speaks for all of `agents`."""
    agents: tuple[str, ...] = ()
    """Globs over names of agents that it may run as and look at; an agent has none."""
    tenants: tuple[str, ...] = ()
    """Globs over tenants; of what belongs to none, `*` and NO_TENANT. An agent's are no globs."""
    profiles: tuple[str, ...] = ()
    """Globs over names of profiles that its runs may use; a file is never one."""

    def __post_init__(self) -> None:
        """ValueError: an agent that would govern, reach a second tenant or have another name."""
        for what, globs in (
            ("agents", self.agents), ("tenants", self.tenants), ("profiles", self.profiles)
        ):  # fmt: skip
            if len(globs) > MOST_GLOBS:
                raise ValueError(f"{len(globs)} {what} are more than {MOST_GLOBS}")
            for glob in globs:
                if not (is_name(glob) or (what == "tenants" and glob == NO_TENANT)):
                    raise ValueError(f"{glob!r} of {what} is no name and no glob over names")
        if self.agent is None:
            return
        if not is_name(self.agent):
            raise ValueError(f"{self.agent!r} is not the name of an agent")
        if beyond := self.verbs - AGENT_VERBS:
            names = ", ".join(sorted(beyond))
            raise ValueError(f"the agent '{self.agent}' can't be given the verb {names}")
        if self.agents:
            raise ValueError(f"the agent '{self.agent}' runs under its own name: leave agents out")
        if len(self.tenants) > 1 or any(map(_MAGIC.intersection, self.tenants)):
            raise ValueError(
                f"the agent '{self.agent}' belongs to one tenant, written out, or none"
            )

    def may(self, verb: Verb) -> bool:
        """Whether it has the verb, for whatever is in its reach."""
        return verb in self.verbs

    def reaches(self, agent: str, tenant: str | None) -> bool:
        """Whether what belongs to this agent and tenant is any business of its."""
        if self.agent is not None:
            own = agent == self.agent
        else:
            own = is_name(agent) and _matches(agent, self.agents)
        if tenant is None:
            return own and (NO_TENANT in self.tenants or "*" in self.tenants)
        return own and is_name(tenant) and _matches(tenant, self.tenants)

    def may_use(self, profile: str) -> bool:
        """Whether its runs may be under this profile, given by name."""
        return is_profile_name(profile) and _matches(profile, self.profiles)


def is_name(text: str) -> bool:
    """Whether it can be the name of an agent or a tenant, as requests have it."""
    return 0 < len(text) <= NAME_CHARACTERS and text.isprintable()


def is_literal(text: str) -> bool:
    """Whether it is such a name, and as a glob fits itself alone."""
    return is_name(text) and not _MAGIC.intersection(text)


def is_profile_name(text: str) -> bool:
    """Whether it names a profile, and not a file (see `schema.profiles.load_profile`)."""
    return is_name(text) and "/" not in text and not text.endswith((".yaml", ".yml"))


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
