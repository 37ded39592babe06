"""Carries a run's bytes between init and the caller, and hears what init says of its end.

One poll(2) loop; it never blocks. A slow reader stops the program by back-pressure; limits are
init's to hold, and this side's clock stands behind init's.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from dataclasses import dataclass, field
from typing import Any

from runner.backends.docker.channel import Channel, LostError
from runner.backends.docker.inside.wire import (
    STDIN_CREDIT_BYTES,
    Kind,
    decode_json,
    encode,
    encode_json,
)
from runner.model.usage import Usage
from runner.ports import CancelToken, OutputSink, Streams

READ_BYTES = 1 << 16
HELD_BYTES = 4 * READ_BYTES
TICK_S = 0.25
UNREAD_GRACE_S = 2.0
"""After the run has to be over, how long an output that nobody reads is still held for them."""
UNHEARD_S = 2.0
"""Init tells several times a second what the program used; silent for longer, it can't be heard."""
LOST_GRACE_S = 30.0
"""After that, how long init may take to end things before it counts as lost."""


@dataclass(frozen=True, slots=True)
class Used:
    """What init told last of the program's CPU time, and when (CLOCK_MONOTONIC)."""

    cpu_s: float = 0.0
    heard_s: float | None = None


@dataclass(slots=True)
class Heard:
    """What the conversation told."""

    ended: dict[str, Any] | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)
    changes_cut: bool = True
    """Until init has said that the list is whole."""
    stopped_for: str | None = None
    """`output`, `budget` or `cancelled`, when this side ended the run."""


@dataclass(slots=True)
class _Outflow:
    name: str
    sink: OutputSink
    pending: bytearray = field(default_factory=bytearray)
    broken: bool = False


class Conversation:
    """One run's, from `GO` to `DONE`."""

    def __init__(
        self, channel: Channel, streams: Streams, cancel: CancelToken, wall_s: float, cpus: float
    ) -> None:
        """`wall_s` may be infinite. `cpus`: the most that the run can use at once."""
        self._channel = channel
        self._gate = streams.gate
        self._cancel = cancel
        self._flows = {
            Kind.STDOUT: _Outflow("stdout", streams.stdout),
            Kind.STDERR: _Outflow("stderr", streams.stderr),
        }
        self._stdin = streams.stdin if isinstance(streams.stdin, int) else None
        self._stdin_left = memoryview(streams.stdin if isinstance(streams.stdin, bytes) else b"")
        self._stdin_told = False
        self._credit_bytes = STDIN_CREDIT_BYTES
        self._terminal = streams.terminal
        self._window: tuple[int, int] | None = None
        self._meter = streams.meter
        self._cpus = cpus
        self._used = Used()
        self._start_s = time.monotonic()
        self._over_s = self._start_s + wall_s
        self.heard = Heard()
        self._done = False

    def hold(self) -> Heard:
        """Until init has told everything. LostError: it did not; `heard` has what came."""
        self._window = self._window_now()
        self._channel.queue(encode_json(Kind.GO, self._window))
        self._start_s = time.monotonic()
        if self._meter is not None:
            self._channel.queue(encode(Kind.METER))
        due_s = time.monotonic() + TICK_S
        while not (self._done and not any(flow.pending for flow in self._flows.values())):
            self._feed_stdin()
            self._serve(max(0.0, due_s - time.monotonic()))
            now_s = time.monotonic()
            if now_s >= due_s:
                due_s = now_s + TICK_S
                self._follow_window()
                self._ask_meter(now_s)
                self._enforce(now_s)
        return self.heard

    def _serve(self, wait_s: float) -> None:
        wanted: dict[int, int] = {}

        def want(fd: int, events: int) -> None:
            wanted[fd] = wanted.get(fd, 0) | events

        channel_fd = self._channel.fileno()
        if not self._done and all(len(f.pending) < HELD_BYTES for f in self._flows.values()):
            want(channel_fd, select.POLLIN)
        if self._channel.unsent_bytes and not self._done:
            want(channel_fd, select.POLLOUT)
        for flow in self._flows.values():
            sink_fd = flow.sink.fileno()
            if flow.pending and sink_fd is not None:
                want(sink_fd, select.POLLOUT)
        if self._stdin is not None and self._may_send_stdin():
            want(self._stdin, select.POLLIN)
        if self.heard.stopped_for is None and self.heard.ended is None:
            want(self._cancel.fileno(), select.POLLIN)
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        for fd, events in poll.poll(wait_s * 1000):
            self._serve_one(fd, events, channel_fd)

    def _serve_one(self, fd: int, events: int, channel_fd: int) -> None:
        readable = events & ~select.POLLOUT
        if fd == channel_fd:
            if events & select.POLLOUT:
                self._channel.flush_some()
            if readable:
                for kind, payload in self._channel.receive():
                    self._hear(kind, payload)
            return
        for flow in self._flows.values():
            if flow.pending and flow.sink.fileno() == fd and events & ~select.POLLIN:
                self._write_out(flow)
        if fd == self._stdin and readable:
            self._read_stdin()
        if fd == self._cancel.fileno() and self._cancel.is_set:
            self._stop("cancelled")

    def _hear(self, kind: Kind, payload: bytes) -> None:
        if kind in self._flows:
            flow = self._flows[kind]
            passed = self._gate.admit(flow.name, payload)
            if self._gate.exceeded:
                self._stop("output")
            if passed and not flow.broken:
                flow.pending += passed
                if flow.sink.fileno() is None:
                    self._write_out(flow)
        elif kind is Kind.STDIN_TAKEN:
            self._credit_bytes += int(decode_json(payload))
        elif kind is Kind.ENDED:
            self.heard.ended = decode_json(payload)
        elif kind is Kind.USED:
            told = decode_json(payload)
            cpu_s = (told["cpu_user_s"] or 0.0) + (told["cpu_system_s"] or 0.0)
            self._used = Used(cpu_s, time.monotonic())
        elif kind is Kind.CHANGES:
            self.heard.changes.extend(decode_json(payload))
        elif kind is Kind.DONE:
            self.heard.changes_cut = bool(decode_json(payload))
            self._done = True
        else:
            raise LostError(f"the sandbox's init sent {kind.name} out of turn")

    def _write_out(self, flow: _Outflow) -> None:
        try:
            while flow.pending:
                taken = flow.sink.write(bytes(flow.pending[:READ_BYTES]))
                del flow.pending[:taken]
                if flow.sink.fileno() is not None:
                    return
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            # Nobody reads any more; the output is still counted and kept by the gate.
            flow.broken = True
            flow.pending.clear()

    def _may_send_stdin(self) -> bool:
        return (
            not self._stdin_told
            and self._credit_bytes > 0
            and self._channel.unsent_bytes < HELD_BYTES
            and self.heard.ended is None
        )

    def _feed_stdin(self) -> None:
        """From bytes that are at hand; and say when there are no more."""
        while self._stdin_left and self._may_send_stdin():
            piece = self._stdin_left[: min(READ_BYTES, self._credit_bytes)]
            self._stdin_left = self._stdin_left[len(piece) :]
            self._send_stdin(bytes(piece))
        if self._stdin is None and not self._stdin_left and not self._stdin_told:
            self._stdin_told = True
            self._channel.queue(encode(Kind.STDIN_END))

    def _read_stdin(self) -> None:
        if self._stdin is None:
            return
        try:
            data = os.read(self._stdin, min(READ_BYTES, self._credit_bytes))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._send_stdin(data)
        else:
            self._stdin = None

    def _send_stdin(self, data: bytes) -> None:
        self._credit_bytes -= len(data)
        self._channel.queue(encode(Kind.STDIN, data))

    def _follow_window(self) -> None:
        window = self._window_now()
        if window not in (None, self._window) and self.heard.ended is None:
            self._window = window
            self._channel.queue(encode_json(Kind.WINDOW, window))

    def _window_now(self) -> tuple[int, int] | None:
        """Rows and columns of the caller's terminal (TIOCGWINSZ, ioctl_tty(2))."""
        if self._terminal is None:
            return None
        try:
            packed = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, bytes(8))
        except OSError:
            return None
        rows, columns, _, _ = struct.unpack("HHHH", packed)
        return rows, columns

    def _stop(self, reason: str) -> None:
        if self.heard.stopped_for is None and self.heard.ended is None:
            self.heard.stopped_for = reason
            self._channel.queue(encode(Kind.KILL))
            self._over_s = min(self._over_s, time.monotonic())

    def _ask_meter(self, now_s: float) -> None:
        """Whether its budgets let the run go on."""
        if self._meter is None or self.heard.ended is not None or self.heard.stopped_for:
            return
        cpu_s, heard_s = self._used.cpu_s, self._used.heard_s or self._start_s
        if now_s > heard_s + UNHEARD_S:
            # Behind output that nobody reads stands what was used: it is no more than this.
            cpu_s += (now_s - heard_s) * self._cpus
        usage = Usage(wall_s=now_s - self._start_s, cpu_user_s=cpu_s, cpu_system_s=0.0)
        if not self._meter.look(usage):
            self._stop("budget")

    def _enforce(self, now_s: float) -> None:
        if now_s < self._over_s + UNREAD_GRACE_S:
            return
        for flow in self._flows.values():
            flow.broken = True
            flow.pending.clear()
        if now_s >= self._over_s + UNREAD_GRACE_S + LOST_GRACE_S:
            raise LostError("the sandbox's init did not end the run in time")
