"""A checkpoint as the log keeps it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """The newest checkpoint of a log."""

    size: int
    time: str
    note: str


def newest(connection: sqlite3.Connection) -> StoredCheckpoint | None:
    """The checkpoint over the most events; None: there is none."""
    row = connection.execute(
        "SELECT size, time, note FROM checkpoints ORDER BY size DESC LIMIT 1"
    ).fetchone()
    return None if row is None else StoredCheckpoint(*row)
