"""What an error says of a log's database: that it is damaged, or that it can't be used now.

Told in one place, because opening, reading, verifying and repairing must be of one mind: what is
damaged is repaired, and what can't be used now is left as it is.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

REPAIR = "`runner audit repair` recovers what can be proved"

ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What using a database raises. The second: Python can't decode SQLite's message where that quotes
a damaged schema.
"""

# Primary result codes (https://sqlite.org/rescode.html) and what they mean to people.
_UNUSABLE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it is read-only; make it writable",
    sqlite3.SQLITE_BUSY: "another process holds it; end that one or try again",
    sqlite3.SQLITE_LOCKED: "it is in use; try again",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; look at the folder and its mode",
    sqlite3.SQLITE_PERM: "access to it is denied; look at the folder and its mode",
    sqlite3.SQLITE_IOERR: "reading or writing failed: a failing disk, a quota or a limit on files",
}
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT: f"it is damaged; {REPAIR}",
    sqlite3.SQLITE_NOTADB: f"it is no database, or damaged; {REPAIR}",
    # Statements are ours and fit the schema, so tables that contradict them are damaged.
    sqlite3.SQLITE_ERROR: f"it lacks what a log has, so it is damaged; {REPAIR}",
    sqlite3.SQLITE_CONSTRAINT: f"its tables contradict each other, so it is damaged; {REPAIR}",
    sqlite3.SQLITE_MISMATCH: f"it holds what a log does not, so it is damaged; {REPAIR}",
    sqlite3.SQLITE_TOOBIG: f"it holds what is longer than can be, so it is damaged; {REPAIR}",
}
_NO_TEXT = f"its schema is no text, so it is damaged; {REPAIR}"


def is_damage(error: BaseException) -> bool:
    """Whether it is the database's own fault.

    Without a code: raised by Python, which was given what no column of ours holds.
    """
    if isinstance(error, sqlite3.Error):
        code = primary_code(error)
        return code is None or code in _DAMAGED
    return isinstance(error, UnicodeDecodeError)


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; None for an error that Python raised itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def sentence(path: Path, error: BaseException) -> str:
    """What went wrong with the file at `path`, and what to do, as one clause."""
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: {_NO_TEXT}"
    if isinstance(error, sqlite3.Error):
        code = primary_code(error)
        meaning = None if code is None else _UNUSABLE.get(code) or _DAMAGED.get(code)
        return f"{path}: {meaning} ({error})" if meaning else f"{path}: {error}"
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror}; mend that and try again"
    return f"{path}: {error}"
