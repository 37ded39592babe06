"""One run of this process as a series of events, at the pace of who takes them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from runner.audit.event import rfc3339
from runner.caller import Caller
from runner.model.approval import Approval
from runner.model.decision import Decision
from runner.model.following import Began, Over, RunEvent, Used, WaitsForAnswer, Written
from runner.model.outcome import Outcome
from runner.model.usage import Usage
from runner.pacing import Pace
from runner.ports import CancelToken
from runner.streams import STDERR, STDOUT, Cancellation

UNTAKEN_BYTES = 256 << 10
"""Of output that was not taken: then the program waits."""
USAGE_EVERY_S = 1.0


class Following:
    """A run in a thread of its own: iterate over its events, the last of which is `Over`.

    A context manager: its end, or `close`, cancels a run that goes on, and waits for its record.
    """

    def __init__(
        self,
        execute: Callable[[Caller, CancelToken], Outcome],
        stdin: int | bytes | None,
        *,
        ask_wait_s: float,
    ) -> None:
        """`execute`: runs it with this caller, once; what it raises is raised by `next`."""
        self._cancel = cancel = Cancellation()
        self._told = told = _Told()
        self._is_over = False
        caller = Caller(
            stdin, told.sink(STDOUT), told.sink(STDERR), ask_wait_s=ask_wait_s, observer=told
        )

        def carry() -> None:
            try:
                told.put(Over(execute(caller, cancel)))
            except BaseException as error:
                told.put(error)

        self._thread = threading.Thread(target=carry, name="followed run")
        self._thread.start()

    def __iter__(self) -> Iterator[RunEvent]:
        return self

    def __next__(self) -> RunEvent:
        """Wait for the next one."""
        if self._is_over:
            raise StopIteration
        event = self._told.take()
        if isinstance(event, BaseException | Over):
            self._is_over = True
            self.close()
        if isinstance(event, BaseException):
            raise event
        return event

    def cancel(self) -> None:
        """End the run, from any thread; its outcome still comes."""
        self._cancel.set()
        self._told.let_go()

    def close(self) -> None:
        """Take no more events; may be called twice."""
        self.cancel()  # of one that has ended nothing changes
        self._is_over = True
        self._thread.join()
        self._told.close()
        self._cancel.close()

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        """Who forgets it wants nothing of the run any more."""
        self.cancel()


class _Told:
    """`ports.Observer`, and both sinks, of one run."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[RunEvent | BaseException] = queue.SimpleQueue()
        self._pace = Pace()
        self._lock = threading.Lock()
        self._untaken_bytes = 0
        self._is_left = False
        self._used_s = 0.0

    def put(self, event: RunEvent | BaseException) -> None:
        """The next one."""
        self._events.put(event)

    def take(self) -> RunEvent | BaseException:
        """Wait for the next one."""
        event = self._events.get()
        if isinstance(event, Written):
            with self._lock:
                self._untaken_bytes -= len(event.data)
                if self._untaken_bytes < UNTAKEN_BYTES:
                    self._pace.go_on()
        return event

    def sink(self, stream: str) -> _Sink:
        """Where a stream goes."""
        return _Sink(self, stream)

    def written(self, event: Written) -> None:
        """A piece of output."""
        with self._lock:
            if self._is_left:
                return
            self._untaken_bytes += len(event.data)
            if self._untaken_bytes >= UNTAKEN_BYTES:
                self._pace.hold()
        self.put(event)

    def fileno(self) -> int:
        """Writable as long as output may come."""
        return self._pace.fileno()

    def let_go(self) -> None:
        """Nobody takes anything any more."""
        with self._lock:
            self._is_left = True
            self._pace.go_on()

    def close(self) -> None:
        """The run is over."""
        self._pace.close()

    def asked(self, approval: Approval) -> None:
        """See `ports.Observer`."""
        expires = rfc3339(approval.expires_s)
        self.put(WaitsForAnswer(approval.id, approval.reason, approval.rules, expires))

    def decided(self, run_id: str, decision: Decision) -> None:
        """See `ports.Observer`."""
        self.put(Began(run_id, decision))

    def used(self, usage: Usage) -> None:
        """See `ports.Observer`."""
        now_s = time.monotonic()
        if now_s - self._used_s >= USAGE_EVERY_S:
            self._used_s = now_s
            self.put(Used(usage))


class _Sink:
    """`ports.OutputSink` of one stream."""

    def __init__(self, told: _Told, stream: str) -> None:
        self._told = told
        self._stream = stream
        self._offset_bytes = 0

    def fileno(self) -> int:
        """The pace's."""
        return self._told.fileno()

    def write(self, data: bytes) -> int:
        """Take all of it."""
        self._told.written(Written(self._stream, self._offset_bytes, data))
        self._offset_bytes += len(data)
        return len(data)
