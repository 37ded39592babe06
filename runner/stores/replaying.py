"""The ledger once more, from the events: what runs there were, and what they cost.

For a log that is built of events (`building.py`), whose ledger nobody has to believe.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from runner.audit.canonical import canonical_again, unescape
from runner.metering import microseconds
from runner.model.event import EventKind
from runner.model.principal import Principal
from runner.stores.transaction import charge

NOBODY = "replayed"
"""Who holds a run that has not ended: no supervisor that lives, so recovery closes it."""

_ENDS = frozenset({EventKind.RUN_ENDED.value, EventKind.RUN_RECOVERED.value})


class Replay:
    """Charges a new database's ledger with events, in order."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.left_out = 0
        """Events whose part in the ledger could not be read."""

    def add(self, body: bytes) -> None:
        """An event's bytes, verified. sqlite3.Error: the database can't be written."""
        event = json.loads(body)
        try:
            if event["kind"] == EventKind.RUN_DECIDED:
                self._begin(event)
            elif event["kind"] in _ENDS:
                self._end(event)
        except (KeyError, TypeError, ValueError, sqlite3.IntegrityError):
            self.left_out += 1

    def _begin(self, event: Mapping[str, Any]) -> None:
        who, data = event["principal"], event["data"]
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            (
                event["run"],
                NOBODY,
                *(who[name] for name in ("agent", "parent", "session", "tenant", "uid")),
                data["profile"],
                data["backend"],
                event["time"],
            ),
        )
        charge(self._connection, _principal(who), calls=1, wall_us=0)

    def _end(self, event: Mapping[str, Any]) -> None:
        usage = event["data"].get("usage")
        wall_us = microseconds(usage["wall_s"]) if usage else 0
        changed = self._connection.execute(
            "UPDATE runs SET state = 'closed', closed = ?, usage = ? "
            "WHERE run_id = ? AND state = 'open' RETURNING agent, parent, uid",
            (event["time"], canonical_again(usage).decode() if usage else None, event["run"]),
        ).fetchone()
        if changed is not None:
            agent, parent, uid = changed
            who = {"agent": agent, "parent": parent, "uid": uid}
            charge(self._connection, _principal(who), calls=0, wall_us=wall_us)


def _principal(who: Mapping[str, Any]) -> Principal:
    parent = who["parent"]
    return Principal(
        uid=who["uid"],
        agent=unescape(who["agent"]),
        parent=None if parent is None else unescape(parent),
    )
