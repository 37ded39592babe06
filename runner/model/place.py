"""A place in a file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands, for people and editors: `FILE:LINE`."""

    source: str
    line: int
    """Counted from 1."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"
