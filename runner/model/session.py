"""Sessions, and what is in one's sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runner.model.decision import Decision
from runner.model.principal import Principal


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
    """`WRITE`: how many come, and less is put nowhere; None: it is found out before."""
    executable: bool = False
    """`WRITE`: whether it may be executed."""


@dataclass(frozen=True, slots=True)
class FileDone:
    """What came of a `FileTask`."""

    decision: Decision
    told: Mapping[str, object]
    """What there is to tell, by the deed: `bytes`, `type`, `size_bytes`, …; empty if it is not
    done."""
    problem: str | None = None
    """Why it could not be done though it was permitted, e.g. `No such file or directory`."""
    errno: int | None = None
    """The kernel's number of that."""

    @property
    def done(self) -> bool:
        """Whether it was permitted, and done."""
        return self.decision.permits and self.problem is None


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session that goes on."""

    id: str
    """Run id under which its sandbox is recorded."""
    principal: Principal
    profile: str
    backend: str
    directory: str
    began_s: float
    """Seconds since the epoch."""
    ends_s: float
    """When its lifetime is over, at the latest."""
    idle_limit_s: float
    """It ends when no command has run for so long."""
    idle_s: float
    """How long none has now; 0: one runs."""
    runs: tuple[str, ...]
    """Ids of the commands that run now."""
    processes: int
    """How many there are, those included that ended commands left behind."""


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
