"""What is in a session's sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FileDeed(StrEnum):
    """What can be done with a session's files; closed list."""

    READ = "read"
    WRITE = "write"
    LIST = "list"
    STAT = "stat"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class FileTask:
    """One of them. Done inside of the sandbox, in its view of the files."""

    do: FileDeed
    path: str
    """Absolute, or relative to the workspace."""
    offset: int = 0
    """`READ`: the first byte that is wanted."""
    length: int | None = None
    """`READ`: how many; None: all."""
    size_bytes: int | None = None
    """`WRITE`: how many come; None: whatever comes until the end."""
    executable: bool = False
    """`WRITE`: whether it may be executed."""


@dataclass(frozen=True, slots=True)
class SessionProcess:
    """A process of a session. What it calls itself and was given are its own words."""

    number: int
    """As it is known inside."""
    name: str
    argv: tuple[str, ...]
    cpu_s: float
    memory_bytes: int
    """Resident."""
    started_s: float
    """Seconds since the epoch."""
