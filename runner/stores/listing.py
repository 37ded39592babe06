"""Runs by the time they began, for whoever lists them page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from runner.audit.canonical import escape, unescape
from runner.model.event import EventKind
from runner.stores.reader import LogReader

_COLUMNS = "run_id, state, agent, parent, session, tenant, uid, profile, opened, closed"
_ENDS = (EventKind.RUN_ENDED.value, EventKind.RUN_RECOVERED.value)


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run as the ledger has it. Names are as they were recorded: without secrets."""

    run_id: str
    open: bool
    agent: str
    parent: str | None
    session: str | None
    tenant: str | None
    uid: int
    profile: str
    opened: str
    """RFC 3339, UTC."""
    closed: str | None


def listed_run(log: LogReader, run_id: str) -> ListedRun | None:
    """The run of that id."""
    if not run_id.isascii():  # no id is, and SQLite takes only UTF-8
        return None
    query = f"SELECT {_COLUMNS} FROM runs WHERE run_id = ?"  # noqa: S608
    with log.reading() as connection:
        row = connection.execute(query, (run_id,)).fetchone()
    return None if row is None else _run(row)


def runs_before(
    log: LogReader, before: tuple[str, str] | None, most: int, *, agent: str | None = None
) -> list[ListedRun]:
    """Runs from the latest back, at most so many; only those before one of them.

    `before`: its `opened` and its id; None: from the last one on.
    """
    wheres, given = [], []
    if before is not None:
        wheres.append("(opened, run_id) < (?, ?)")
        given += [*before]
    if agent is not None:
        wheres.append("agent = ?")
        given.append(escape(agent))
    where = f"WHERE {' AND '.join(wheres)}" if wheres else ""
    query = f"SELECT {_COLUMNS} FROM runs {where} ORDER BY opened DESC, run_id DESC LIMIT ?"  # noqa: S608
    with log.reading() as connection:
        rows = connection.execute(query, (*given, most)).fetchall()
    return [_run(row) for row in rows]


def terminations(log: LogReader, run_ids: list[str]) -> dict[str, str]:
    """How runs ended, of those whose end the log has."""
    marks = ", ".join("?" * len(run_ids))
    query = f"SELECT run_id, body FROM events WHERE run_id IN ({marks}) AND kind IN (?, ?)"  # noqa: S608
    with log.reading() as connection:
        rows = connection.execute(query, (*run_ids, *_ENDS)).fetchall()
    return dict(_told(rows))


def _told(rows: list[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    for run_id, body in rows:
        try:
            yield run_id, str(orjson.loads(body)["data"]["termination"])
        except (ValueError, KeyError, TypeError):  # damaged: `runner audit verify` tells
            continue


def _run(row: tuple[object, ...]) -> ListedRun:
    run_id, state, agent, parent, session, tenant, uid, profile, opened, closed = row
    return ListedRun(
        str(run_id),
        state == "open",
        unescape(str(agent)),
        _name(parent),
        _name(session),
        _name(tenant),
        int(str(uid)),
        unescape(str(profile)),
        str(opened),
        None if closed is None else str(closed),
    )


def _name(stored: object) -> str | None:
    return None if stored is None else unescape(str(stored))
