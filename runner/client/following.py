"""One run of a server as a series of events; a cut connection is taken up again."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from runner.client.channel import AGAIN_AFTER_S, Channel, run_id_of
from runner.client.events import LAST, Event, cut, parsed, read_events
from runner.client.outcomes import check_failed, failure_of, outcome_of
from runner.client.parsing import Fields, decoded, refuse
from runner.errors import AnswerError, NotFoundError, RunnerError, UnreachableError, error_of
from runner.model.following import Over, RunEvent, Written
from runner.model.outcome import Outcome

if TYPE_CHECKING:
    from runner.ports import CancelToken

_OPEN = ("queued", "running")


class RemoteFollowing:
    """Iterate over its events, the last of which is `Over`.

    A context manager: its end, or `close`, cancels a run that goes on, and waits for its end.
    """

    def __init__(
        self,
        channel: Channel,
        body: Mapping[str, object] | None,
        key: str,
        *,
        run_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = "/v1/runs",
    ) -> None:
        """Begin a run; or, with a `run_id`, follow one. What the server refuses is raised here.

        `path`: where one is begun.
        """
        self._channel = channel
        self._path = path
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._offsets = {"stdout": 0, "stderr": 0}
        self._last = ""
        self._is_over = False
        self._events: Iterator[Event] = iter(())
        self._owns = run_id is None
        self.run_id = run_id or ""
        if run_id is None:
            self._begin(body or {}, {"Idempotency-Key": key, **(headers or {})})
        else:
            self._resume()

    def __iter__(self) -> Iterator[RunEvent]:
        return self

    def __next__(self) -> RunEvent:
        """Wait for the next one. UnreachableError: the server is gone, and comes back no more."""
        while not self._is_over:
            try:
                event = self._next_event()
            except RunnerError:
                self._end()
                raise
            try:
                told = self._asked_for() if event is None else self._told(event)
            except RunnerError:
                self._end()
                raise
            if told is not None:
                return told
        raise StopIteration

    def cancel(self) -> None:
        """End the run, from any thread; its outcome still comes."""
        self._channel.call("DELETE", f"/v1/runs/{self.run_id}", again=True)

    def close(self) -> None:
        """Take no more events; may be called twice."""
        if self._is_over:
            return
        with contextlib.suppress(RunnerError):
            self.cancel()
            for _ in self:
                pass
        self._end()

    def outcome(self) -> Outcome:
        """Of a run that has ended, with what was kept of its output.

        AnswerError: the server says that it goes on.
        """
        answer = self._channel.call("GET", f"/v1/runs/{self.run_id}")
        found = outcome_of_run(answer.document())
        if found is None:
            raise AnswerError(f"the server tells no outcome of the run {self.run_id}")
        return found

    def __enter__(self) -> RemoteFollowing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, body: Mapping[str, object], headers: dict[str, str]) -> None:
        failure = nothing = cut("it said nothing")
        for wait_s in (0.0, *AGAIN_AFTER_S):
            time.sleep(wait_s)
            before = self._channel.instance
            try:
                response, goes_on = self._stack.enter_context(
                    self._channel.events("POST", self._path, body, headers)
                )
            except UnreachableError as error:
                if not error.sent and failure is nothing:
                    raise  # nobody was reached, so nothing was asked
                failure = error
                if before is not None:
                    headers["Runner-Server"] = before
                continue
            run_id = run_id_of(response.headers)
            if run_id is None or not goes_on:
                raise AnswerError("the server does not say which run it began")
            self.run_id = run_id
            self._events = read_events(response)
            return
        raise failure

    def _resume(self) -> None:
        """Go on behind the last event. UnreachableError, NotFoundError."""
        self._stack.close()
        self._owns = False
        headers = {"Last-Event-ID": self._last} if self._last else {}
        response, goes_on = self._stack.enter_context(
            self._channel.events("GET", f"/v1/runs/{self.run_id}/events", None, headers)
        )
        self._events = read_events(response) if goes_on else iter(((LAST, "outcome", b""),))

    def _next_event(self) -> Event | None:
        """None: it is over, and the outcome is to be asked for."""
        failure: RunnerError = cut("it said nothing more")
        for wait_s in (0.0, *AGAIN_AFTER_S):
            time.sleep(wait_s)
            try:
                if wait_s:
                    self._resume()
                event = next(self._events, None)
            except (OSError, http.client.HTTPException) as error:
                failure = cut(str(error))
                continue
            except (UnreachableError, NotFoundError) as error:
                failure = error
                continue
            if event is not None:
                self._last = event[0]
                return event if event[1] != "outcome" or (event[2] and self._owns) else None
            # A server that begins anew knows a run by its log, whose events may end without it.
            if not self._owns and (found := self._state()) is not None and found not in _OPEN:
                return None
        raise UnreachableError(
            f"{failure}; what becomes of the run {self.run_id} stands in the server's log"
        )

    def _told(self, event: Event) -> RunEvent | None:
        if event[1] == "outcome":
            outcome = outcome_of(decoded(event[2], "the outcome"))
            self._end()
            check_failed(outcome)
            return Over(outcome)
        told = parsed(event)
        if isinstance(told, Written):
            expected = self._offsets[told.stream]
            if told.offset_bytes < expected:
                refuse("an output", f"begins at {told.offset_bytes}, where {expected} were read")
            self._offsets[told.stream] = told.offset_bytes + len(told.data)
        return told

    def _state(self) -> str | None:
        with contextlib.suppress(RunnerError):
            answer = self._channel.call("GET", f"/v1/runs/{self.run_id}")
            return Fields(answer.document(), "the run").text("status")
        return None

    def _asked_for(self) -> Over:
        """The outcome, which this connection was not sent."""
        self._end()
        outcome = self.outcome()
        check_failed(outcome)
        return Over(outcome)

    def _end(self) -> None:
        self._is_over = True
        self._stack.close()


def outcome_of_run(value: object) -> Outcome | None:
    """The outcome in a `RunAnswer`; None: there is none yet. Raises what kept it from beginning."""
    f = Fields(value, "the run")
    status = f.text("status")
    found = f.maybe_inner("outcome", outcome_of)
    if found is None and status not in _OPEN:
        failure = f.maybe_inner("error", failure_of)
        if failure is not None:
            raise error_of(failure.code, failure.message)
    return found


@contextlib.contextmanager
def ended_by(cancel: CancelToken | None, end: Callable[[], None]) -> Iterator[None]:
    """Call `end` when that is set, in a thread of its own."""
    if cancel is None:
        yield
        return
    over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    poll = select.poll()
    poll.register(over, select.POLLIN)
    poll.register(cancel.fileno(), select.POLLIN)

    def watch() -> None:
        if over not in {fd for fd, _ in poll.poll()}:
            with contextlib.suppress(RunnerError):  # of a server that is gone the reader tells
                end()

    thread = threading.Thread(target=watch, name="cancel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.eventfd_write(over, 1)
        thread.join()
        os.close(over)
