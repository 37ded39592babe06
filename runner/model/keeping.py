"""What is kept of runs beside the log, and how much of it may be."""

from __future__ import annotations

from dataclasses import dataclass

from runner.model.limits import Unlimited


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one run."""

    run_id: str
    since_s: float
    """When it was last written to, seconds since the epoch."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KeepBounds:
    """How long, and how much of all runs together."""

    days: int | Unlimited
    total_bytes: int
