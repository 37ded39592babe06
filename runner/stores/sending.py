"""Sending checkpoints elsewhere, beside what the process does: nothing waits for a destination.

What is sent is the newest one, which covers all before it. What each destination has stands in the
table `destinations`, so that what could not be sent is tried again when the next one is made, by
whichever process. That sending begins to fail, and that it works again, are events.

One thread at a time does it, for as long as there is something to send. Closing the store waits for
it, but not longer than `CLOSE_WAIT_S`.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from runner.audit.event import rfc3339
from runner.errors import RunnerError
from runner.model.checkpoints import Destination, Unsent
from runner.model.event import EventDraft, EventKind
from runner.ports import Clock
from runner.stores.delivery import NotDeliveredError, deliver
from runner.stores.stored_checkpoint import StoredCheckpoint, newest
from runner.stores.transaction import SqliteTransaction

CLOSE_WAIT_S = 5.0
"""Longest that the end of a process waits for destinations."""

Reading = Callable[[], AbstractContextManager[sqlite3.Connection]]
Writing = Callable[[], AbstractContextManager[SqliteTransaction]]


class Sender:
    """Sends one log's checkpoints; safe to use from several threads."""

    def __init__(
        self, to: Sequence[Destination], reading: Reading, writing: Writing, clock: Clock
    ) -> None:
        """`reading`, `writing`: the log's database, to look at and in a transaction."""
        self._to = to
        self._reading = reading
        self._writing = writing
        self._clock = clock
        self._one = threading.Lock()
        """Held while sending, so that nobody gets the same one twice."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted = False
        self._over = threading.Event()
        self._current: tuple[Destination, StoredCheckpoint] | None = None

    def wake(self) -> None:
        """There is a new checkpoint; returns at once."""
        if not self._to:
            return
        with self._lock:
            if self._over.is_set():
                return
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, daemon=True, name="runner-checkpoints"
                )
                try:
                    self._thread.start()
                except RuntimeError:  # no thread to be had: the next checkpoint tries again
                    self._thread = None

    def finish(self) -> None:
        """Wait until what is wanted is sent, at most `CLOSE_WAIT_S`; then send no more."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_WAIT_S)
        with self._lock:
            self._over.set()  # ends a command too
            late = self._current if thread is not None and thread.is_alive() else None
        if late is not None:
            why = f"it had not taken it when the process ended, {CLOSE_WAIT_S:g} s later"
            self._note(late[0], late[1], why)

    def send(self) -> list[tuple[Destination, str | None]]:
        """Send to every destination that does not have the newest one; why not, where it failed."""
        with self._one:
            return self._send()

    def _send(self) -> list[tuple[Destination, str | None]]:
        told: list[tuple[Destination, str | None]] = []
        for destination in self._to:
            with self._reading() as connection:
                found = newest(connection)
                if found is None or _has(connection, destination) >= found.size:
                    continue
            with self._lock:
                self._current = (destination, found)
            why = None
            try:
                deliver(destination, found.note, over=self._over)
            except NotDeliveredError as error:
                why = str(error)
            with self._lock:
                self._current = None
                if self._over.is_set():
                    return told
            self._note(destination, found, why)
            told.append((destination, why))
        return told

    def _work(self) -> None:
        try:
            while self._next():
                self.send()
        except RunnerError:  # the log can't be written: whoever writes next is told
            pass
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _next(self) -> bool:
        """Whether there is something to send; if not, the thread is over, and `wake` starts one."""
        with self._lock:
            if self._wanted and not self._over.is_set():
                self._wanted = False
                return True
            self._thread = None
            return False

    def _note(self, destination: Destination, sent: StoredCheckpoint, why: str | None) -> None:
        """What came of it, in the table; what is different from before, as an event too."""
        id_, now_s = destination_id(destination), self._clock.now()
        with self._writing() as tx:
            row = tx.connection.execute(
                "SELECT size, since, why FROM destinations WHERE id = ?", (id_,)
            ).fetchone()
            had, since, _ = row or (0, None, None)
            shown = {"to": str(destination), "size": sent.size}
            if why is None:
                if since is not None:
                    tx.append(EventDraft(EventKind.CHECKPOINT_SENT, {**shown, "since": since}))
                had, since = max(had, sent.size), None
            elif since is None:
                since = rfc3339(now_s)
                tx.append(EventDraft(EventKind.CHECKPOINT_UNSENT, {**shown, "why": why}))
            if row != (had, since, why):
                tx.connection.execute(
                    "INSERT OR REPLACE INTO destinations VALUES (?, ?, ?, ?)",
                    (id_, had, since, why),
                )


def destination_id(destination: Destination) -> str:
    """What it is known by in the table, which must not hold what a URL or a command has secret."""
    spelled = "\0".join((destination.kind.value, *destination.words))
    return hashlib.sha256(spelled.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def unsent(connection: sqlite3.Connection, to: Sequence[Destination]) -> list[Unsent]:
    """What each destination does not have; nothing of those that have all."""
    found = []
    for destination in to:
        size, since, why = connection.execute(
            "SELECT size, since, why FROM destinations WHERE id = ?", (destination_id(destination),)
        ).fetchone() or (0, None, None)
        (count,) = connection.execute(
            "SELECT count(*) FROM checkpoints WHERE size > ?", (size,)
        ).fetchone()
        if count:
            found.append(Unsent(str(destination), count, since, why))
    return found


def _has(connection: sqlite3.Connection, destination: Destination) -> int:
    row = connection.execute(
        "SELECT size FROM destinations WHERE id = ?", (destination_id(destination),)
    ).fetchone()
    return 0 if row is None else int(row[0])
