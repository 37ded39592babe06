"""The loop guard's table: what tries of commands came to, on an open connection.

Bounded for each of those that are guarded and in all: what would be forgotten first goes first.
What is read is held to be damaged unless it is what was written. sqlite3.Error passes through.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence

from runner.audit.canonical import escape, unescape
from runner.errors import RecordError
from runner.model.loop_guard import Guarded, Looped, Trigger

MOST_OF_ONE = 1000
"""Commands of one agent: some 200 KB, and more than one tries within a window and does not mean."""
MOST = 10_000

_COLUMNS = "sign, times, pauses, began_s, until_s"


def looped(connection: sqlite3.Connection, key: str) -> Looped | None:
    """How a command stands."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM loops WHERE id = ?",  # noqa: S608
        (key,),
    ).fetchone()
    return None if row is None else _looped(*row)


def guarded(connection: sqlite3.Connection) -> Sequence[Guarded]:
    """All that there are, by whose they are."""
    rows = connection.execute(
        f"SELECT id, whose, uid, {_COLUMNS} FROM loops ORDER BY whose, uid, id"  # noqa: S608
    )
    return [Guarded(key, unescape(whose), uid, _looped(*row)) for key, whose, uid, *row in rows]


def remember(
    connection: sqlite3.Connection,
    guarded: Guarded,
    *,
    forgotten_s: float,
    now_s: float,
) -> None:
    """Set how a command stands, and make room for it."""
    key, uid, looped = guarded.id, guarded.uid, guarded.looped
    whose = escape(guarded.whose)
    known = connection.execute("SELECT 1 FROM loops WHERE id = ?", (key,)).fetchone()
    if known is None:
        forget_outdated(connection, now_s)
        _make_room(connection, "whose = ? AND uid = ?", (whose, uid), MOST_OF_ONE)
        _make_room(connection, "1 = 1", (), MOST)
    connection.execute(
        "INSERT OR REPLACE INTO loops VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            whose,
            uid,
            looped.sign,
            json.dumps(looped.times_s),
            looped.pauses,
            looped.began_s,
            looped.until_s,
            forgotten_s,
        ),
    )


def forget(connection: sqlite3.Connection, key: str) -> None:
    """Begin a command anew."""
    connection.execute("DELETE FROM loops WHERE id = ?", (key,))


def forget_outdated(connection: sqlite3.Connection, now_s: float) -> int:
    """Drop what does not count any more; how many."""
    return connection.execute("DELETE FROM loops WHERE forgotten_s < ?", (now_s,)).rowcount


def _make_room(
    connection: sqlite3.Connection, where: str, which: tuple[object, ...], most: int
) -> None:
    (count,) = connection.execute(
        f"SELECT count(*) FROM loops WHERE {where}",  # noqa: S608
        which,
    ).fetchone()
    if count >= most:
        connection.execute(
            f"DELETE FROM loops WHERE id IN (SELECT id FROM loops WHERE {where} "  # noqa: S608
            "ORDER BY forgotten_s LIMIT ?)",
            (*which, count - most + 1),
        )


def _looped(
    sign: object, times: object, pauses: object, began_s: object, until_s: object
) -> Looped:
    try:
        if not isinstance(sign, str) or not isinstance(times, str):
            raise ValueError(sign)
        Trigger(sign.partition(":")[0])
        times_s = tuple(map(_number, json.loads(times)))
        if not times_s or type(pauses) is not int or pauses < 0:
            raise ValueError(pauses)
        return Looped(sign, times_s, pauses, _number(began_s), _number(until_s))
    except (TypeError, ValueError, RecursionError):
        raise RecordError(
            "the loop guard's table is damaged; `runner audit verify` tells whether the log is, "
            "`runner audit repair` makes the table anew"
        ) from None


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(value)
    return float(value)  # type: ignore[arg-type]
