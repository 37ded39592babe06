"""`grants:` of a policy file: who may use which profiles."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runner.model.grant import Grant
from runner.schema.base import Strict, Words

Uid = Annotated[int, Field(strict=True, ge=0, le=2**32 - 2)]


class GrantFile(Strict):
    """One grant; a principal that matches all that is stated may use its profiles."""

    profiles: Words = Field(description="Globs over names of profiles, or paths of their files.")
    agents: Words | None = Field(default=None, description="Globs over names of agents.")
    tenants: Words | None = Field(default=None, description="Globs over tenants.")
    uids: Annotated[tuple[Uid, ...], Field(min_length=1)] | None = Field(
        default=None, description="Users, by number."
    )
    labels: dict[str, str] = Field(default={}, description="Labels, each with a glob.")

    def to_model(self) -> Grant:
        """As the supervisor takes it."""
        return Grant(
            profiles=self.profiles,
            agents=self.agents or (),
            tenants=self.tenants or (),
            uids=self.uids or (),
            labels=tuple(sorted(self.labels.items())),
        )
