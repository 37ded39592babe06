"""The database file: how it is opened, its tables, how they migrate."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote_from_bytes

from runner.audit.beginning import WHOLE, Beginning, beginning_of
from runner.errors import StateError
from runner.stores import wal
from runner.stores.damage import ERRORS, REPAIR

FILE_NAME = "runner.db"
PENDING_NAME = "repair.pending"
"""Exists while a repaired log is put in place of a damaged one (`placing.py`)."""

BUSY_TIMEOUT_S = 15.0
"""Longest wait for another process; measured waits under load of 32 writers stay under 1 s."""

_PAGE_BYTES = 512  # SQLite's smallest; less is no database (fileformat2, 1.3.2)
_WAL_KEPT_BYTES = 32 * 1024 * 1024  # a long reader lets the WAL grow; this much is kept after

# One entry a schema version, never changed once shipped; `PRAGMA user_version` counts them.
# `events` holds what its bytes (`body`) say once more in columns, for queries; `audit.verify`
# compares them. `tree` is one row: the RFC 9162 tree's size and peaks.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY,
            time TEXT NOT NULL,
            kind TEXT NOT NULL,
            run_id TEXT,
            agent TEXT,
            leaf_hash BLOB NOT NULL,
            previous BLOB NOT NULL,
            body BLOB NOT NULL
        )""",
        "CREATE INDEX events_of_run ON events (run_id) WHERE run_id IS NOT NULL",
        # Against mistakes, not against attackers: those the hashes find.
        """CREATE TRIGGER events_stay BEFORE UPDATE ON events
            BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
        """CREATE TRIGGER events_are_kept BEFORE DELETE ON events
            BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
        """CREATE TABLE tree (
            id INTEGER PRIMARY KEY CHECK (id = 0),
            size INTEGER NOT NULL,
            peaks BLOB NOT NULL
        )""",
        "INSERT INTO tree VALUES (0, 0, x'')",
        """CREATE TABLE runs (
            run_id TEXT PRIMARY KEY,
            supervisor TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('open', 'closed')),
            agent TEXT NOT NULL,
            parent TEXT,
            session TEXT,
            tenant TEXT,
            uid INTEGER NOT NULL,
            profile TEXT NOT NULL,
            backend TEXT NOT NULL,
            opened TEXT NOT NULL,
            closed TEXT,
            usage TEXT
        )""",
        "CREATE INDEX runs_open ON runs (supervisor) WHERE state = 'open'",
        """CREATE TABLE totals (
            scope TEXT NOT NULL,
            key TEXT NOT NULL,
            calls INTEGER NOT NULL,
            wall_us INTEGER NOT NULL,
            PRIMARY KEY (scope, key)
        ) WITHOUT ROWID""",
    ),
    (
        # For `runs_since`: rules count a principal's runs within a window.
        "CREATE INDEX runs_opened ON runs (opened)",
        "CREATE INDEX runs_of_agent ON runs (agent, opened)",
        "CREATE INDEX runs_of_parent ON runs (parent, opened) WHERE parent IS NOT NULL",
        "CREATE INDEX runs_of_session ON runs (session, opened) WHERE session IS NOT NULL",
        "CREATE INDEX runs_of_tenant ON runs (tenant, opened) WHERE tenant IS NOT NULL",
        "CREATE INDEX runs_of_uid ON runs (uid, opened)",
    ),
    (
        # A row for each range of events that was archived and removed: those from `start` up to
        # `size`. The one with the largest `size` is where the log begins (`audit.beginning`).
        """CREATE TABLE pruned (
            size INTEGER PRIMARY KEY CHECK (size > start),
            start INTEGER NOT NULL,
            peaks BLOB NOT NULL,
            last_hash BLOB NOT NULL,
            log_id TEXT NOT NULL,
            file TEXT NOT NULL,
            sha256 BLOB NOT NULL
        )""",
        "DROP TRIGGER events_are_kept",
        """CREATE TRIGGER events_are_kept BEFORE DELETE ON events
            WHEN OLD.seq >= (SELECT coalesce(max(size), 0) FROM pruned)
            BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    ),
    (
        # `log_keys` says which key signs; verification compares it with the events that name them.
        "CREATE TABLE log_keys (seq INTEGER PRIMARY KEY, vkey TEXT NOT NULL)",
        """CREATE TABLE checkpoints (
            size INTEGER PRIMARY KEY,
            time TEXT NOT NULL,
            note TEXT NOT NULL
        )""",
        """CREATE TRIGGER checkpoints_stay BEFORE UPDATE ON checkpoints
            BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
        """CREATE TRIGGER checkpoints_are_kept BEFORE DELETE ON checkpoints
            BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
        # A row while checkpoints can't be signed; a row for each place that they are sent to.
        """CREATE TABLE signing_trouble (
            id INTEGER PRIMARY KEY CHECK (id = 0),
            since TEXT NOT NULL,
            why TEXT NOT NULL
        )""",
        """CREATE TABLE destinations (
            id TEXT PRIMARY KEY,
            size INTEGER NOT NULL,
            since TEXT,
            why TEXT
        ) WITHOUT ROWID""",
    ),
    (
        # Counters of budgets (`metering.windows`), and what open runs hold of them.
        """CREATE TABLE budget_use (
            budget TEXT NOT NULL,
            scope TEXT NOT NULL,
            resource TEXT NOT NULL,
            level INTEGER NOT NULL,
            number INTEGER NOT NULL,
            amount INTEGER NOT NULL CHECK (amount >= 0),
            PRIMARY KEY (budget, scope, resource, level, number)
        ) WITHOUT ROWID""",
        """CREATE TABLE budget_holds (
            budget TEXT NOT NULL,
            scope TEXT NOT NULL,
            resource TEXT NOT NULL,
            run_id TEXT NOT NULL,
            span TEXT NOT NULL,
            amount INTEGER NOT NULL CHECK (amount > 0),
            PRIMARY KEY (budget, scope, resource, run_id)
        ) WITHOUT ROWID""",
        "CREATE INDEX budget_holds_of_run ON budget_holds (run_id)",
        """CREATE TABLE budget_warned (
            budget TEXT NOT NULL,
            scope TEXT NOT NULL,
            resource TEXT NOT NULL,
            percent INTEGER NOT NULL,
            at_s REAL NOT NULL,
            PRIMARY KEY (budget, scope, resource, percent)
        ) WITHOUT ROWID""",
    ),
    (
        # What holds for a time in the place of the amounts that budgets state.
        """CREATE TABLE budget_overrides (
            budget TEXT NOT NULL,
            scope TEXT NOT NULL,
            resource TEXT NOT NULL,
            amount INTEGER NOT NULL CHECK (amount >= 0),
            until_s REAL NOT NULL,
            PRIMARY KEY (budget, scope, resource)
        ) WITHOUT ROWID""",
    ),
    (
        # The loop guard: what tries of commands came to.
        """CREATE TABLE loops (
            id TEXT PRIMARY KEY,
            whose TEXT NOT NULL,
            uid INTEGER NOT NULL,
            sign TEXT NOT NULL,
            times TEXT NOT NULL,
            pauses INTEGER NOT NULL,
            began_s REAL NOT NULL,
            until_s REAL NOT NULL,
            forgotten_s REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX loops_of ON loops (whose, uid, forgotten_s)",
        "CREATE INDEX loops_by_end ON loops (forgotten_s)",
    ),
    (
        # The kill switch: what was ended, and may begin no more.
        """CREATE TABLE kills (
            scope TEXT NOT NULL,
            name TEXT NOT NULL,
            by TEXT NOT NULL,
            reason TEXT NOT NULL,
            since_s REAL NOT NULL,
            PRIMARY KEY (scope, name)
        ) WITHOUT ROWID""",
    ),
    (
        # Approvals: what rules asked about, and the answers.
        """CREATE TABLE approvals (
            id TEXT PRIMARY KEY,
            digest TEXT NOT NULL,
            agent TEXT NOT NULL,
            parent TEXT,
            session TEXT,
            tenant TEXT,
            uid INTEGER NOT NULL,
            profile TEXT NOT NULL,
            directory TEXT NOT NULL,
            program TEXT NOT NULL,
            reason TEXT NOT NULL,
            rules TEXT NOT NULL,
            approvers TEXT NOT NULL,
            asked_s REAL NOT NULL,
            expires_s REAL NOT NULL,
            state TEXT NOT NULL,
            answered_by TEXT,
            answer_reason TEXT,
            answered_s REAL,
            run_id TEXT
        ) WITHOUT ROWID""",
        "CREATE INDEX approvals_of ON approvals (digest, asked_s)",
        "CREATE INDEX approvals_by_end ON approvals (expires_s)",
    ),
    (
        # Keys of the API, as digests. `changed` is the number of the event that says how a row is.
        """CREATE TABLE api_keys (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            digest BLOB NOT NULL CHECK (length(digest) = 32),
            scope TEXT NOT NULL,
            created_s REAL NOT NULL,
            expires_s REAL NOT NULL,
            revoked_s REAL,
            changed INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX api_keys_named ON api_keys (name) WHERE revoked_s IS NULL",
        "CREATE INDEX api_keys_changed ON api_keys (changed)",
    ),
    (
        """CREATE TABLE budget_charged (
            run_id TEXT NOT NULL,
            budget TEXT NOT NULL,
            scope TEXT NOT NULL,
            resource TEXT NOT NULL,
            amount INTEGER NOT NULL CHECK (amount > 0),
            PRIMARY KEY (run_id, budget, scope, resource)
        ) WITHOUT ROWID""",
    ),
)


def connect(path: Path, mode: str, *, damaged: bool = False) -> sqlite3.Connection:
    """Open the file; `mode` is SQLite's URI parameter: `rwc` (made if missing), `rw`,
    `ro`, `ro&immutable=1`.

    Autocommit: transactions are begun by hand. Threads take turns by a lock of the owner's.
    `damaged`: read as far as it goes a file that is shorter than it says.
    """
    connection = sqlite3.connect(
        f"file:{quote_from_bytes(bytes(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_S,
    )
    try:
        if damaged:  # as `.recover` of SQLite's shell does; triggers and views stay untrusted
            connection.execute("PRAGMA writable_schema = ON")
        # Some builds map the file by default: of one that is cut meanwhile, or whose disk fails, a
        # read is then a SIGBUS that ends this process, instead of an error (sqlite.org/mmap.html).
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        if mode.startswith("rw"):
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def check_whole(path: Path) -> None:
    """StateError: the file, or what is known of the state folder, can't be shown to SQLite.

    Of a database without a page SQLite removes the WAL, and with it the last events; and where a
    log was lost, a new one must not begin as if there had been none. A log that is made has all
    of its first event when it gets its name.
    """
    if (path.parent / PENDING_NAME).exists():
        raise StateError(
            f"a repair of {path} was interrupted: run `runner audit repair`, which finishes it"
        )
    size = _size(path)
    if size is None and not _size(path.with_name(f"{path.name}-wal")):
        return
    if size is None or size < _PAGE_BYTES:
        what = "is missing" if size is None else "was cut off"
        raise StateError(f"{path} {what}, and yet there was a log: {REPAIR}")
    log = path.with_name(f"{path.name}-wal")
    if _size(log) and not wal.somebody_reads(path.with_name(f"{path.name}-shm")):
        check_wal(log)
        _check_not_older(path)


def check_wal(path: Path) -> None:
    """StateError: opening the database would lose what this WAL has."""
    if wal.loses_commits(path):
        raise StateError(f"{path} is damaged, and committed events stand behind that: {REPAIR}")


def _check_not_older(path: Path) -> None:
    """StateError: the database has events that its WAL lost, and opening it would lose them too.

    What is in the database was in the WAL before, so a whole WAL never tells of fewer events.
    """
    try:
        alone, together = _events(path, "ro&immutable=1"), _events(path, "ro")
    except ERRORS:
        return  # whoever opens it is told
    if isinstance(alone, int) and isinstance(together, int) and alone > together:
        raise StateError(f"{path}-wal was cut off, and has less than the database: {REPAIR}")


def _events(path: Path, mode: str) -> object:
    """How many events the tree is over; immutable: without the WAL."""
    with closing(connect(path, mode)) as connection:
        row = connection.execute("SELECT size FROM tree").fetchone()
    return None if row is None else row[0]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def remove(path: Path) -> None:
    """A database and the files that SQLite puts beside it."""
    for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        each.unlink(missing_ok=True)


def schema_version(connection: sqlite3.Connection) -> int:
    """How many migrations the file has seen; 0 for a new one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def check_version(version: int, path: Path, known: int = len(MIGRATIONS)) -> None:
    """StateError: the file was written by a later runner than this one."""
    if version > known:
        raise StateError(
            f"{path} was written by a newer runner (schema {version}, this one knows {known}): "
            "upgrade runner"
        )


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    created: Callable[[sqlite3.Connection], None],
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
) -> int:
    """Bring the file to the newest schema; returns the version it had.

    Forward only, each step in a transaction of its own; `created` runs in the first one's, so
    that nobody ever sees a log without its first event. Call it when no other process migrates.
    StateError: newer than known, or somebody else's database. `damage.ERRORS`: see there.
    """
    had = schema_version(connection)
    check_version(had, path, len(migrations))
    if had == 0 and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise StateError(f"{path} is a database but not runner's: move it away")
    if had == 0:
        connection.execute("PRAGMA journal_mode = WAL")
    for version in range(had, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[version]:
                connection.execute(statement)
            if version == 0:
                created(connection)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise
    return had


def has_own_schema(connection: sqlite3.Connection) -> bool:
    """Whether the tables are stated as this program states them for the file's version.

    Who only reads a file does not see each damage of a statement, and who writes can't open it.
    """
    version = schema_version(connection)
    with closing(sqlite3.connect(":memory:")) as fresh:
        for statements in MIGRATIONS[:version]:
            for statement in statements:
                fresh.execute(statement)
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master"
        stated = set(fresh.execute(query))
    return stated <= set(connection.execute(query))


def read_beginning(connection: sqlite3.Connection) -> Beginning:
    """Where the log begins. ValueError: the record of what was removed is damaged."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pruned'").fetchone():
        return WHOLE  # a log that is only read is not migrated
    row = connection.execute(
        "SELECT size, peaks, last_hash FROM pruned ORDER BY size DESC LIMIT 1"
    ).fetchone()
    return WHOLE if row is None else beginning_of(*row)


def roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction, if SQLite has not done so by itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
