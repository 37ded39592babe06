"""An event's bytes: what is hashed, and how it is read back. The format is final.

    {"data":{…},"kind":"run.started","prev":"<hex>","principal":{…}|null,"run":"…"|null,
     "seq":7,"time":"2026-01-02T03:04:05.678901Z","v":1}

in canonical JSON (RFC 8785). `prev` is the leaf hash of the event before, 64 zeros for the first;
the leaf hash is SHA-256(0x00 || these bytes), as in an RFC 9162 tree.
"""

from __future__ import annotations

from datetime import UTC, datetime

from runner.audit.canonical import canonical, escape
from runner.audit.merkle import HASH_BYTES, leaf_hash
from runner.errors import RecordError
from runner.model.event import EVENT_VERSION, AuditEvent, EventDraft
from runner.model.principal import Principal

NO_PREVIOUS = bytes(HASH_BYTES)
"""What the first event names as the one before it."""


def seal(draft: EventDraft, seq: int, now_s: float, previous: bytes) -> AuditEvent:
    """Give `draft` its place: number, time (seconds since the epoch) and the hash before it.

    RecordError: the draft holds what can't be written as JSON (see `canonical`).
    """
    time = rfc3339(now_s)
    body = canonical(
        {
            "v": EVENT_VERSION,
            "seq": seq,
            "time": time,
            "kind": draft.kind.value,
            "run": draft.run_id,
            "principal": None if draft.principal is None else _principal(draft.principal),
            "data": draft.data,
            "prev": previous.hex(),
        }
    )
    return AuditEvent(
        seq=seq,
        time=time,
        kind=draft.kind.value,
        run_id=None if draft.run_id is None else escape(draft.run_id),
        body=body,
        leaf_hash=leaf_hash(body),
        previous=previous,
    )


def rfc3339(now_s: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with microseconds, `…T03:04:05.678901Z`."""
    try:
        moment = datetime.fromtimestamp(now_s, UTC)
    except (OverflowError, ValueError, OSError):
        raise RecordError(f"the clock says {now_s}, which is no time: set the clock") from None
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _principal(principal: Principal) -> dict[str, object]:
    return {
        "agent": principal.agent,
        "parent": principal.parent,
        "session": principal.session,
        "tenant": principal.tenant,
        "uid": principal.uid,
    }
