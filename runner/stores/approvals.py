"""The table of questions and answers, on an open connection.

What is read is held to be damaged unless it is what was written. sqlite3.Error passes through.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence

from runner.audit.canonical import escape, unescape
from runner.errors import RecordError
from runner.model.approval import Answer, Approval, ApprovalState
from runner.model.principal import Principal

_COLUMNS = (
    "id, digest, agent, parent, session, tenant, uid, profile, directory, program, reason, rules, "
    "approvers, asked_s, expires_s, state, answered_by, answer_reason, answered_s, run_id"
)
_PLACES = ", ".join("?" * len(_COLUMNS.split(", ")))


def approvals(connection: sqlite3.Connection, since_s: float = 0.0) -> Sequence[Approval]:
    """Those that expire then or later, the oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE expires_s >= ? ORDER BY asked_s, id",  # noqa: S608
        (since_s,),
    )
    return [_approval(*row) for row in rows]


def approval(connection: sqlite3.Connection, identity: str) -> Approval | None:
    """By its id."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE id = ?",  # noqa: S608
        (identity,),
    ).fetchone()
    return None if row is None else _approval(*row)


def latest(connection: sqlite3.Connection, digest: str, now_s: float) -> Approval | None:
    """The one that was asked last about this very thing.

    Up to that time: where a clock was set back, one of the future must not hide those of now.
    """
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE digest = ? AND asked_s <= ? "  # noqa: S608
        "ORDER BY asked_s DESC, id DESC LIMIT 1",
        (digest, now_s),
    ).fetchone()
    return None if row is None else _approval(*row)


def open_of(connection: sqlite3.Connection, who: Principal, now_s: float) -> int:
    """How many questions of this agent, tenant and user wait for an answer."""
    tenant = None if who.tenant is None else escape(who.tenant)
    (count,) = connection.execute(
        "SELECT count(*) FROM approvals WHERE agent = ? AND tenant IS ? AND uid = ? "
        "AND state = ? AND expires_s > ?",
        (escape(who.agent), tenant, who.uid, ApprovalState.ASKED.value, now_s),
    ).fetchone()
    return int(count)


def keep(connection: sqlite3.Connection, approval: Approval) -> None:
    """Write it, in the place of what stood there under its id."""
    p, answer = approval.principal, approval.answer
    connection.execute(
        f"INSERT OR REPLACE INTO approvals ({_COLUMNS}) VALUES ({_PLACES})",  # noqa: S608
        (
            approval.id,
            approval.digest,
            escape(p.agent),
            *(None if name is None else escape(name) for name in (p.parent, p.session, p.tenant)),
            p.uid,
            *map(escape, (approval.profile, approval.directory, approval.program)),
            escape(approval.reason),
            json.dumps([escape(rule) for rule in approval.rules]),
            json.dumps([[escape(glob) for glob in group] for group in approval.approvers]),
            approval.asked_s,
            approval.expires_s,
            approval.state.value,
            None if answer is None else escape(answer.by),
            None if answer is None else escape(answer.reason),
            None if answer is None else answer.at_s,
            approval.run_id,
        ),
    )


def forget(connection: sqlite3.Connection, before_s: float) -> int:
    """Drop those that expired before that; how many. The log's events stay."""
    return connection.execute("DELETE FROM approvals WHERE expires_s < ?", (before_s,)).rowcount


def _approval(*row: object) -> Approval:
    try:
        (
            identity, digest, agent, parent, session, tenant, uid, profile, directory, program,
            reason, rules, approvers, asked_s, expires_s, state, by, why, answered_s, run_id,
        ) = row  # fmt: skip
        if type(uid) is not int:
            raise TypeError(uid)
        return Approval(
            id=_text(identity),
            digest=_text(digest),
            principal=Principal(
                uid=uid,
                agent=_text(agent),
                parent=_maybe(parent),
                session=_maybe(session),
                tenant=_maybe(tenant),
            ),
            profile=_text(profile),
            directory=_text(directory),
            program=_text(program),
            reason=_text(reason),
            rules=tuple(_text(rule) for rule in json.loads(_text(rules))),
            approvers=tuple(
                tuple(_text(glob) for glob in group) for group in json.loads(_text(approvers))
            ),
            asked_s=_number(asked_s),
            expires_s=_number(expires_s),
            state=ApprovalState(_text(state)),
            answer=None if by is None else Answer(_text(by), _text(why), _number(answered_s)),
            run_id=_maybe(run_id),
        )
    except (TypeError, ValueError, RecursionError):
        raise RecordError(
            "the table of approvals is damaged; `runner audit verify` tells whether the log is, "
            "`runner audit repair` makes the table anew"
        ) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return unescape(value)


def _maybe(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(value)
    return float(value)  # type: ignore[arg-type]
