"""What a repair carries over from a damaged database beside the events.

Of what the events tell, nothing: that is replayed. What they don't tell is carried as far as it
can be read: where archived events went, and the runs that only those told of.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from runner.audit.beginning import Beginning, beginning_of
from runner.audit.canonical import unescape
from runner.audit.note import parse_vkey
from runner.errors import RecordError
from runner.metering import microseconds
from runner.model.principal import Principal
from runner.stores import kills as stored_kills
from runner.stores.damage import ERRORS
from runner.stores.kept import check_run_id
from runner.stores.salvage import Found, PrunedRow, Told, connect_damaged, has_pages
from runner.stores.transaction import charge

_PRUNED = "INSERT INTO pruned VALUES (?, ?, ?, ?, ?, ?, ?)"
_RUNS = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def pruned(connection: sqlite3.Connection, says: Told, found: Found, beginning: Beginning) -> None:
    """Note again what was archived. sqlite3.Error: the new database can't be written."""
    if beginning.size == 0:
        return
    rows = [row for row in says.pruned if _is_whole(row)]
    if not rows or rows[-1][0] != beginning.size:
        row = found.archived(beginning)
        rows = [] if row is None else [row]
    connection.executemany(_PRUNED, rows)


def runs(path: Path, connection: sqlite3.Connection) -> None:
    """The closed runs that no event is left of, and what they cost, as far as they can be read."""
    if not has_pages(path):
        return
    try:
        with closing(connect_damaged(path)) as damaged:
            for row in damaged.execute("SELECT * FROM runs WHERE state = 'closed'"):
                with suppress(RecordError, ValueError, TypeError, KeyError, sqlite3.IntegrityError):
                    _run(connection, row)
    except ERRORS:
        return  # the rest can't be read


def keys(path: Path, connection: sqlite3.Connection, archived: int) -> None:
    """Which keys the first `archived` events named, of which only the damaged log's table tells."""
    if not has_pages(path):
        return
    try:
        with closing(connect_damaged(path)) as damaged:
            rows = damaged.execute("SELECT seq, vkey FROM log_keys WHERE seq < ?", (archived,))
            for seq, vkey in rows:
                with suppress(ValueError, AttributeError):
                    parse_vkey(vkey)
                    connection.execute("INSERT INTO log_keys VALUES (?, ?)", (seq, vkey))
    except ERRORS:
        return  # the rest can't be read


def kills(path: Path, connection: sqlite3.Connection) -> None:
    """Kills that only archived events told of; one too many is lifted by hand."""
    if not has_pages(path):
        return
    try:
        with closing(connect_damaged(path)) as damaged:
            for kill in stored_kills.kills(damaged):
                if kill not in stored_kills.kills(connection):
                    stored_kills.set_kill(connection, kill)
    except (*ERRORS, RecordError):
        return  # the rest can't be read


def _run(connection: sqlite3.Connection, row: tuple[object, ...]) -> None:
    (run_id, _, _, agent, parent, _, _, uid, *_, usage) = row
    check_run_id(str(run_id))
    if not isinstance(agent, str) or not isinstance(parent, str | None) or type(uid) is not int:
        raise TypeError("no run looks like this")
    told = json.loads(usage) if isinstance(usage, str) else None
    wall_us = microseconds(told["wall_s"]) if told else 0
    connection.execute(_RUNS, row)
    who = Principal(uid, unescape(agent), None if parent is None else unescape(parent))
    charge(connection, who, calls=1, wall_us=wall_us)


def _is_whole(row: PrunedRow) -> bool:
    try:
        beginning_of(row[0], row[2], row[3])
    except (ValueError, IndexError):
        return False
    return True
