"""What the exec API answers beside outcomes: models for its OpenAPI document and for clients."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from runner.model.approval import ApprovalState
from runner.model.kill import KillScope
from runner.model.outcome import Termination
from runner.schema.base import Strict
from runner.schema.outcome_model import (
    BudgetDocument,
    ChangeDocument,
    DecisionDocument,
    ErrorDocument,
    OutcomeDocument,
    UsageDocument,
)


class RunStatus(StrEnum):
    """How far a run is; closed list."""

    QUEUED = "queued"
    """It waits for its turn; nothing is recorded of it yet."""
    RUNNING = "running"
    ENDED = "ended"
    """There is an outcome."""
    REFUSED = "refused"
    """It could not begin; `error` says why. The log has it as a request that was refused."""


class ErrorAnswer(Strict):
    """What every refused request gets."""

    error: ErrorDocument


class RunAccepted(Strict):
    """A run that has not ended yet."""

    id: str
    status: RunStatus


class RunAnswer(Strict):
    """One run as it stands."""

    id: str
    status: RunStatus
    agent: str
    parent: str | None
    session: str | None
    tenant: str | None
    profile: str
    began: str | None = Field(description="RFC 3339, UTC; null: it has not begun.")
    usage: UsageDocument | None = Field(description="So far, or in the end; null: not measured.")
    outcome: OutcomeDocument | None = Field(
        description="Of what has ended; null also when its events went to an archive. Of runs that "
        "the server no longer has in memory it is what the log has: rules without message, secrets "
        "redacted, at most 200 changes."
    )
    error: ErrorDocument | None = Field(description="Why it could not begin, or ended so.")


class RunRow(Strict):
    """A run in a list."""

    id: str
    status: RunStatus
    termination: Termination | None
    agent: str
    parent: str | None
    session: str | None
    tenant: str | None
    profile: str
    began: str | None
    ended: str | None


class RunList(Strict):
    """Runs, the latest first."""

    runs: tuple[RunRow, ...]
    next: str | None = Field(
        description="The cursor of the next page; null: there is none. A page may be short."
    )


class SessionAnswer(Strict):
    """A session that goes on."""

    id: str = Field(description="Also the id of the run that its sandbox is recorded as.")
    agent: str
    parent: str | None
    session: str | None
    tenant: str | None
    uid: int
    profile: str
    backend: str
    directory: str = Field(description="The workspace, on the server's machine.")
    began: str = Field(description="RFC 3339, UTC.")
    ends: str = Field(description="When its lifetime is over, at the latest; RFC 3339, UTC.")
    idle_limit_s: float = Field(description="It ends when no command has run for so long.")
    idle_s: float = Field(description="How long none has now; 0: one runs.")
    runs: tuple[str, ...] = Field(description="Ids of the commands that run now.")
    processes: int = Field(description="Those that ended commands left behind included.")


class SessionList(Strict):
    """Sessions, the latest first."""

    sessions: tuple[SessionAnswer, ...]
    next: str | None = Field(
        description="The cursor of the next page; null: there is none. A page may be short."
    )


class FileRow(Strict):
    """What there is at a path of a session; a link is told as such."""

    name: str
    type: str = Field(description="file, directory, symlink, fifo, socket or device.")
    size_bytes: int
    mode: int = Field(description="Permission bits.")
    modified: str | None = Field(description="RFC 3339, UTC; null: it says what is no time.")
    target: str | None = Field(description="Of a link.")


class FileList(Strict):
    """A folder of a session."""

    path: str
    entries: tuple[FileRow, ...] = Field(description="By name.")
    truncated: bool = Field(description="Whether there are more than are told.")


class WrittenAnswer(Strict):
    """A file that was written."""

    path: str
    size_bytes: int


class ProcessRow(Strict):
    """A process of a session; name and argv are its own words."""

    number: int = Field(description="As it is known inside.")
    name: str
    argv: tuple[str, ...] = Field(description="Perhaps cut.")
    cpu_s: float
    memory_bytes: int = Field(description="Resident.")
    started: str = Field(description="RFC 3339, UTC.")


class ProcessList(Strict):
    """What runs in a session, of all commands."""

    processes: tuple[ProcessRow, ...]


class DecisionAnswer(Strict):
    """What would be decided."""

    decision: DecisionDocument


class OriginalDocument(Strict):
    """What stood at a path before the run."""

    type: str
    sha256: str | None
    executable: bool | None


class ChangeRow(ChangeDocument):
    """A change, with what was there before."""

    original: OriginalDocument | None


class ListedChange(ChangeRow):
    """A change, and whether it is still to be applied."""

    left: bool


class ChangesAnswer(Strict):
    """What a run changed."""

    run_id: str
    directory: str
    changes: tuple[ListedChange, ...]
    truncated: bool
    gone: str | None = Field(description="Why nothing is kept; null: something is.")


class DiffRow(ChangeRow):
    """A change as a unified diff."""

    added: int | None
    removed: int | None
    note: str | None
    diff: str


class DiffAnswer(Strict):
    """What is left of a run's changes against the originals."""

    run_id: str
    files: tuple[DiffRow, ...]


class AppliedRow(ChangeRow):
    """A change, and what became of it."""

    fate: str
    why: str | None


class AppliedAnswer(Strict):
    """What became of all that were to be applied."""

    run_id: str
    directory: str
    dry_run: bool
    results: tuple[AppliedRow, ...]
    left: int


class DiscardedAnswer(Strict):
    """Whether anything was kept of a run's changes."""

    run_id: str
    discarded: bool


class ProfileRow(Strict):
    """A profile that the caller's runs may be under."""

    name: str
    origin: str
    description: str
    error: str | None = Field(description="Why it can't be used.")


class ProfileList(Strict):
    """Profiles by name."""

    profiles: tuple[ProfileRow, ...]


class BudgetList(Strict):
    """Counters that something was charged to."""

    budgets: tuple[BudgetDocument, ...]


class AnswerDocument(Strict):
    """What somebody said to a question."""

    by: str
    reason: str
    at: str = Field(description="RFC 3339, UTC.")


class ApprovalAnswer(Strict):
    """A question that a rule asks."""

    id: str
    state: ApprovalState
    agent: str
    parent: str | None
    session: str | None
    tenant: str | None
    uid: int
    profile: str
    directory: str
    program: str = Field(description="What would run; without secrets, and perhaps cut.")
    reason: str
    rules: tuple[str, ...]
    approvers: tuple[tuple[str, ...], ...] = Field(
        description="Groups of patterns on names, one of each must match; empty: anyone who may."
    )
    asked: str
    expires: str
    answer: AnswerDocument | None
    run_id: str | None = Field(description="The run that began by a yes.")


class ApprovalList(Strict):
    """Questions, the oldest first."""

    approvals: tuple[ApprovalAnswer, ...]


class KillRow(Strict):
    """Something that is stopped."""

    scope: KillScope
    name: str
    by: str
    reason: str
    since: str = Field(description="RFC 3339, UTC.")


class KillList(Strict):
    """What is stopped, the oldest first."""

    kills: tuple[KillRow, ...]


class KilledAnswer(Strict):
    """What a kill came to."""

    scope: KillScope
    name: str
    runs: tuple[str, ...] = Field(description="Those that were open.")
    forced: tuple[str, ...] = Field(
        description="Those whose sandbox was ended past a supervisor that did not answer."
    )
    unrecorded: tuple[str, ...] = Field(description="Those whose end is not recorded yet.")
    alive: tuple[str, ...] = Field(description="Those that could not be ended, each with why.")


class EventRow(Strict):
    """An event of the log, and its leaf hash."""

    leaf_hash: str = Field(description="Hex; SHA-256 of 0x00 and the event's canonical JSON.")
    event: dict[str, Any]


class EventList(Strict):
    """Events of the log."""

    events: tuple[EventRow, ...]
    next: str | None = Field(
        description="The cursor of the next page; null: there is none. A page may be short."
    )


class CheckpointAnswer(Strict):
    """The newest checkpoint, over all events."""

    checkpoint: str = Field(description="A C2SP signed note.")
    key: str = Field(description="The vkey that signed it, on the server's own word.")


class Health(Strict):
    """That somebody answers, and whether runs can begin."""

    status: Literal["ok", "stopping", "unable"]
    why: str | None = None
