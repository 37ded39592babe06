"""Counting the runs of a principal, on a reader's connection or inside a transaction."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from runner.audit.canonical import escape
from runner.audit.event import rfc3339
from runner.model.principal import Principal
from runner.model.rule import CountOf


def runs_since(
    connection: sqlite3.Connection, principal: Principal, of: CountOf, since_s: float
) -> int:
    """Runs that began at `since_s` or later, of whom `ports.Counter` says. sqlite3.Error."""
    where, given = _whose(principal, of)
    (count,) = connection.execute(
        f"SELECT count(*) FROM runs WHERE ({where}) AND opened >= ?",  # noqa: S608
        (*given, rfc3339(max(0.0, since_s))),
    ).fetchone()
    return int(count)


def began_s(
    connection: sqlite3.Connection, principal: Principal, of: CountOf, since_s: float, latest: int
) -> float | None:
    """When the `latest`-th latest of these runs began. sqlite3.Error, ValueError: damaged."""
    where, given = _whose(principal, of)
    row = connection.execute(
        f"SELECT opened FROM runs WHERE ({where}) AND opened >= ? "  # noqa: S608
        "ORDER BY opened DESC LIMIT 1 OFFSET ?",
        (*given, rfc3339(max(0.0, since_s)), latest - 1),
    ).fetchone()
    return None if row is None else datetime.fromisoformat(str(row[0])).timestamp()


def _whose(principal: Principal, of: CountOf) -> tuple[str, tuple[object, ...]]:
    """A condition on rows of `runs`, and what stands for its question marks."""
    match of:
        case CountOf.AGENT:
            return _agent(principal.agent)
        case CountOf.PARENT:
            return ("FALSE", ()) if principal.parent is None else _agent(principal.parent)
        case CountOf.SESSION:
            return "session IS ?", (_escaped(principal.session),)
        case CountOf.TENANT:
            return "tenant IS ?", (_escaped(principal.tenant),)
        case CountOf.UID:
            return "uid = ?", (principal.uid,)
        case CountOf.ALL:
            return "TRUE", ()


def _agent(name: str) -> tuple[str, tuple[object, ...]]:
    return "agent = ? OR (parent = ? AND agent <> ?)", (escape(name),) * 3


def _escaped(text: str | None) -> str | None:
    return None if text is None else escape(text)
