"""Checkpoints inside a transaction: when one is due, which key signs it, what stands in for it.

A checkpoint is a signed note over the tree of so many events (`audit.checkpoint`). It is written
in the transaction of the last of them, so there is none of a state that was taken back, and none
twice. The log names the key that signs (`log_keys`, which verification compares with the events).

Where the key can't be used, events are still recorded, since what already happened must not be
lost for want of a signature; that they are not signed is an event itself, and no further run
starts until somebody has mended it. So nothing is unsigned in silence, and nothing runs unsigned.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime

from runner.audit.checkpoint import Checkpoint
from runner.audit.event import rfc3339
from runner.audit.keychain import KEY_KINDS, log_name, rotation_text
from runner.audit.note import Signer, sign
from runner.errors import RecordError
from runner.model.checkpoints import CheckpointRules
from runner.model.event import EventDraft, EventKind
from runner.ports import Clock
from runner.stores.database import roll_back
from runner.stores.keys import KeyFolder, SigningKeyError
from runner.stores.stored_checkpoint import StoredCheckpoint
from runner.stores.transaction import DAMAGED, LogEnd

_NO_KEY = "the log's table of keys is empty: start runner again, which makes it of the events"


def key_in_force(connection: sqlite3.Connection) -> str | None:
    """The vkey that signs now; None: the log has no key yet."""
    row = connection.execute("SELECT vkey FROM log_keys ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def signing_trouble(connection: sqlite3.Connection) -> str | None:
    """Why checkpoints can't be signed, as it was found last; None: they can."""
    row = connection.execute("SELECT why FROM signing_trouble").fetchone()
    return None if row is None else str(row[0])


def named_by_events(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """The keys that the log's events name: number of the event and vkey, in order. Reads all."""
    marks = ", ".join("?" * len(KEY_KINDS))
    rows = connection.execute(
        f"SELECT seq, body FROM events WHERE kind IN ({marks}) ORDER BY seq",  # noqa: S608
        sorted(KEY_KINDS),
    ).fetchall()
    return [(seq, data["key"]) for seq, body in rows if "key" in (data := _data(body))]


def _log_id(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT body FROM events WHERE seq = 0").fetchone()
    if row is not None:
        return str(_data(row[0]).get("log_id"))
    row = connection.execute("SELECT log_id FROM pruned ORDER BY size DESC LIMIT 1").fetchone()
    if row is None:
        raise RecordError(DAMAGED)
    return str(row[0])


def _data(body: object) -> dict[str, str]:
    try:
        if isinstance(body, bytes) and isinstance(data := json.loads(body)["data"], dict):
            return data
    except (ValueError, KeyError, TypeError):
        pass
    raise RecordError(DAMAGED)


def has_begun(connection: sqlite3.Connection) -> bool:
    """Whether the log has a key and a checkpoint; a repaired one has to be given them again."""
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM log_keys) AND EXISTS (SELECT 1 FROM checkpoints)"
    ).fetchone()
    return bool(found[0])


class Checkpointer:
    """Makes the checkpoints of one log; used by who holds the writer's turn."""

    def __init__(self, keys: KeyFolder, rules: CheckpointRules, clock: Clock) -> None:
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._signer: Signer | None = None
        self._tidied = False

    def check_key(self, connection: sqlite3.Connection) -> None:
        """SigningKeyError: a run must not start, because nothing of it would be signed.

        Looks at owner and modes; signing is tried only where it failed before, since what is
        needed for it takes 20 ms to load.
        """
        vkey = key_in_force(connection)
        if vkey is None:  # it was there when the log was opened
            raise SigningKeyError(_NO_KEY)
        self._keys.check(vkey)
        if signing_trouble(connection) is not None:
            self._keys.signer(vkey)

    def before_commit(self, log: LogEnd) -> bool:
        """Make a checkpoint if one is due; whether one was made. RecordError: the log is cut."""
        last = log.newest_checkpoint()
        covered = 0 if last is None else last.size
        if covered > log.tree.size:
            raise RecordError(
                f"the log has {log.tree.size} events, but a checkpoint was made over {covered}: "
                "its end was cut; `runner audit verify` tells where"
            )
        if covered == log.tree.size or not self._is_due(log, last):
            return False
        return self._try(log)

    def open_log(self, connection: sqlite3.Connection) -> None:
        """Give the log its key, if it has none, and its first checkpoint, in a transaction.

        A log names its key in its first event; one that is older than keys, in one of its own.
        SigningKeyError: a key can't be kept.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not has_begun(connection):
                log = LogEnd(connection, None)
                self._begin(log)
                log.store_tree()
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise

    def _begin(self, log: LogEnd) -> None:
        connection = log.connection
        named = named_by_events(connection)
        if not named and key_in_force(connection) is None:
            vkey = self._keys.make(log_name(_log_id(connection)))
            named = [(log.tree.size, vkey)]
            log.append(EventDraft(EventKind.KEY_CREATED, {"key": vkey}), self._clock.now())
        connection.executemany("INSERT OR IGNORE INTO log_keys VALUES (?, ?)", named)
        self._try(log)

    def _try(self, log: LogEnd) -> bool:
        """Make one, or note why that can't be done."""
        try:
            self._make(log)
        except SigningKeyError as error:
            self._note_trouble(log, str(error))
            return False
        log.connection.execute("DELETE FROM signing_trouble")
        return True

    def after_commit(self, connection: sqlite3.Connection) -> None:
        """Remove the keys that others follow; who rotated may have been killed before it did."""
        if self._tidied:
            return
        found = connection.execute("SELECT vkey FROM log_keys ORDER BY seq DESC").fetchall()
        for (former,) in found[1:]:
            self._keys.remove(former)
        self._tidied = True

    def rotate(self, log: LogEnd, *, lost: bool) -> tuple[str, str]:
        """Let another key sign from here on; returns the vkeys of the old one and the new one.

        The old key signs what it still can: a checkpoint, and that the new one follows it. `lost`:
        it can't, and the log says so. SigningKeyError: it can't be used, or the new one not kept.
        """
        old = key_in_force(log.connection)
        if old is None:
            raise SigningKeyError(_NO_KEY)
        signers = [] if lost else [self._keys.signer(old)]
        last = log.newest_checkpoint()
        if not lost and (last is None or last.size < log.tree.size):
            self._make(log)
        new = self._keys.make(old.partition("+")[0])
        signers.append(self._keys.signer(new))
        seq = log.tree.size
        statement = sign(rotation_text(seq, old, new), signers)
        kind = EventKind.KEY_REPLACED if lost else EventKind.KEY_ROTATED
        data = {"key": new, "previous": old, "statement": statement}
        log.append(EventDraft(kind, data), self._clock.now())
        log.connection.execute("INSERT INTO log_keys VALUES (?, ?)", (seq, new))
        log.checkpoint_wanted = True
        return old, new

    def _is_due(self, log: LogEnd, last: StoredCheckpoint | None) -> bool:
        if log.checkpoint_wanted or last is None:
            return True
        # What is needed for signing takes 20 ms to load: a run's start leaves it to its end.
        most = self._rules.every_events * (2 if log.starting else 1)
        if log.tree.size - last.size >= most:
            return True
        return not log.starting and self._is_old(last.time)

    def _is_old(self, time: str) -> bool:
        try:
            age_s = self._clock.now() - datetime.fromisoformat(time).timestamp()
        except (TypeError, ValueError, OverflowError):
            return True
        return abs(age_s) >= self._rules.every_s  # a clock that was set back must not stop it

    def _make(self, log: LogEnd) -> None:
        vkey = key_in_force(log.connection)
        if vkey is None:
            raise SigningKeyError(_NO_KEY)
        if self._signer is None or self._signer.vkey != vkey:
            self._signer, self._tidied = self._keys.signer(vkey), False
        else:
            self._keys.check(vkey)
        text = Checkpoint(self._signer.name, log.tree.size, log.tree.root).text
        note = sign(text, [self._signer])
        made = StoredCheckpoint(log.tree.size, rfc3339(self._clock.now()), note)
        log.connection.execute(
            "INSERT INTO checkpoints VALUES (?, ?, ?)", (made.size, made.time, made.note)
        )
        log.checkpoint = made

    def _note_trouble(self, log: LogEnd, why: str) -> None:
        if signing_trouble(log.connection) is not None:
            return
        now_s = self._clock.now()
        log.append(EventDraft(EventKind.CHECKPOINT_FAILED, {"message": why}), now_s)
        log.connection.execute(
            "INSERT INTO signing_trouble VALUES (0, ?, ?)", (rfc3339(now_s), why)
        )
