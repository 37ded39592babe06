"""How much of other languages one request may hold before it counts as unreadable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """What is left for the texts of one request that are not shell."""

    texts: int = 2048
    characters: int = 4 << 20
    findings: int = 20_000
    seconds: float = 20.0
    """Wall time of the children that read what could crash or stall a reader."""

    def take(self, text: str) -> bool:
        """Whether one more text may be read."""
        self.texts -= 1
        self.characters -= len(text)
        return self.texts >= 0 and self.seconds > 0 and self.characters >= 0 and self.findings >= 0
