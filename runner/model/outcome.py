"""What came of a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.errors import (
    EXIT_CANCELLED,
    EXIT_DENIED,
    EXIT_KILLED,
    EXIT_LIMIT,
    EXIT_RUNNER,
)
from runner.model.budget import Spent
from runner.model.decision import Decision
from runner.model.kill import Kill
from runner.model.limits import LimitName
from runner.model.profile import WorkspaceMode
from runner.model.usage import Usage


class Termination(StrEnum):
    """How it ended; closed list."""

    EXITED = "exited"
    SIGNALED = "signaled"
    LIMIT = "limit"
    DENIED = "denied"
    CANCELLED = "cancelled"
    RUNNER_FAILED = "runner_failed"
    UNKNOWN = "unknown"
    """The supervisor died; recovery closed the record."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, by a code from `runner.errors` (or `program_not_found`) and a sentence."""

    code: str
    message: str


class ChangeKind(StrEnum):
    """What happened to a path of the workspace."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Original:
    """What stood at a path before the run, as the run saw it."""

    type: str
    """As `Change.type`."""
    sha256: str | None = None
    """Hex, of a regular file's content or a link's target. None for the rest, and where it can't be
    told: then nobody can say whether the path changed meanwhile."""
    executable: bool = False
    """Of a file: whether its owner may execute it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One path that the run changed."""

    path: str
    """Relative to the workspace; bytes that are not UTF-8 as surrogate escapes."""
    kind: ChangeKind
    type: str
    """`file`, `directory`, `symlink`, `fifo`, `socket`, `device`; what it is now, or was."""
    sha256: str | None = None
    """Hex, of a regular file's content or a link's target; None for the rest, for deletions, and
    for a file that is mostly a hole."""
    size_bytes: int | None = None
    executable: bool = False
    """Of a file: whether its owner may execute it now. No other bit of its mode is kept."""
    original: Original | None = None
    """Of what was modified or deleted."""
    withheld: str | None = None
    """Of a file or a link: why its content was not kept, in a clause; None: it was."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What a backend says of a run that it held."""

    termination: Termination
    usage: Usage
    limit: LimitName | None = None
    exit_code: int | None = None
    signal: int | None = None
    failure: Failure | None = None
    changes: tuple[Change, ...] = ()
    changes_truncated: bool = False
    workspace_identity: tuple[int, int] | None = None
    """Device and inode of the workspace folder that the run was given; None: it had none."""
    kill: Kill | None = None
    """With `CANCELLED`: the operator's kill that ended it; None: whoever started it did."""


@dataclass(frozen=True, slots=True)
class Output:
    """One stream: how much came, and as much of it as was kept."""

    bytes_total: int = 0
    sha256: str | None = None
    """Hex digest of all bytes that were passed on; None when nothing ran."""
    truncated: bool = False
    """Whether `data` is less than what came."""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class AuditRange:
    """Where the run stands in the log."""

    first_seq: int
    last_seq: int
    head: str
    """Hash of the last event, hex."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole result of one run."""

    run_id: str
    decision: Decision
    termination: Termination
    usage: Usage
    backend: str
    profile: str
    audit: AuditRange
    limit: LimitName | None = None
    exit_code: int | None = None
    """The program's own, when it exited by itself."""
    signal: int | None = None
    failure: Failure | None = None
    protections: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    """Protections or measures that were weaker than the full tier, by name."""
    stdout: Output = Output()
    stderr: Output = Output()
    workspace: WorkspaceMode | None = None
    """What the run saw of its folder; None when nothing was built."""
    changes: tuple[Change, ...] = ()
    """Empty with `bind`: what such a run changed is in the folder, and was not looked at."""
    changes_truncated: bool = False
    left: tuple[str, ...] = ()
    """What could not be removed after it: why, and what to do; the next sweep tries again."""
    kill: Kill | None = None
    """With `cancelled`: the kill that ended it; None: who started it cancelled it."""
    budget: Spent | None = None
    """With the limit `budget`: which one ended it, and when something of it is free again."""

    @property
    def status(self) -> int:
        """The exit code of the command line for this outcome (see docs/reference.md)."""
        match self.termination:
            case Termination.EXITED:
                return self.exit_code if self.exit_code is not None else EXIT_RUNNER
            case Termination.SIGNALED:
                return 128 + (self.signal or 0)
            case Termination.LIMIT:
                return EXIT_LIMIT
            case Termination.DENIED:
                return EXIT_DENIED
            case Termination.CANCELLED:
                return EXIT_CANCELLED if self.kill is None else EXIT_KILLED
            case Termination.RUNNER_FAILED | Termination.UNKNOWN:
                return EXIT_RUNNER

    @property
    def ok(self) -> bool:
        """Whether the program ran and exited with 0."""
        return self.termination is Termination.EXITED and self.exit_code == 0
