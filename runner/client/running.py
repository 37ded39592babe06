"""A run of a server, begun and waited for."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from runner.client.channel import Answer, Channel
from runner.client.following import RemoteFollowing, ended_by, outcome_of_run
from runner.client.outcomes import outcome_of
from runner.client.parsing import Fields
from runner.errors import RequestError, RunnerError
from runner.model.following import Over, Written
from runner.model.outcome import Outcome

if TYPE_CHECKING:
    from runner.ports import CancelToken, OutputSink

WAIT_S = 10.0
"""A run that has ended by then is one request; of others it is asked how they go on."""


def run_to_end(  # noqa: PLR0917
    channel: Channel,
    path: str,
    body: Mapping[str, object],
    stdout: OutputSink | None,
    stderr: OutputSink | None,
    cancel: CancelToken | None,
) -> Outcome:
    """Begin a run there and wait for its end; see `RemoteRunner.run`."""
    key = os.urandom(16).hex()
    if stdout is None and stderr is None and cancel is None:
        return _waited(channel, path, body, key)
    sinks = {"stdout": stdout, "stderr": stderr}
    following = RemoteFollowing(channel, body, key, path=path)
    with following as events, ended_by(cancel, events.cancel):
        for event in events:
            if isinstance(event, Over):
                return event.outcome
            if isinstance(event, Written) and (sink := sinks[event.stream]) is not None:
                try:
                    _pour(sink, event.data)
                except BrokenPipeError:
                    sinks[event.stream] = None
                    events.cancel()
    raise RunnerError(f"the run {events.run_id} was not followed to its end")


def run_path(run_id: str, what: str = "") -> str:
    """The address of a run, or of something of it. RequestError."""
    if not run_id:
        raise RequestError("name a run by its id")
    return f"/v1/runs/{quote(run_id, safe='')}{what}"


def _waited(channel: Channel, path: str, body: Mapping[str, object], key: str) -> Outcome:
    """One request if it ends soon; whoever interrupts this ends the run."""
    headers = {"Idempotency-Key": key}
    try:
        answer = channel.call("POST", path, {**body, "wait": WAIT_S}, headers=headers, again=True)
        if answer.status != 202:
            return outcome_of(answer.document())
        run_id = _accepted(answer)
        with RemoteFollowing(channel, None, key, run_id=run_id) as events:
            for event in events:
                if isinstance(event, Over):
                    return event.outcome
        raise RunnerError(f"the run {run_id} was not followed to its end")
    except RunnerError as error:
        _with_outcome(channel, error)
        raise
    except BaseException:
        # The same key: the same run, or one that is ended before it does anything.
        with contextlib.suppress(RunnerError):
            again = channel.call("POST", path, {**body, "wait": False}, headers=headers)
            if again.status == 202:
                channel.call("DELETE", run_path(_accepted(again)))
        raise


def _with_outcome(channel: Channel, error: RunnerError) -> None:
    """What was recorded of a run that runner failed in."""
    if error.outcome is None and error.run_id is not None:
        with contextlib.suppress(RunnerError):
            answer = channel.call("GET", run_path(error.run_id))
            error.outcome = outcome_of_run(answer.document())


def _accepted(answer: Answer) -> str:
    f = Fields(answer.document(), "the answer")
    run_id = f.text("id")
    f.text("status")
    f.done()
    return run_id


def _pour(sink: OutputSink, data: bytes) -> None:
    """All of it, waiting where the sink does. BrokenPipeError."""
    poll = select.poll()  # not select(): descriptors may be above 1023
    if (fd := sink.fileno()) is not None:
        poll.register(fd, select.POLLOUT)
    while data:
        if fd is not None:
            poll.poll()
        try:
            data = data[sink.write(data) :]
        except BlockingIOError:
            continue
