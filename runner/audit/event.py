"""An event's bytes: what is hashed, and how it is read back. The format is final.

    {"data":{…},"kind":"run.started","prev":"<hex>","principal":{…}|null,"run":"…"|null,
     "seq":7,"time":"2026-01-02T03:04:05.678901Z","v":1}

in canonical JSON (RFC 8785). `prev` is the leaf hash of the event before, 64 zeros for the first;
the leaf hash is SHA-256(0x00 || these bytes), as in an RFC 9162 tree.
"""

from __future__ import annotations

from datetime import UTC, datetime

from runner.audit.canonical import Written, canonical, escape, written_fast
from runner.audit.merkle import HASH_BYTES, leaf_hash
from runner.errors import RecordError
from runner.model.event import EVENT_VERSION, AuditEvent, EventDraft
from runner.model.principal import Principal

NO_PREVIOUS = bytes(HASH_BYTES)
"""What the first event names as the one before it."""

_BODY = b'{"data":%b,"kind":"%b","prev":"%b",%b,"seq":%d,"time":"%b","v":%d}'


def seal(
    draft: EventDraft, seq: int, now_s: float, previous: bytes, written: Written | None = None
) -> AuditEvent:
    """Give `draft` its place: number, time (seconds since the epoch) and the hash before it.

    `written`: what `data_of` gave for this very draft, where it was asked before.
    RecordError: the draft holds what can't be written as JSON (see `canonical`).
    """
    time, kind, prev = rfc3339(now_s), draft.kind.value, previous.hex()
    who: dict[str, object] = {
        "principal": None if draft.principal is None else _principal(draft.principal),
        "run": draft.run_id,
    }
    data = written or data_of(draft)
    about = None if data is None else written_fast(who)
    if data is None or about is None:
        rest = {"v": EVENT_VERSION, "seq": seq, "time": time, "kind": kind, "prev": prev, **who}
        body = canonical({"data": draft.data, **rest})
    else:  # the same, put together of what is written already
        told = kind.encode(), prev.encode(), about.data[1:-1], seq, time.encode(), EVENT_VERSION
        body = _BODY % (data.data, *told)
    return AuditEvent(
        seq=seq,
        time=time,
        kind=kind,
        run_id=None if draft.run_id is None else escape(draft.run_id),
        body=body,
        leaf_hash=leaf_hash(body),
        previous=previous,
    )


def data_of(draft: EventDraft) -> Written | None:
    """A draft's data as they stand in its event's bytes; None: it takes more than a look to tell.

    Strings in them are those of the draft, as JSON has them.
    """
    data = draft.data
    return written_fast(data, 1) if type(data) is dict else None


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
