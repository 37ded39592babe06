"""The ledger's tables: counters of budgets and what open runs hold, on an open connection.

What is read is held to be damaged unless it is what was written. sqlite3.Error passes through.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from runner.audit.canonical import escape, unescape
from runner.errors import RecordError
from runner.metering import windows
from runner.model.budget import Account, Bucket, Override, Resource, Window

_DAMAGED = "the ledger is damaged: it has {} where an amount belongs; restore a copy of it"
_ACCOUNT = "budget = ? AND scope = ? AND resource = ?"


def _key(account: Account) -> tuple[str, str, str]:
    # Names of files may hold bytes that are not UTF-8.
    return escape(account.budget), escape(account.scope), account.resource.value


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise RecordError(_DAMAGED.format(repr(value)[:60]))
    return value


def spent(connection: sqlite3.Connection, account: Account, since: Bucket) -> int:
    """What was charged in this bucket and later ones of its level."""
    (found,) = connection.execute(
        f"SELECT coalesce(sum(amount), 0) FROM budget_use WHERE {_ACCOUNT} "  # noqa: S608
        "AND level = ? AND number >= ?",
        (*_key(account), since.level, since.number),
    ).fetchone()
    return _whole(found)


def held(connection: sqlite3.Connection, account: Account) -> int:
    """What open runs hold."""
    (found,) = connection.execute(
        f"SELECT coalesce(sum(amount), 0) FROM budget_holds WHERE {_ACCOUNT}",  # noqa: S608
        _key(account),
    ).fetchone()
    return _whole(found)


def buckets(
    connection: sqlite3.Connection, account: Account, since: Bucket
) -> Sequence[tuple[int, int]]:
    """Numbers and amounts of this bucket and later ones of its level, oldest first."""
    rows = connection.execute(
        f"SELECT number, amount FROM budget_use WHERE {_ACCOUNT} "  # noqa: S608
        "AND level = ? AND number >= ? ORDER BY number",
        (*_key(account), since.level, since.number),
    )
    return [(_whole(number), _whole(amount)) for number, amount in rows]


def warned_s(connection: sqlite3.Connection, account: Account, percent: int) -> float | None:
    """When it was last warned that so much is used."""
    row = connection.execute(
        f"SELECT at_s FROM budget_warned WHERE {_ACCOUNT} AND percent = ?",  # noqa: S608
        (*_key(account), percent),
    ).fetchone()
    return None if row is None else float(row[0])


def override(connection: sqlite3.Connection, account: Account, now_s: float) -> Override | None:
    """What somebody set that holds now."""
    row = connection.execute(
        f"SELECT amount, until_s FROM budget_overrides WHERE {_ACCOUNT} AND until_s > ?",  # noqa: S608
        (*_key(account), now_s),
    ).fetchone()
    return None if row is None else Override(_whole(row[0]), float(row[1]))


def set_override(
    connection: sqlite3.Connection, account: Account, override: Override | None
) -> None:
    """Let it hold, or nothing but what is stated."""
    connection.execute(f"DELETE FROM budget_overrides WHERE {_ACCOUNT}", _key(account))  # noqa: S608
    if override is not None:
        connection.execute(
            "INSERT INTO budget_overrides VALUES (?, ?, ?, ?, ?)",
            (*_key(account), override.amount, override.until_s),
        )


def accounts(connection: sqlite3.Connection) -> Sequence[Account]:
    """All that there are, sorted."""
    rows = connection.execute(
        "SELECT DISTINCT budget, scope, resource FROM budget_use "
        "UNION SELECT budget, scope, resource FROM budget_holds "
        "UNION SELECT budget, scope, resource FROM budget_overrides ORDER BY 1, 2, 3"
    )
    return [
        Account(unescape(budget), unescape(scope), _resource(resource))
        for budget, scope, resource in rows
    ]


def charge(
    connection: sqlite3.Connection, account: Account, into: Sequence[Bucket], amount: int
) -> None:
    """Add to each of these buckets. RecordError: less than nothing."""
    if amount < 0:
        raise RecordError(f"{amount} can't be charged to the budget {account.budget!r}")
    if amount == 0:
        return
    connection.executemany(
        "INSERT INTO budget_use VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
        [(*_key(account), bucket.level, bucket.number, amount) for bucket in into],
    )


def note(connection: sqlite3.Connection, run_id: str, account: Account, amount: int) -> None:
    """Remember until a run is closed that it was charged so much more."""
    if amount > 0:
        connection.execute(
            "INSERT INTO budget_charged VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            (run_id, *_key(account), amount),
        )


def hold(
    connection: sqlite3.Connection,
    run_id: str,
    account: Account,
    window: Window | None,
    amount: int,
) -> None:
    """Set what a run holds. RecordError: the run is not open."""
    if amount <= 0:
        connection.execute(
            f"DELETE FROM budget_holds WHERE {_ACCOUNT} AND run_id = ?",  # noqa: S608
            (*_key(account), run_id),
        )
        return
    row = connection.execute(
        "SELECT 1 FROM runs WHERE run_id = ? AND state = 'open'", (run_id,)
    ).fetchone()
    if row is None:
        raise RecordError(f"no run {run_id!r} is open that could hold a part of a budget")
    connection.execute(
        "INSERT INTO budget_holds VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
        "SET span = excluded.span, amount = excluded.amount",
        (*_key(account), run_id, windows.encoded(window), amount),
    )


def warned(connection: sqlite3.Connection, account: Account, percent: int, now_s: float) -> None:
    """Note that it was warned."""
    connection.execute(
        "INSERT INTO budget_warned VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET at_s = excluded.at_s",
        (*_key(account), percent, now_s),
    )


def forget(connection: sqlite3.Connection, account: Account) -> None:
    """Drop what its windows count, and that it was warned."""
    connection.execute(
        f"DELETE FROM budget_use WHERE {_ACCOUNT} AND level >= 0",  # noqa: S608
        _key(account),
    )
    connection.execute(f"DELETE FROM budget_warned WHERE {_ACCOUNT}", _key(account))  # noqa: S608


def forget_outdated(connection: sqlite3.Connection, now_s: float) -> int:
    """Drop what nothing counts any more; how many counters."""
    dropped = sum(
        connection.execute(
            "DELETE FROM budget_use WHERE level = ? AND number < ?", (first.level, first.number)
        ).rowcount
        for first in windows.outdated(now_s)
    )
    oldest_s = now_s - windows.KEPT_S
    connection.execute("DELETE FROM budget_warned WHERE at_s < ?", (oldest_s,))
    connection.execute("DELETE FROM budget_overrides WHERE until_s <= ?", (now_s,))
    return dropped


def settle_whole(
    connection: sqlite3.Connection, run_id: str, now_s: float
) -> list[tuple[Account, int]]:
    """Charge all that a run still holds, and let go of it.

    What it was charged in all of what flows, or is held, of what has a window.
    """
    before = connection.execute(
        "SELECT budget, scope, resource, amount FROM budget_charged WHERE run_id = ?", (run_id,)
    ).fetchall()
    charged = {
        Account(unescape(budget), unescape(scope), _resource(resource)): _whole(amount)
        for budget, scope, resource, amount in before
    }
    rows = connection.execute(
        "SELECT budget, scope, resource, span, amount FROM budget_holds WHERE run_id = ?",
        (run_id,),
    ).fetchall()
    for budget, scope, resource, span, amount in rows:
        account = Account(unescape(budget), unescape(scope), _resource(resource))
        window = _window(span)
        if window is not None:
            at = (windows.place(window, now_s), windows.history(now_s))
            charge(connection, account, at, _whole(amount))
            charged[account] = charged.get(account, 0) + _whole(amount)
    if rows:
        connection.execute("DELETE FROM budget_holds WHERE run_id = ?", (run_id,))
    if before:
        connection.execute("DELETE FROM budget_charged WHERE run_id = ?", (run_id,))
    return sorted(charged.items(), key=lambda each: _key(each[0]))


def _resource(value: object) -> Resource:
    try:
        return Resource(str(value))
    except ValueError:
        raise RecordError(_DAMAGED.format(repr(value)[:60])) from None


def _window(span: object) -> Window | None:
    try:
        if not isinstance(span, str):
            raise ValueError(span)
        window = windows.decoded(span)
    except ValueError:
        raise RecordError(_DAMAGED.format(repr(span)[:60])) from None
    return window
