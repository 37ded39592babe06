"""Following the log while others write to it.

Whether anything was written is asked of SQLite (`PRAGMA data_version`), which looks into shared
memory and reads no file. The log may be archived, repaired or replaced meanwhile; who follows is
told, and goes on with the last event that both logs have.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from runner.errors import StateError
from runner.model.event import AuditEvent
from runner.stores.database import FILE_NAME
from runner.stores.indexing import Tell
from runner.stores.reader import open_log

_REMEMBERED = 1024  # events whose hashes are kept, to find where another log goes on from this one
_GONE_S = 10.0  # how long a log may be away: a repair puts another in its place within that


class Follower:
    """Follows the log of one state folder; `close` lets go of it."""

    def __init__(self, home: Path, tell: Tell) -> None:
        """`tell`: hears, in a sentence, when the log is not what it was. StateError: no log."""
        self._path = home / FILE_NAME
        self._tell = tell
        self.log = open_log(home)
        self._identity = self._seen()
        self._version: int | None = None
        self._shown: deque[tuple[int, bytes]] = deque(maxlen=_REMEMBERED)
        self.next = self.log.head().size
        """Number of the event that is given next."""
        if self.next and (last := self.log.leaf_hash(self.next - 1)):
            self._shown.append((self.next - 1, last))

    def follow(self, wait: Callable[[], bool]) -> Iterator[AuditEvent]:
        """Events as they are written, from `next` on, until `wait`, called when there is none,
        says True. StateError: the log is gone, or can't be read.
        """
        while True:
            if self._seen() != self._identity and not self._reopen(wait):
                return
            if self._changed():
                yield from self._new()
            if wait():
                return

    def close(self) -> None:
        """Let go of the log."""
        self.log.close()

    def _changed(self) -> bool:
        with self.log.reading() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, int(version)
        return before != self._version

    def _new(self) -> Iterator[AuditEvent]:
        beginning = self.log.beginning().size
        if beginning > self.next:
            self._tell(
                f"events {self.next} to {beginning - 1} were archived before they could be shown"
            )
            self.next = beginning
        for event in self.log.events(start=self.next):
            self.next = event.seq + 1
            self._shown.append((event.seq, event.leaf_hash))
            yield event

    def _reopen(self, wait: Callable[[], bool]) -> bool:
        """The file is another one: somebody repaired the log, or put another in its place.

        False: `wait` said that it is enough.
        """
        self.log.close()
        until_s = time.monotonic() + _GONE_S
        while True:
            try:
                self.log = open_log(self._path.parent)
                break
            except StateError:
                if time.monotonic() > until_s:
                    raise
                if wait():
                    return False
        self._identity, self._version = self._seen(), None
        size, before = self.log.head().size, self.next
        while self._shown:
            seq, leaf = self._shown[-1]
            if self.log.leaf_hash(seq) == leaf:
                self.next = seq + 1
                break
            self._shown.pop()
        else:
            self.next = max(self.log.beginning().size, size - 1)
        if self.next == before:
            self._tell(f"the log was replaced by one that goes on from it, with event {before}")
        else:
            self._tell(
                f"the log was replaced by another one, of {size} events, as a repair does; it goes "
                f"on with event {self.next}"
            )
        return True

    def _seen(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            found = os.stat(self._path)  # noqa: PTH116  (never opened: that would drop locks)
            return found.st_dev, found.st_ino
        return None
