"""Calls without a credential that is taken: counted one by one, recorded up to a limit.

A stranger who tries a million keys must neither fill the log nor go unseen: of each ten minutes the
first ten are recorded one by one, and the others as one event that has their number.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from runner.audit.event import rfc3339
from runner.errors import RunnerError
from runner.model.event import EventDraft, EventKind
from runner.ports import Clock

WINDOW_S = 600.0
SINGLY = 10
"""1,600 events a day at most, some 0.8 MB."""


class Failures:
    """Those of one server; for all its threads."""

    def __init__(self, record: Callable[[Sequence[EventDraft]], None], clock: Clock) -> None:
        """`record`: makes events durable, all or none; RunnerError: it can't."""
        self._record = record
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._singly = 0
        self._rest: Counter[str] = Counter()
        self._since_s = 0.0
        self._all: Counter[str] = Counter()

    @property
    def counted(self) -> Mapping[str, int]:
        """How many there were since the server began, by why."""
        with self._lock:
            return dict(self._all)

    def note(self, why: str, *, key: str | None, peer: str | None) -> Sequence[EventDraft]:
        """Count one; the events that are due, for `record`. `why`: such as `key unknown`.

        `key`: the id of a key that there is. `peer`: an address, or `uid:1000`.
        """
        with self._lock:
            self._all[why] += 1
            now_s = self._clock.monotonic()
            due = []
            if self._began_s is None or not 0 <= now_s - self._began_s < WINDOW_S:
                due += self._taken()
                self._began_s, self._singly = now_s, 0
            if self._singly < SINGLY:
                self._singly += 1
                due.append(_draft(Counter({why: 1}), self._clock.now(), key, peer))
            else:
                if not self._rest:
                    self._since_s = self._clock.now()
                self._rest[why] += 1
            return due

    def record(self, drafts: Sequence[EventDraft]) -> None:
        """Make them durable; what can't be now is counted, and recorded with a later one."""
        try:
            if drafts:
                self._record(drafts)
        except RunnerError:
            with self._lock:
                if not self._rest:
                    self._since_s = self._clock.now()
                for draft in drafts:
                    why = draft.data["why"]
                    if isinstance(why, Mapping):
                        self._rest.update(why)

    def finish(self) -> None:
        """Record those that were counted only; when a server ends."""
        with self._lock:
            due = self._taken()
        self.record(due)

    def _taken(self) -> list[EventDraft]:
        if not self._rest:
            return []
        due = [_draft(self._rest, self._since_s, None, None)]
        self._rest = Counter()
        return due


def _draft(why: Counter[str], since_s: float, key: str | None, peer: str | None) -> EventDraft:
    data = {
        "count": why.total(),
        "why": dict(sorted(why.items())),
        "key": key,
        "peer": peer,
        "since": rfc3339(since_s),
    }
    return EventDraft(EventKind.AUTH_FAILED, data)
