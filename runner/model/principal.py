"""Who wants a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """The agent that asks, and on whose account.

    `agent` is the name it gave itself: under the same user it can choose another, so `uid` (the
    kernel's word) is always recorded and charged beside it.
    """

    uid: int
    agent: str = "default"
    parent: str | None = None
    """The agent that started this one; it is charged too."""
    session: str | None = None
    tenant: str | None = None
