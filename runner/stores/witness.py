"""A witness's memory: the last checkpoint of each log that it cosigned, and its own key.

It stands in a folder of its own in the state folder: `witness.db`, an SQLite database with a
rollback journal and `synchronous=EXTRA`, so that what was cosigned is on the disk before anybody
has the cosignature; and `keys/`. Checking and remembering is one transaction, which locks out all
others: so two requests at once can't both follow the same checkpoint.

Who restores an old copy of it makes the witness cosign again what does not follow. Whoever loses
`witness.db` alone is refused: removing `keys/` too makes another witness, by another key.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from runner.audit.checkpoint import Checkpoint, parse_checkpoint
from runner.audit.cosignature import cosigned, cosigner_vkey
from runner.audit.note import NoteError, Signer
from runner.audit.witnessing import WitnessRequest, check_request
from runner.errors import StateError
from runner.ports import Clock
from runner.stores.damage import ERRORS, sentence
from runner.stores.database import connect, roll_back
from runner.stores.home import fsync_folder, prepare_home
from runner.stores.keys import KeyFolder, KeyOwner

FOLDER_NAME, FILE_NAME = "witness", "witness.db"
_VERSION = 1
_TABLES = (
    "CREATE TABLE signer (id INTEGER PRIMARY KEY CHECK (id = 0), vkey TEXT NOT NULL)",
    # What was cosigned, as it was: size and root are read from it.
    "CREATE TABLE seen (origin TEXT PRIMARY KEY, note TEXT NOT NULL)",
    f"PRAGMA user_version = {_VERSION}",
)
_OWNER = KeyOwner(
    "the witness",
    lost="nothing is cosigned without it; put it back from a copy, or move the whole folder "
    "`witness` away for a witness of a new name and key",
    exposed="move the whole folder `witness` away for a witness of a new name and key",
)


class Witness:
    """The witness of a state folder; any number of processes may use it at once."""

    def __init__(self, home: Path, clock: Clock) -> None:
        """`home`: the state folder. StateError: it can't be used."""
        self._folder = prepare_home(home) / FOLDER_NAME
        self._path = self._folder / FILE_NAME
        self._keys = KeyFolder(self._folder, _OWNER)
        self._clock = clock

    def vkey(self) -> str:
        """Its public key (C2SP vkey of type 0x04); made now if there is none.

        SigningKeyError, StateError: it can't be used.
        """
        with self._transaction() as connection:
            return cosigner_vkey(self._signer(connection))

    def cosign(self, request: WitnessRequest, vkey: str) -> str:
        """The note with a cosignature, once it is remembered durably.

        `vkey`: the log's key. RefusedError: it must not be cosigned. SigningKeyError, StateError.
        """
        with self._transaction() as connection:
            origin = parse_checkpoint(request.note).origin
            check_request(request, vkey, self._seen(connection, origin))
            try:
                note = cosigned(request.note, self._signer(connection), int(self._clock.now()))
            except NoteError as error:
                raise StateError(f"nothing can be cosigned: {error}; set the clock") from None
            connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (origin, note))
        return note

    def _seen(self, connection: sqlite3.Connection, origin: str) -> Checkpoint | None:
        row = connection.execute("SELECT note FROM seen WHERE origin = ?", (origin,)).fetchone()
        if row is None:
            return None
        try:
            found = parse_checkpoint(row[0])
            if found.origin == origin:
                return found
        except (ValueError, TypeError):
            pass
        raise self._damaged("what was cosigned can't be read")

    def _signer(self, connection: sqlite3.Connection) -> Signer:
        row = connection.execute("SELECT vkey FROM signer").fetchone()
        if row is not None:
            return self._keys.signer(str(row[0]))
        vkey = self._keys.make(f"runner.witness/{secrets.token_hex(16)}")
        connection.execute("INSERT INTO signer VALUES (0, ?)", (vkey,))
        return self._keys.signer(vkey)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Nobody else reads or writes meanwhile; it is durable behind the block."""
        try:
            self._make_folder()
            with closing(connect(self._path, "rwc")) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("BEGIN EXCLUSIVE")
                try:
                    self._prepare(connection)
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    roll_back(connection)
        except (*ERRORS, OSError) as error:
            raise StateError(
                f"the witness's memory can't be used: {sentence(self._path, error)}"
            ) from error

    def _make_folder(self) -> None:
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fsync_folder(self._folder.parent)
        if self._folder.is_symlink():
            raise self._damaged("its folder is a symbolic link")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == _VERSION:
            return
        if version > _VERSION:
            raise StateError(f"{self._path} was written by a newer runner: upgrade runner")
        # A key is made only where there are tables: one without them has lost its memory.
        if any(self._keys.path.glob("*.key")):
            raise self._damaged("it is empty, and yet the witness has a key")
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("BEGIN EXCLUSIVE")

    def _damaged(self, why: str) -> StateError:
        return StateError(
            f"the witness's memory {self._path} is damaged: {why}; put back the newest copy, or "
            f"move {self._folder} away for a witness of a new name and key"
        )
