"""A link of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runner.model.principal import Principal

EVENT_VERSION = 1


class EventKind(StrEnum):
    """Closed list of what is recorded."""

    LOG_CREATED = "log.created"
    RUN_DECIDED = "run.decided"
    """Intent and decision, durable before anything runs; the first event of a run."""
    RUN_STARTED = "run.started"
    """The sandbox is built: spec digest, protections in force. Durable before the program runs."""
    RUN_ENDED = "run.ended"
    """The outcome; the last event of a run, a denied one too."""
    RUN_RECOVERED = "run.recovered"
    """A run whose supervisor died was closed as `unknown`."""
    CHANGES_APPLYING = "changes.applying"
    """Which of a run's changes are about to be applied; durable before the first is."""
    CHANGES_APPLIED = "changes.applied"
    """What became of each of them."""
    CHANGES_DISCARDED = "changes.discarded"
    """What was kept of a run's changes is thrown away: by whom, or why."""
    DECISION_CHECKED = "decision.checked"
    """A decision was asked for without a run."""
    REQUEST_REFUSED = "request.refused"
    """A request that could not be decided: bad profile, bad limit, workspace refused."""
    MACHINE_SWEPT = "machine.swept"
    """What a clean-up of this machine removed, and what it could not remove."""
    BUDGET_WARNED = "budget.warned"
    """So much of a budget is used, once a window and share."""
    BUDGET_SET = "budget.set"
    """Somebody set another amount for a time, or took that back, and why."""
    BUDGET_RESET = "budget.reset"
    """Somebody began a budget's windows anew, and why."""
    GUARD_PAUSED = "guard.paused"
    """A command that is tried again and again has to pause: why, and until when."""
    GUARD_RESET = "guard.reset"
    """Somebody let paused commands be tried again, and why."""
    APPROVAL_ASKED = "approval.asked"
    """A rule asked, and somebody is: about what, until when. Durable before anybody is told."""
    APPROVAL_UNTOLD = "approval.untold"
    """A destination was not told of a question, which stands all the same."""
    APPROVAL_ANSWERED = "approval.answered"
    """Somebody said yes or no. A run that began by a yes names it in its decision."""
    KILL_ORDERED = "kill.ordered"
    """Somebody ended runs, and keeps those of an agent, a session or a tenant, or all, from
    beginning: which, and why."""
    KILL_LIFTED = "kill.lifted"
    """They may begin again: who said so, and why."""
    SESSION_FILE = "session.file"
    """A file of a session is about to be read, written, listed or removed from outside, or that was
    refused: which, and what was decided. Of what commands do with files nothing is here."""
    SESSION_SIGNAL = "session.signal"
    """A process of a session is about to be sent a signal from outside."""
    OUTPUT_DISCARDED = "output.discarded"
    """Kept output goes, the oldest first: it is too old, or there is too much. Written before."""
    LOG_ARCHIVED = "log.archived"
    """Events of the log stand in a sealed file and are removed in this event's transaction."""
    LOG_RESTORED = "log.restored"
    """Archived events are back in the log, in this event's transaction."""
    LOG_REPAIRED = "log.repaired"
    """The log was damaged and goes on here; which events are missing, as far as is known."""

    APIKEY_CREATED = "apikey.created"
    """Somebody made a key of the API: its id, name, scope and end; never the key."""
    APIKEY_REVOKED = "apikey.revoked"
    """A key of the API is not taken any more: by whom and why."""
    AUTH_FAILED = "auth.failed"
    """Calls of the API without a credential that is taken: how many, and of what kind."""

    KEY_CREATED = "key.created"
    """A log that is older than keys got one; others name theirs when they are created."""
    KEY_ROTATED = "key.rotated"
    """Another key signs from here on; the old one and the new one have signed that."""
    KEY_REPLACED = "key.replaced"
    """The same, without the old one's signature: its private part was lost."""
    CHECKPOINT_FAILED = "checkpoint.failed"
    """A checkpoint was due and could not be signed; no run starts until one can be."""
    CHECKPOINT_UNSENT = "checkpoint.unsent"
    """Sending checkpoints to a destination began to fail."""
    CHECKPOINT_SENT = "checkpoint.sent"
    """A destination that failed has the newest checkpoint."""


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event before the log gave it a place.

    `data` holds JSON values only (str, int, bool, None, list, dict and finite floats).
    """

    kind: EventKind
    data: Mapping[str, object]
    principal: Principal | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An event in its place. `body` is the canonical JSON (RFC 8785) whose hash is `leaf_hash`."""

    seq: int
    """Counted from 0 without gaps."""
    time: str
    """RFC 3339, UTC, microseconds."""
    kind: str
    run_id: str | None
    body: bytes
    leaf_hash: bytes
    """SHA-256 of 0x00 and `body` (RFC 9162, 2.1.1)."""
    previous: bytes
    """`leaf_hash` of the event before; 32 zero bytes for the first."""
