"""The kill switch at work: ends the runs of this process that somebody killed.

The log's table of kills is the truth, and looked at a few times a second while anything runs: so a
kill reaches every supervisor, whoever ordered it and whatever became of them, and none is missed.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from runner.errors import RunnerError
from runner.model.kill import Kill
from runner.ports import CancelToken, Store
from runner.streams import Cancellation

LOOK_EVERY_S = 0.1
"""A run that was killed is told of it within this time; a look costs some 10 us."""


class Killable:
    """`ports.CancelToken` of one run: set when its caller cancels it, or when it is killed."""

    def __init__(self, run_id: str, cancel: CancelToken, own: Cancellation, store: Store) -> None:
        """`cancel`: the caller's."""
        self._run_id = run_id
        self._cancel = cancel
        self._own = own
        self._store = store
        self._kill: Kill | None = None
        self._both = select.epoll()  # its descriptor can be waited for like any other
        for each in (cancel.fileno(), own.fileno()):
            self._both.register(each, select.EPOLLIN)

    def fileno(self) -> int:
        """Becomes readable when set, and stays so."""
        return self._both.fileno()

    @property
    def is_set(self) -> bool:
        """Whether somebody asked for the end."""
        return self._own.is_set or self._cancel.is_set

    @property
    def kill(self) -> Kill | None:
        """What it was killed by, as far as it was told."""
        return self._kill

    def end(self, kill: Kill) -> None:
        """It is killed."""
        self._kill = kill
        self._own.set()

    def look(self) -> Kill | None:
        """What it was killed by, looked up now. RecordError, StateError: it can't be told."""
        if self._kill is None:
            self._kill = self._store.killed_runs().get(self._run_id)
        return self._kill

    def close(self) -> None:
        """Let go of the descriptor."""
        self._both.close()


class KillWatch:
    """Watches over the runs of one process, by a thread that lives while there are any."""

    def __init__(self, store: Store) -> None:
        """Nothing is watched yet."""
        self._store = store
        self._guard = threading.Lock()
        self._runs: dict[str, Killable] = {}
        self._watching = False
        _watches.add(self)

    @contextmanager
    def over(self, run_id: str, cancel: CancelToken) -> Iterator[Killable]:
        """The token of a run that is open in the log, for as long as the block lasts."""
        with Cancellation() as own:
            run = Killable(run_id, cancel, own, self._store)
            try:
                with self._guard:
                    self._runs[run_id] = run
                    begin, self._watching = not self._watching, True
                if begin:
                    threading.Thread(target=self._watch, daemon=True, name="runner-kills").start()
                yield run
            finally:
                with self._guard:
                    self._runs.pop(run_id, None)
                    run.close()

    def forget(self) -> None:
        """In a forked child: its parent's runs are none of its own, and the thread is not there."""
        self._guard = threading.Lock()
        self._runs = {}
        self._watching = False

    def _watch(self) -> None:
        while True:
            # A log that can't be read tells of no kills; what it is that is wrong with it, the
            # runs find out, whose ends can't be written either.
            found: dict[str, Kill] = {}
            with contextlib.suppress(RunnerError):
                found = dict(self._store.killed_runs())
            with self._guard:
                for run_id, kill in found.items():
                    if (run := self._runs.get(run_id)) is not None and run.kill is None:
                        run.end(kill)
                if not self._runs:
                    self._watching = False
                    return
            time.sleep(LOOK_EVERY_S)


_watches: weakref.WeakSet[KillWatch] = weakref.WeakSet()


def _forget() -> None:
    for watch in list(_watches):
        watch.forget()


os.register_at_fork(after_in_child=_forget)
