"""The supervisor's end of a container's attached stdin, stdout and stderr.

The engine multiplexes what comes out: eight bytes of header (stream, three zeros, length big
endian) before each piece (Engine API, ContainerAttach). Stdout carries init's frames; stderr is
what Python says when init itself breaks, and is kept for the error message.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable

from runner.backends.docker.inside.wire import Decoder, Kind, WireError, decode_json
from runner.errors import BackendError

READ_BYTES = 1 << 16
_HEADER = struct.Struct(">BxxxI")
_STDOUT = 1
_COMPLAINT_BYTES = 4096


class LostError(BackendError):
    """Init is gone, or what came from it made no sense."""


class Channel:
    """Frames to and from init."""

    def __init__(self, attached: socket.socket, keep: object) -> None:
        """`attached` is the hijacked connection; `keep` lives as long (the SDK's response)."""
        self._socket = attached
        self._keep = keep
        self._held = bytearray()
        self._decoder = Decoder()
        self._complaint = bytearray()
        self._outbox = bytearray()
        attached.setblocking(False)

    def fileno(self) -> int:
        """To wait on."""
        return self._socket.fileno()

    @property
    def unsent_bytes(self) -> int:
        """How much is queued."""
        return len(self._outbox)

    def queue(self, frame: bytes) -> None:
        """Send it when the socket takes it."""
        self._outbox += frame

    def flush_some(self) -> None:
        """Send as much of the queue as goes without waiting. LostError: nobody is there."""
        try:
            sent = self._socket.send(memoryview(self._outbox)[: 4 * READ_BYTES])
        except BlockingIOError:
            return
        except OSError as error:
            raise self.lost() from error
        del self._outbox[:sent]

    def send(self, frames: Iterable[bytes], timeout_s: float) -> None:
        """Send all of them, waiting at most `timeout_s` each time that nothing moves. LostError."""
        for frame in frames:
            self._outbox += frame
            while len(self._outbox) >= 4 * READ_BYTES:
                self._send_some(timeout_s)
        while self._outbox:
            self._send_some(timeout_s)

    def receive(self) -> list[tuple[Kind, bytes]]:
        """The frames that have come. LostError: the end, `FATAL`, or nonsense."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise self.lost() from error
        if not data:
            raise self.lost()
        self._held += data
        frames: list[tuple[Kind, bytes]] = []
        try:
            while len(self._held) >= _HEADER.size:
                stream, length = _HEADER.unpack_from(self._held)
                end = _HEADER.size + length
                if len(self._held) < end:
                    break
                piece = bytes(memoryview(self._held)[_HEADER.size : end])
                del self._held[:end]
                if stream == _STDOUT:
                    frames.extend(self._decoder.feed(piece))
                else:
                    self._complaint += piece
                    del self._complaint[:-_COMPLAINT_BYTES]
            for kind, payload in frames:
                if kind is Kind.FATAL:
                    raise LostError(f"the sandbox's init failed: {decode_json(payload)}")
        except WireError as error:
            raise LostError(f"the sandbox's init could not be understood: {error}") from error
        return frames

    def expect(self, wanted: Kind, timeout_s: float) -> bytes:
        """Wait for one frame of this kind. LostError: another came, the end, or nothing in time."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._wait(select.POLLIN, deadline_s - time.monotonic())
            for kind, payload in self.receive():
                if kind is wanted:
                    return payload
                raise LostError(f"the sandbox's init sent {kind.name} instead of {wanted.name}")

    def next_frames(self, timeout_s: float) -> list[tuple[Kind, bytes]]:
        """Wait for what comes next, at most `timeout_s`. LostError: nothing did, or the end."""
        self._wait(select.POLLIN, timeout_s)
        return self.receive()

    def astray(self, kind: Kind) -> LostError:
        """The error that tells of a frame that should not have come."""
        return LostError(f"the sandbox's init sent {kind.name} out of turn")

    def lost(self) -> LostError:
        """The error that tells what is known of init's end."""
        said = self._complaint.decode("utf-8", "replace").strip().splitlines()
        return LostError(
            "the sandbox's container ended unexpectedly" + (f": {said[-1]}" if said else "")
        )

    def close(self) -> None:
        """Let go; the engine then closes init's stdin, and init ends."""
        self._socket.close()
        close = getattr(self._keep, "close", None)
        if close is not None:
            close()
        self._keep = None

    def _send_some(self, timeout_s: float) -> None:
        ready = self._wait(select.POLLOUT | select.POLLIN, timeout_s)
        if ready & select.POLLIN:
            # Init has nothing to say while it is told: this is its end, or its reason.
            for kind, _ in self.receive():
                raise LostError(f"the sandbox's init sent {kind.name} out of turn")
        if ready & select.POLLOUT:
            self.flush_some()

    def _wait(self, events: int, timeout_s: float) -> int:
        poll = select.poll()
        poll.register(self._socket, events)
        ready = poll.poll(max(0.0, timeout_s) * 1000)
        if not ready:
            raise LostError(f"the sandbox's init did not answer within {timeout_s:.0f} seconds")
        return ready[0][1] | (select.POLLIN if ready[0][1] & select.POLLHUP else 0)
