"""`grants:` of a policy file: who may use which profiles, and how much of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runner.model.grant import CallBudget, Grant
from runner.schema.base import Strict, Words
from runner.schema.matches import BoundedDuration

Uid = Annotated[int, Field(strict=True, ge=0, le=2**32 - 2)]


class CallBudgetFile(Strict):
    """How much each agent may use of what is granted to it.

    Only runs are counted so far; wall time, tokens and money are to follow as keys beside `calls`.
    """

    calls: Annotated[int, Field(strict=True, ge=1)] = Field(
        description="So many runs may begin within the time; denied ones count too."
    )
    per: BoundedDuration = Field(description="The time, a window that moves on: 1h.")

    def to_model(self) -> CallBudget:
        """As the supervisor takes it."""
        return CallBudget(self.calls, self.per)


class GrantFile(Strict):
    """One grant; a principal that matches all that is stated may use its profiles."""

    profiles: Words = Field(description="Globs over names of profiles, or paths of their files.")
    agents: Words | None = Field(default=None, description="Globs over names of agents.")
    tenants: Words | None = Field(default=None, description="Globs over tenants.")
    uids: Annotated[tuple[Uid, ...], Field(min_length=1)] | None = Field(
        default=None, description="Users, by number."
    )
    labels: dict[str, str] = Field(default={}, description="Labels, each with a glob.")
    budget: CallBudgetFile | None = Field(
        default=None, description="What each agent may use; its parent is charged with it."
    )

    def to_model(self) -> Grant:
        """As the supervisor takes it."""
        return Grant(
            profiles=self.profiles,
            agents=self.agents or (),
            tenants=self.tenants or (),
            uids=self.uids or (),
            labels=tuple(sorted(self.labels.items())),
            budget=None if self.budget is None else self.budget.to_model(),
        )
