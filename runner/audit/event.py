"""An event's bytes: what is hashed, and how it is read back. The format is final.

    {"data":{…},"kind":"run.started","prev":"<hex>","principal":{…}|null,"run":"…"|null,
     "seq":7,"time":"2026-01-02T03:04:05.678901Z","v":1}

in canonical JSON (RFC 8785). `prev` is the leaf hash of the event before, 64 zeros for the first;
the leaf hash is SHA-256(0x00 || these bytes), as in an RFC 9162 tree.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import orjson

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
    run_id = None if draft.run_id is None else escape(draft.run_id)
    data = written or data_of(draft)
    about = _about(draft.principal, run_id)
    if data is None or about is None:
        who = {"principal": _told(draft.principal), "run": draft.run_id}
        rest = {"v": EVENT_VERSION, "seq": seq, "time": time, "kind": kind, "prev": prev, **who}
        body = canonical({"data": draft.data, **rest})
    else:  # the same, put together of what is written already
        told = kind.encode(), prev.encode(), about, seq, time.encode(), EVENT_VERSION
        body = _BODY % (data.data, *told)
    return AuditEvent(
        seq=seq,
        time=time,
        kind=kind,
        run_id=run_id,
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


def _about(principal: Principal | None, run_id: str | None) -> bytes | None:
    """Who and which run, as they stand in an event's bytes; None: `canonical` has to look.

    `run_id`: escaped. orjson writes a single text as RFC 8785 does; the keys are in order.
    """
    try:
        who = _told(principal, escape)
        return orjson.dumps({"principal": who, "run": run_id}, option=orjson.OPT_STRICT_INTEGER)[
            1:-1
        ]
    except TypeError:
        return None


def _told(
    principal: Principal | None, text: Callable[[str], str] = str
) -> dict[str, object] | None:
    if principal is None:
        return None
    parent, session, tenant = principal.parent, principal.session, principal.tenant
    return {
        "agent": text(principal.agent),
        "parent": None if parent is None else text(parent),
        "session": None if session is None else text(session),
        "tenant": None if tenant is None else text(tenant),
        "uid": principal.uid,
    }
