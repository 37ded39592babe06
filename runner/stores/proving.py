"""Proofs from a stored log: that a run or an event is in it, and that it was only added to.

Each document is checked as its reader will before it is given away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from runner.audit.checkpoint import parse_checkpoint
from runner.audit.proof import ProvedEvent, consistency_document, event_proof, run_proof
from runner.audit.verify_proof import (
    ENDS,
    LOG_KEY,
    MAX_BYTES,
    DoesNotHoldError,
    UncheckedError,
    key_of,
    verify,
)
from runner.audit.witnessing import request_text
from runner.errors import RequestError, StateError
from runner.model.event import AuditEvent, EventKind
from runner.stores.against import covering, keys_named, newest, over
from runner.stores.checkpoints import named_by_events
from runner.stores.reader import LogReader

_MAKE_ONE = "`runner audit checkpoint` makes one"


def run_events(log: LogReader, run_id: str) -> list[AuditEvent]:
    """All events of a run that has ended.

    RequestError: there is no such run, it has not ended, or its first events are archived.
    """
    # An id is ASCII, and SQLite takes only what UTF-8 can hold.
    events = list(log.events(run_id)) if run_id.isascii() else []
    if not events:
        hint = " (or it is archived: `runner audit restore` brings it back)"
        raise RequestError(
            f"there is no run {run_id!r} in the log; `runner audit show` lists them"
            f"{hint if log.beginning().size else ''}"
        )
    if events[0].kind != EventKind.RUN_DECIDED:
        raise RequestError(
            f"the first events of run {run_id} are archived: `runner audit restore` brings them "
            f"back; what is left can be proved one by one, `--index {events[0].seq}`"
        )
    if all(event.kind not in ENDS for event in events):
        raise RequestError(
            f"run {run_id} has not ended; what it has recorded can be proved one by one, "
            f"`--index {events[0].seq}`"
        )
    return events


def event_at(log: LogReader, seq: int) -> AuditEvent:
    """RequestError: there is no event of that number, or it is archived."""
    event = next(log.events(start=seq), None)
    if event is not None and event.seq == seq:
        return event
    if seq < (first := log.beginning().size):
        raise RequestError(
            f"event {seq} is archived, the log begins with event {first}: `runner audit restore` "
            "brings it back"
        )
    raise RequestError(f"there is no event {seq}: the log has {log.head().size}, counted from 0")


def event_of(log: LogReader, leaf: bytes) -> AuditEvent:
    """The event of that leaf hash. RequestError: there is none. Looks at all of them."""
    with log.reading() as connection:
        row = connection.execute("SELECT seq FROM events WHERE leaf_hash = ?", (leaf,)).fetchone()
    if row is None:
        archived = " (the first ones are archived)" if log.beginning().size else ""
        raise RequestError(f"no event of the log has the leaf hash {leaf.hex()}{archived}")
    return event_at(log, row[0])


def covering_note(log: LogReader, seq: int) -> str | None:
    """The oldest stored checkpoint over event `seq`; None: there is none yet.

    The oldest, so that the same event has the same proof tomorrow, signed by the key of its time.
    """
    with log.reading() as connection:
        return covering(connection, seq + 1)


def prove_run(log: LogReader, events: list[AuditEvent], note: str, *, kept: bool) -> bytes:
    """The proof of a run by all its events, under a checkpoint.

    `kept`: it comes from somebody else. RequestError: it is not over them, or not of this log, or
    the proof would be too large. StateError: the log is damaged.
    """
    proved = _proved(log, events, note)
    run_id = str(events[0].run_id)
    return _checked(log, lambda: run_proof(run_id, proved, note), f"of run {run_id}", kept=kept)


def prove_event(log: LogReader, event: AuditEvent, note: str, *, kept: bool) -> bytes:
    """The proof of one event; as above."""
    (proved,) = _proved(log, [event], note)
    return _checked(log, lambda: event_proof(proved, note), f"of event {event.seq}", kept=kept)


def prove_consistency(log: LogReader, old: str | int, new: str | None) -> bytes:
    """The proof that the log of one checkpoint was only added to until another.

    `old`: a kept note, or the size of a stored one; `new`: None: the newest stored one.
    RequestError: there is no such checkpoint, it is not of this log, the log does not extend it, or
    events that the proof needs are archived.
    """
    end = _newest(log) if new is None else new
    begin = _stored(log, old) if isinstance(old, int) else old
    path = log.consistency_proof(*_sizes(begin, end))
    return _checked(
        log, lambda: consistency_document(begin, end, path), "of consistency", kept=True
    )


def consistency_request(log: LogReader, old: str | int, new: str | None) -> str:
    """What a witness is asked that has seen `old`; 0: nothing (C2SP tlog-witness). As above."""
    end = _newest(log) if new is None else new
    begin = old if isinstance(old, int) else _size(old)
    if begin > _size(end):
        raise RequestError(
            f"no proof: the checkpoint is over {_size(end)} events, and the witness has seen "
            f"{begin}; {_MAKE_ONE} over all"
        )
    path = log.consistency_proof(begin, _size(end)) if begin else []
    return request_text(begin, path, end)


def _proved(log: LogReader, events: list[AuditEvent], note: str) -> list[ProvedEvent]:
    size = _size(note)
    if events[-1].seq >= size:
        raise RequestError(
            f"no proof: event {events[-1].seq} is not under the checkpoint, which is over the "
            f"first {size}"
        )
    paths = log.inclusion_proofs([event.seq for event in events], size)
    return [
        ProvedEvent(event.seq, event.body, path) for event, path in zip(events, paths, strict=True)
    ]


def _checked(log: LogReader, made: Callable[[], bytes], what: str, *, kept: bool) -> bytes:
    with log.reading() as connection:
        vkeys = _vkeys(connection)
    try:
        document = made()
        if len(document) > MAX_BYTES:
            raise RequestError(
                f"a proof {what} would be larger than {MAX_BYTES} bytes: prove its events one by "
                "one, `--index N`"
            )
        verify(document, [key_of(vkey, LOG_KEY) for vkey in vkeys])
    except (DoesNotHoldError, UncheckedError, ValueError, TypeError, AttributeError) as error:
        why = f"a proof {what} would not hold: {error}"
        if kept:
            raise RequestError(
                f"{why}; `runner audit verify --against FILE` tells whose fault it is"
            ) from None
        raise _damaged(why) from None
    return document


def _vkeys(connection: sqlite3.Connection) -> list[str]:
    """Of the log's keys; a log that was made of an archive has no table of them."""
    named = [key.vkey for key in keys_named(connection)]
    return named or [vkey for _, vkey in named_by_events(connection)]


def _newest(log: LogReader) -> str:
    with log.reading() as connection:
        note = newest(connection)
    if note is None:
        raise RequestError(f"the log has no checkpoint yet: {_MAKE_ONE}")
    return note


def _stored(log: LogReader, size: int) -> str:
    with log.reading() as connection:
        note = over(connection, size)
    if note is None:
        raise RequestError(
            f"there is no checkpoint over {size} events; `runner audit checkpoint --list` shows "
            "those that there are"
        )
    return note


def _sizes(old: str, new: str) -> tuple[int, int]:
    if not 0 < _size(old) <= _size(new):
        raise RequestError(
            f"no proof: it would lead from {_size(old)} events to {_size(new)}; name the older "
            "checkpoint with --from"
        )
    return _size(old), _size(new)


def _size(note: str) -> int:
    try:
        return parse_checkpoint(note).size
    except ValueError as error:
        raise _damaged(f"a stored checkpoint can't be read: {error}") from None


def _damaged(why: str) -> StateError:
    return StateError(f"the log is damaged, {why}; `runner audit verify` tells where")
