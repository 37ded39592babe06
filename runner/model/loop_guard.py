"""The loop guard: what is refused, or fails the same way, again and again has to pause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Trigger(StrEnum):
    """For what a command has to pause."""

    REFUSED = "refused"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class LoopGuard:
    """What one layer states; None: it says nothing about that."""

    refused: int | None = None
    """So many refusals of a command in a row, within the window, and it has to pause."""
    failing: int | None = None
    """So many runs of it in a row that fail the same way."""
    within_s: float | None = None
    pause_s: float | None = None
    """The first pause; each further one is twice as long."""
    longest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Guarding:
    """What holds of all layers: the strictest of each."""

    layer: str
    """The outermost that states a loop guard."""
    refused: int | None
    """None: it is not counted."""
    failing: int | None
    within_s: float
    pause_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class Looped:
    """How one command of one principal stands."""

    sign: str
    """What its last tries came to: `refused`, or `failing:` and a keyed digest of how."""
    times_s: tuple[float, ...]
    """When, seconds since the epoch, oldest first."""
    pauses: int = 0
    """How many there were in a row."""
    began_s: float = 0.0
    """The last pause, in seconds since the epoch."""
    until_s: float = 0.0

    @property
    def count(self) -> int:
        """How often in a row it came to that; what was tried in a pause does not count."""
        return len(self.times_s) + max(0, self.pauses - 1)

    @property
    def trigger(self) -> Trigger:
        """What the sign is of."""
        return Trigger(self.sign.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Guarded:
    """A row of the store's."""

    id: str
    """A keyed digest over whose it is and which command: it tells neither without the key."""
    whose: str
    """The agent, or the one that started it."""
    uid: int
    looped: Looped


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause that is in force for a command that is asked for."""

    layer: str
    trigger: Trigger
    count: int
    """How often it was refused, or failed, in a row."""
    until_s: float
