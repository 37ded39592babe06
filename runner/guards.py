"""Looking at what the loop guard lets pause, and letting it be tried again, for people."""

from __future__ import annotations

import os
from collections.abc import Sequence

from runner import records
from runner.errors import RequestError
from runner.model.loop_guard import Guarded
from runner.model.principal import Principal
from runner.ports import Clock, Store

SHORTEST_ID = 8
"""Digits by which a command may be named."""


class Guards:
    """The commands that are remembered, of all who share the state folder."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def all(self) -> Sequence[Guarded]:
        """All that are remembered. StateError: it can't be read."""
        return self._store.guarded()

    def paused(self) -> Sequence[Guarded]:
        """Those that have to pause now. StateError: it can't be read."""
        return [each for each in self._store.guarded() if self.is_paused(each)]

    def is_paused(self, guarded: Guarded) -> bool:
        """Whether a pause of its is in force."""
        return guarded.looped.began_s <= self._clock.now() < guarded.looped.until_s

    def reset(self, command: str | None, reason: str) -> Sequence[str]:
        """Begin a command anew, by its id or its first digits (None: all); which. Recorded.

        RequestError: there is none by that id, more than one, or no reason is given.
        """
        if not reason.strip():
            raise RequestError("the loop guard is reset for a reason: say which, it is recorded")
        if command is not None and len(command) < SHORTEST_ID:
            raise RequestError(
                f"{command!r} is too short for a command's id: give {SHORTEST_ID} digits or more"
            )
        with self._store.transaction() as tx:
            found = [
                each.id for each in tx.guarded() if command is None or each.id.startswith(command)
            ]
            if command is not None and len(found) != 1:
                what = "none" if not found else "more than one"
                raise RequestError(
                    f"of the commands that the loop guard remembers {what} begins with "
                    f"{command!r}; `runner guard show --all` lists them"
                )
            for key in found:
                tx.forget_loop(key)
            if found:
                who = Principal(uid=os.getuid(), agent="default")
                tx.append(records.guard_reset(found, reason, who))
        return found
