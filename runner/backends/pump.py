"""Moves a run's bytes between its descriptors and the caller's, without ever blocking.

One poll(2) loop carries stdin in, stdout and stderr out, and whatever else the backend has to
hear meanwhile (its launcher, the cancel token, a tick for limits). A slow reader stops the
program by back-pressure and never the loop: limits hold while nobody reads.
"""

from __future__ import annotations

import errno
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass

from runner.errors import RunnerError
from runner.ports import OutputGate, OutputSink
from runner.streams import STDERR, STDOUT

READ_BYTES = 65536
BUFFER_BYTES = 4 * READ_BYTES
"""Held per direction before the reading side has to wait."""

# A pipe or socket whose reader left; a terminal that hung up.
_NOBODY_READS = (errno.EPIPE, errno.ECONNRESET, errno.EIO)
_END_OF_FILE = b"\x04\x04"
"""VEOF (termios(3)), the end of a terminal's input: the first may only end an unfinished line."""

_READ = selectors.EVENT_READ
_WRITE = selectors.EVENT_WRITE


@dataclass(slots=True)
class _Outflow:
    """One stream of the program on its way to its sink."""

    name: str
    fd: int
    sink: OutputSink
    pending: bytearray
    open: bool = True
    broken: bool = False


class Pump:
    """Owns the program's side of the streams (nonblocking descriptors); closes them at its end."""

    def __init__(
        self,
        *,
        stdin_to: int | None,
        stdout_from: int,
        stderr_from: int | None,
        stdin: int | bytes | None,
        stdout: OutputSink,
        stderr: OutputSink,
        gate: OutputGate,
        tty: bool = False,
    ) -> None:
        """`stdin_to`, `stdout_from` and `stderr_from` are the program's; with `tty` all are one."""
        self._selector = selectors.PollSelector()  # epoll refuses regular files
        self._interest: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._gate = gate
        self.moved_s = time.monotonic()
        """When output came last, on the monotonic clock."""
        self._tty = tty
        self._stdin_to = stdin_to
        self._stdin_source = stdin if isinstance(stdin, int) else None
        self._stdin_pending = bytearray(stdin if isinstance(stdin, bytes) else b"")
        self._stdin_last = _END_OF_FILE if tty else b""
        if self._stdin_source is None:
            self._stdin_pending += self._stdin_last
        self._stdin_open = stdin_to is not None
        self._flows = [_Outflow(STDOUT, stdout_from, stdout, bytearray())]
        if stderr_from is not None:
            self._flows.append(_Outflow(STDERR, stderr_from, stderr, bytearray()))
        for fd in {stdin_to, *(flow.fd for flow in self._flows)} - {None}:
            os.set_blocking(fd, False)  # type: ignore[arg-type]
        if self._stdin_source is None and not self._stdin_pending:
            self._end_stdin()

    def on_readable(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back when `fd` can be read; `forget` it when that is over."""
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Wait for `fd` no more."""
        self._callbacks.pop(fd, None)

    @property
    def drained(self) -> bool:
        """Whether both outputs have ended and all of it was passed on."""
        return all(not flow.open and not flow.pending for flow in self._flows)

    def run(self, until: Callable[[], bool], tick: Callable[[], None], tick_s: float) -> None:
        """Move bytes until `until()`; `tick()` is called about every `tick_s` seconds."""
        due_s = time.monotonic() + tick_s
        while not until():
            self._arrange()
            wait_s = max(0.0, due_s - time.monotonic())
            for key, events in self._selector.select(wait_s):
                self._serve(key.fd, events)
            if time.monotonic() >= due_s:
                tick()
                due_s = time.monotonic() + tick_s

    def end_reading(self) -> None:
        """Read no more output: what was read is passed on, and then the outputs have ended."""
        for flow in self._flows:
            flow.open = False

    def stop_output(self) -> None:
        """Pass nothing more on: what is pending is dropped and the outputs count as ended."""
        for flow in self._flows:
            flow.open = False
            flow.pending.clear()

    def close(self) -> None:
        """Close the program's side; may be called twice."""
        self._end_stdin()
        for flow in self._flows:
            flow.open = False
            if flow.fd >= 0:
                os.close(flow.fd)
                flow.fd = -1
        self._selector.close()

    def _arrange(self) -> None:
        """Register what to wait for now: derived anew from the state, so that nothing is stale."""
        wanted: dict[int, int] = dict.fromkeys(self._callbacks, _READ)
        for flow in self._flows:
            if flow.open and len(flow.pending) < BUFFER_BYTES:
                wanted[flow.fd] = wanted.get(flow.fd, 0) | _READ
            sink_fd = flow.sink.fileno()
            if flow.pending and sink_fd is not None:
                wanted[sink_fd] = wanted.get(sink_fd, 0) | _WRITE
        if self._stdin_open and self._stdin_to is not None:
            if self._stdin_source is not None and len(self._stdin_pending) < BUFFER_BYTES:
                wanted[self._stdin_source] = wanted.get(self._stdin_source, 0) | _READ
            # Also without data: the other side's end shows as an error on a write-side poll.
            if self._stdin_pending:
                wanted[self._stdin_to] = wanted.get(self._stdin_to, 0) | _WRITE
        for fd in self._interest.keys() - wanted.keys():
            self._selector.unregister(fd)
        for fd, events in wanted.items():
            if fd not in self._interest:
                self._selector.register(fd, events)
            elif self._interest[fd] != events:
                self._selector.modify(fd, events)
        self._interest = wanted

    def _serve(self, fd: int, events: int) -> None:
        # One descriptor can stand for several things (a terminal is stdin and stdout at once).
        if events & _READ:
            for flow in self._flows:
                if flow.open and flow.fd == fd:
                    self._read_output(flow)
            if fd == self._stdin_source and self._stdin_open:
                self._read_stdin()
            if fd in self._callbacks:
                self._callbacks[fd]()
        if events & _WRITE:
            for flow in self._flows:
                if flow.pending and flow.sink.fileno() == fd:
                    self._write_output(flow)
            if fd == self._stdin_to and self._stdin_pending:
                self._write_stdin()

    def _read_output(self, flow: _Outflow) -> None:
        try:
            data = os.read(flow.fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: every holder of the terminal is gone
            data = b""
        if not data:
            flow.open = False
            return
        self.moved_s = time.monotonic()
        passed = self._gate.admit(flow.name, data)
        if flow.broken or not passed:
            return
        flow.pending += passed
        if flow.sink.fileno() is None:
            self._write_output(flow)

    def _write_output(self, flow: _Outflow) -> None:
        try:
            while flow.pending:
                taken = flow.sink.write(bytes(flow.pending[:READ_BYTES]))
                del flow.pending[:taken]
                if flow.sink.fileno() is not None:
                    return
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise RunnerError(
                    f"the run's {flow.name} can't be passed on: {error.strerror}"
                ) from error
            flow.pending.clear()
            if self._tty:
                flow.broken = True  # the descriptor is its input as well
            else:
                # The program is told as it would be without us: SIGPIPE at its next write.
                flow.open = False
                os.close(flow.fd)
                flow.fd = -1

    def _read_stdin(self) -> None:
        source = self._stdin_source
        if source is None:
            return
        try:
            data = os.read(source, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._stdin_pending += data
        else:
            self._stdin_source = None
            self._stdin_pending += self._stdin_last
            if not self._stdin_pending:
                self._end_stdin()

    def _write_stdin(self) -> None:
        if self._stdin_to is None:
            return
        try:
            written = os.write(self._stdin_to, self._stdin_pending[:READ_BYTES])
        except BlockingIOError:
            return
        except OSError:  # EPIPE: the program closed its stdin; EIO: the terminal is gone
            self._stdin_pending.clear()
            self._stdin_source = None
            self._end_stdin()
            return
        del self._stdin_pending[:written]
        if not self._stdin_pending and self._stdin_source is None:
            self._end_stdin()

    def _end_stdin(self) -> None:
        self._stdin_open = False
        # A terminal has no half to close; it stays until the outputs are done.
        if self._stdin_to is not None and not self._tty:
            os.close(self._stdin_to)
        self._stdin_to = None
