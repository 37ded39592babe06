"""`loop_guard:` of a policy file or a profile: pauses for what is tried again and again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runner.model.loop_guard import LoopGuard
from runner.schema.base import Strict
from runner.schema.matches import BoundedDuration

MOST = 100
"""Tries of a command whose times are kept."""
Often = Annotated[int, Field(strict=True, ge=2, le=MOST)]


class LoopGuardFile(Strict):
    """Of each value the strictest of all layers holds: smaller counts, longer times."""

    refused: Often | None = Field(
        default=None, description="A command that is refused so often in a row has to pause."
    )
    failing: Often | None = Field(
        default=None,
        description="A command that fails the same way, with the same output, so often in a row.",
    )
    within: BoundedDuration | None = Field(
        default=None, description="Those are counted that are no older; 10m if nobody says."
    )
    pause: BoundedDuration | None = Field(
        default=None, description="The first pause, each further one is twice as long; else 10s."
    )
    longest: BoundedDuration | None = Field(
        default=None, description="No pause is longer; 1h if nobody says."
    )

    def to_model(self) -> LoopGuard:
        """As the supervisor takes it."""
        return LoopGuard(self.refused, self.failing, self.within, self.pause, self.longest)
