"""What a stored log is held against: its own checkpoints and keys, and what the reader brings."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from runner.audit.keychain import NamedKey
from runner.audit.vouching import StoredNote, Vouching
from runner.errors import RequestError


@dataclass(frozen=True, slots=True)
class Against:
    """What a reader knows from elsewhere."""

    kept: tuple[StoredNote, ...] = ()
    """Checkpoints that somebody kept, in the order of their sizes."""
    trusted: str | None = None
    """The vkey of a key that is, or was, the log's."""
    since: int = 0
    """A checkpoint over so many events vouches for them: only their leaf hashes are read."""
    witnesses: tuple[str, ...] = ()
    """The vkeys of witnesses, each of whom must have cosigned one of the kept checkpoints."""


NOTHING = Against()


def stored_vouching(connection: sqlite3.Connection, against: Against, archived: int) -> Vouching:
    """For `verify`; `archived`: so many events are not read. sqlite3.Error: damaged, or unreadable.

    RequestError: there is no checkpoint over `against.since` events.
    """
    if not has_checkpoints(connection):
        _check_since(against, found=False)
        return Vouching(
            (),
            against.kept,
            trusted=against.trusted,
            named=(),
            archived=archived,
            witnesses=against.witnesses,
        )
    found = connection.execute(
        "SELECT 1 FROM checkpoints WHERE size = ?", (against.since,)
    ).fetchone()
    _check_since(against, found=found is not None)
    named = keys_named(connection)
    return Vouching(
        _notes(connection),
        against.kept,
        trusted=against.trusted,
        named=named,
        archived=archived,
        witnesses=against.witnesses,
    )


def keys_named(connection: sqlite3.Connection) -> list[NamedKey]:
    """The keys of the log, in order, as its table has them."""
    if not has_checkpoints(connection):
        return []
    rows = connection.execute("SELECT seq, vkey FROM log_keys ORDER BY seq")
    return [NamedKey(seq, str(vkey)) for seq, vkey in rows]


def listed(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """The stored checkpoints: over how many events, and when each was made."""
    if not has_checkpoints(connection):
        return []
    return connection.execute("SELECT size, time FROM checkpoints ORDER BY size").fetchall()


def covering(connection: sqlite3.Connection, size: int) -> str | None:
    """The note of the first checkpoint over at least so many events; None: there is none yet."""
    if not has_checkpoints(connection):
        return None
    row = connection.execute(
        "SELECT note FROM checkpoints WHERE size >= ? ORDER BY size LIMIT 1", (size,)
    ).fetchone()
    return row[0] if row is not None and isinstance(row[0], str) else None


def newest(connection: sqlite3.Connection) -> str | None:
    """The note of the last checkpoint; None: there is none yet."""
    if not has_checkpoints(connection):
        return None
    row = connection.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    return row[0] if row is not None and isinstance(row[0], str) else None


def over(connection: sqlite3.Connection, size: int) -> str | None:
    """The note of the checkpoint over exactly so many events; None: there is none."""
    if not has_checkpoints(connection):
        return None
    row = connection.execute("SELECT note FROM checkpoints WHERE size = ?", (size,)).fetchone()
    return row[0] if row is not None and isinstance(row[0], str) else None


def has_checkpoints(connection: sqlite3.Connection) -> bool:
    """Whether there are their tables: a log that is only read may be older than checkpoints."""
    found = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name IN ('checkpoints', 'log_keys')"
    ).fetchone()
    return bool(found == (2,))


def _notes(connection: sqlite3.Connection) -> Iterator[StoredNote]:
    for size, note in connection.execute("SELECT size, note FROM checkpoints ORDER BY size"):
        yield StoredNote(size, note)


def _check_since(against: Against, *, found: bool) -> None:
    if against.since and not found and all(each.size != against.since for each in against.kept):
        raise RequestError(
            f"there is no checkpoint over {against.since} events, so nothing vouches for them; "
            "`runner audit checkpoint --list` shows those that there are"
        )
