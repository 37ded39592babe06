"""A run's streams on the caller's side: sinks, the output gate, and the way to cancel."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from typing import BinaryIO

from runner.model.limits import Unlimited
from runner.model.outcome import Output

STDOUT = "stdout"
STDERR = "stderr"

# PIPE_BUF (pipe(7)): poll(2) says "writable" when at least this much fits, so that a write of no
# more never blocks the loop that also enforces the limits.
WRITE_UNIT_BYTES = 4096


class FdSink:
    """Passes a stream on to a descriptor that somebody else owns; never blocks in `write`."""

    def __init__(self, fd: int) -> None:
        """`fd` must be writable; it is not closed here."""
        self._fd = fd

    def fileno(self) -> int | None:
        """The descriptor to wait on."""
        return self._fd

    def write(self, data: bytes) -> int:
        """Write up to `WRITE_UNIT_BYTES`."""
        return os.write(self._fd, data[:WRITE_UNIT_BYTES])


class CallbackSink:
    """Hands each piece of a stream to a function, e.g. one that sends it on as an event."""

    def __init__(self, function: Callable[[bytes], object]) -> None:
        """`function` gets the bytes as they come; it should return soon."""
        self._function = function

    def fileno(self) -> int | None:
        """Nothing to wait on."""
        return None

    def write(self, data: bytes) -> int:
        """Pass all of it on."""
        self._function(data)
        return len(data)


class FileSink(CallbackSink):
    """Writes a stream to an open binary file."""

    def __init__(self, file: BinaryIO) -> None:
        """`file` is not closed here."""
        super().__init__(file.write)


class NullSink(CallbackSink):
    """Takes a stream and forgets it; the gate has kept what is to be kept."""

    def __init__(self) -> None:
        """Nothing to say."""
        super().__init__(lambda _: None)


class _Stream:
    """What the gate knows of one stream."""

    def __init__(self) -> None:
        self.bytes_total = 0
        self.hash = hashlib.sha256()
        self.kept = bytearray()


class Gate:
    """Counts, hashes and keeps both streams; lets pass no more than the limit."""

    def __init__(
        self,
        limit_bytes: int | Unlimited,
        keep_bytes: int,
        keep: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """`limit_bytes` for both streams together.

        Of each stream the first `keep_bytes` are kept in memory and, as they come, handed to
        `keep(stream, data)`.
        """
        self._left_bytes = limit_bytes
        self._keep_bytes = keep_bytes
        self._keep = keep
        self._streams = {STDOUT: _Stream(), STDERR: _Stream()}
        self._exceeded = False

    @property
    def exceeded(self) -> bool:
        """Whether more came than the limit allows."""
        return self._exceeded

    def admit(self, stream: str, data: bytes) -> bytes:
        """The part of `data` that may pass on; it is counted, hashed and kept."""
        if not isinstance(self._left_bytes, Unlimited):
            if len(data) > self._left_bytes:
                self._exceeded = True
                data = data[: self._left_bytes]
            self._left_bytes -= len(data)
        if not data:
            return data
        seen = self._streams[stream]
        seen.bytes_total += len(data)
        seen.hash.update(data)
        fresh = data[: self._keep_bytes - len(seen.kept)]
        if fresh:
            seen.kept += fresh
            if self._keep is not None:
                self._keep(stream, fresh)
        return data

    def output(self, stream: str) -> Output:
        """What came on `stdout` or `stderr` until now."""
        seen = self._streams[stream]
        return Output(
            bytes_total=seen.bytes_total,
            sha256=seen.hash.hexdigest(),
            truncated=self._exceeded or seen.bytes_total > len(seen.kept),
            data=bytes(seen.kept),
        )


class Cancellation:
    """Ends a run from another thread or a signal handler: set once, stays set.

    A context manager: it holds a descriptor, which its end closes.
    """

    def __init__(self) -> None:
        """Opens an eventfd(2)."""
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._set = False
        # Reentrant: a signal handler may interrupt a `set` of the same thread.
        self._lock = threading.RLock()

    def set(self) -> None:
        """Ask for the end."""
        with self._lock:
            self._set = True
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    @property
    def is_set(self) -> bool:
        """Whether somebody asked for the end."""
        return self._set

    def fileno(self) -> int:
        """Readable once set."""
        return self._fd

    def close(self) -> None:
        """Let go of the descriptor."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Cancellation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
