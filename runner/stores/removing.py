"""Taking archived events out of the log, and putting them back, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from runner.audit.beginning import WHOLE, Beginning, beginning_data, beginning_of
from runner.audit.segment import Segment
from runner.audit.stored_event import Row
from runner.audit.verify import Verification, verify
from runner.errors import RecordError
from runner.model.event import EventDraft, EventKind
from runner.stores.database import read_beginning
from runner.stores.reader import LogReader
from runner.stores.transaction import SqliteTransaction

_FIRST_OF_OPEN = (
    "SELECT seq, run_id FROM events WHERE run_id IN "
    "(SELECT run_id FROM runs WHERE state = 'open') ORDER BY seq LIMIT 1"
)
_FIRST_OF_RUN = "SELECT min(seq) FROM events WHERE run_id = ?"
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def first_held(log: LogReader, with_changes: Sequence[str]) -> tuple[int, str] | None:
    """The first event that must stay, and why, in a clause; None: all may go.

    `with_changes`: ids of runs of which changes are kept.
    """
    found: list[tuple[int, str]] = []
    with log.reading() as connection:
        row = connection.execute(_FIRST_OF_OPEN).fetchone()
        if row is not None:
            found.append((row[0], f"it belongs to {row[1]}, which has not ended"))
        for run_id in with_changes:
            (seq,) = connection.execute(_FIRST_OF_RUN, (run_id,)).fetchone()
            if seq is not None:
                why = f"it belongs to {run_id}, whose changes are kept: apply or discard them"
                found.append((seq, why))
    return min(found) if found else None


def prune(
    tx: SqliteTransaction,
    start: Beginning,
    end: Beginning,
    *,
    log_id: str,
    file: str,
    sha256: str,
) -> None:
    """Remove the events from `start` up to `end`, which the segment `file` holds.

    RecordError: the log does not begin at `start` (any more), an open run has events among them,
    or the last of them is another one.
    """
    connection = tx.connection
    if _beginning(connection) != start:
        raise RecordError("somebody else archived meanwhile: try again")
    held = connection.execute(_FIRST_OF_OPEN).fetchone()
    if held is not None and held[0] < end.size:
        raise RecordError(f"event {held[0]} belongs to {held[1]}, which has not ended")
    count, last = connection.execute(
        "SELECT count(*), (SELECT leaf_hash FROM events WHERE seq = ?) FROM events WHERE seq < ?",
        (end.size - 1, end.size),
    ).fetchone()
    if count != end.size - start.size or last != end.last_hash:
        raise RecordError("the log is damaged; `runner audit verify` tells where")
    data = {
        "log": log_id,
        "from": start.size,
        "to": beginning_data(end),
        "file": file,
        "sha256": sha256,
    }
    tx.append(EventDraft(EventKind.LOG_ARCHIVED, data))
    connection.execute(
        "INSERT INTO pruned VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            end.size,
            start.size,
            end.tree.to_bytes(),
            end.last_hash,
            log_id,
            file,
            bytes.fromhex(sha256),
        ),
    )
    connection.execute("DELETE FROM events WHERE seq < ?", (end.size,))


def last_removed(connection: sqlite3.Connection) -> tuple[Beginning, Beginning, str] | None:
    """The range that was removed last, and the name of its segment; None: nothing was.

    RecordError: the record of it is damaged.
    """
    rows = connection.execute(
        "SELECT size, peaks, last_hash, start, file FROM pruned ORDER BY size DESC LIMIT 2"
    ).fetchall()
    if not rows:
        return None
    try:
        end = beginning_of(*rows[0][:3])
        start = WHOLE if len(rows) == 1 else beginning_of(*rows[1][:3])
    except ValueError as error:
        raise RecordError(f"{error}; `runner audit repair` mends it") from None
    if rows[0][3] != start.size:
        raise RecordError("the record of the archived events has a gap; `runner audit repair`")
    return start, end, str(rows[0][4])


def put_back(tx: SqliteTransaction, segment: Segment, sha256: str) -> None:
    """Put the events of a segment back, which must be those that were removed last.

    RecordError: they are not; then nothing is put back.
    """
    connection = tx.connection
    removed = last_removed(connection)
    header = segment.header
    if removed is None or (header.start, header.end) != (removed[0].size, removed[1].size):
        raise RecordError("somebody else restored or archived meanwhile: try again")
    start, end, file = removed
    found = insert(connection, segment.rows(), start)
    if found.failure is not None:
        raise RecordError(f"event {found.failure.seq}: {found.failure.why}")
    if segment.seal is None or segment.seal.after != end:
        raise RecordError("the segment holds other events than were removed")
    connection.execute("DELETE FROM pruned WHERE size = ?", (end.size,))
    data = {"from": start.size, "to": beginning_data(end), "file": file, "sha256": sha256}
    tx.append(EventDraft(EventKind.LOG_RESTORED, data))


def insert(connection: sqlite3.Connection, rows: Iterable[Row], start: Beginning) -> Verification:
    """Verify events and write each once it holds; those before one that does not are written."""

    def writing() -> Iterator[Row]:
        for row in rows:
            yield row  # when `verify` asks for the next one, this one holds
            connection.execute(
                _INSERT,
                (
                    row.seq, row.time, row.kind, row.run_id, row.agent, row.leaf_hash,
                    row.previous, row.body,
                ),
            )  # fmt: skip

    return verify(writing(), beginning=start, vouched=True)


def _beginning(connection: sqlite3.Connection) -> Beginning:
    try:
        return read_beginning(connection)
    except ValueError as error:
        raise RecordError(f"{error}; `runner audit repair` mends it") from None
