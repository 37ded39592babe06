"""What a clean-up did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed, and what is still there; a line for people for each thing."""

    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """What could not be removed, why, and what to do. The next sweep tries again."""

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.removed or self.left)

    def __add__(self, other: Swept) -> Swept:
        """Both."""
        return Swept(self.removed + other.removed, self.left + other.left)
