"""The kill switch's table, and the runs that are open, on an open connection.

Names are compared as events and the ledger have them. What is read is held to be damaged unless it
is what was written. sqlite3.Error passes through.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from runner.audit.canonical import escape, unescape
from runner.errors import RecordError
from runner.model.kill import Kill, KillScope, OpenRun
from runner.model.principal import Principal

# A run against a kill; the kill of an agent is also one of those that it started.
_HITS = """(
    kills.scope = 'all'
    OR kills.scope = 'run' AND kills.name = runs.run_id
    OR kills.scope = 'agent' AND kills.name IN (runs.agent, runs.parent)
    OR kills.scope = 'session' AND kills.name = runs.session
    OR kills.scope = 'tenant' AND kills.name = runs.tenant
)"""
_KILL = "kills.scope, kills.name, kills.by, kills.reason, kills.since_s"
_RUN = (
    "runs.run_id, runs.profile, runs.backend, runs.opened, "
    "runs.agent, runs.parent, runs.session, runs.tenant, runs.uid"
)


def kills(connection: sqlite3.Connection) -> Sequence[Kill]:
    """All that hold, the oldest first."""
    rows = connection.execute(f"SELECT {_KILL} FROM kills ORDER BY since_s, scope, name")  # noqa: S608
    return [_kill(*row) for row in rows]


def killed(connection: sqlite3.Connection, principal: Principal) -> Kill | None:
    """What keeps this principal from beginning a run; of several the oldest."""
    p = principal
    named = [
        (KillScope.ALL, ""),
        *((KillScope.AGENT, name) for name in (p.agent, p.parent) if name is not None),
        *((KillScope.SESSION, name) for name in (p.session,) if name is not None),
        *((KillScope.TENANT, name) for name in (p.tenant,) if name is not None),
    ]
    where = " OR ".join(["(scope = ? AND name = ?)"] * len(named))
    row = connection.execute(
        f"SELECT {_KILL} FROM kills WHERE {where} ORDER BY since_s LIMIT 1",  # noqa: S608
        [part for scope, name in named for part in (scope.value, escape(name))],
    ).fetchone()
    return None if row is None else _kill(*row)


def killed_runs(connection: sqlite3.Connection) -> Mapping[str, Kill]:
    """Open runs that have to end, each with what ends it; of several the newest."""
    if connection.execute("SELECT 1 FROM kills LIMIT 1").fetchone() is None:
        return {}
    rows = connection.execute(
        f"SELECT runs.run_id, {_KILL} FROM kills JOIN runs ON runs.state = 'open' AND {_HITS} "  # noqa: S608
        "ORDER BY since_s"
    )
    return {run_id: _kill(*row) for run_id, *row in rows}


def hit(connection: sqlite3.Connection, scope: KillScope, name: str) -> Sequence[OpenRun]:
    """Open runs that a kill of this scope and name ends, the oldest first."""
    rows = connection.execute(
        f"SELECT {_RUN} FROM (SELECT ? AS scope, ? AS name) AS kills "  # noqa: S608
        f"JOIN runs ON runs.state = 'open' AND {_HITS} ORDER BY runs.rowid",
        (scope.value, escape(name)),
    )
    return [_run(*row) for row in rows]


def set_kill(connection: sqlite3.Connection, kill: Kill) -> None:
    """Let it hold, in the place of one of the same scope and name."""
    connection.execute(
        "INSERT OR REPLACE INTO kills VALUES (?, ?, ?, ?, ?)",
        (kill.scope.value, escape(kill.name), escape(kill.by), escape(kill.reason), kill.since_s),
    )


def lift(connection: sqlite3.Connection, scope: KillScope, name: str) -> bool:
    """Let it hold no more; False: there is none."""
    found = connection.execute(
        "DELETE FROM kills WHERE scope = ? AND name = ?", (scope.value, escape(name))
    )
    return found.rowcount > 0


def _kill(scope: object, name: object, by: object, reason: object, since_s: object) -> Kill:
    try:
        if not (isinstance(name, str) and isinstance(by, str) and isinstance(reason, str)):
            raise TypeError(name)
        if not isinstance(since_s, float):
            raise TypeError(since_s)
        return Kill(KillScope(str(scope)), unescape(name), unescape(by), unescape(reason), since_s)
    except (TypeError, ValueError):
        raise RecordError(
            "the kill switch's table is damaged; `runner audit verify` tells whether the log is, "
            "`runner audit repair` makes the table anew"
        ) from None


def _run(  # noqa: PLR0917  (a row)
    run_id: str,
    profile: str,
    backend: str,
    opened: str,
    agent: str,
    parent: str | None,
    session: str | None,
    tenant: str | None,
    uid: int,
) -> OpenRun:
    who = Principal(
        uid=uid,
        agent=unescape(agent),
        parent=None if parent is None else unescape(parent),
        session=None if session is None else unescape(session),
        tenant=None if tenant is None else unescape(tenant),
    )
    return OpenRun(run_id, who, unescape(profile), unescape(backend), opened)
