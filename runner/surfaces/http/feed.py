"""What happens in one run, as numbered events that any number of readers follow.

Whoever tells never waits, and what is held has a bound: where readers are slower than the run, the
oldest events go, and a reader that missed some is told so. What was kept of the output is there to
be read all the same.

Whoever began a run and follows it in the same breath is its owner: of output that one is sent,
nothing goes, for the program waits while too much of it has not been taken.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import orjson

from runner.pacing import Pace

FEED_BYTES = 512 << 10
"""Held of one run. A reader over a slow line is some seconds behind; more than that is for
`output`."""
UNTAKEN_BYTES = 128 << 10
"""Of output events that the owner has not taken: then the program waits. A piece has at most
64 KiB, 86 in base64, so that nothing goes before that."""
EVENT_BYTES = 200
"""What an event takes beside its data, about."""
LAST = "end"
"""The id of the last event, the outcome: a reader that has it has all."""
HEARTBEAT_S = 15.0
"""So often something is sent, or nobody would find out that a reader is gone."""


@dataclass(frozen=True, slots=True)
class Told:
    """One event."""

    id: str
    kind: str
    """`decision`, `output`, `usage`, `dropped`, `outcome`, `error`."""
    data: bytes
    """JSON."""

    def encoded(self) -> bytes:
        """As server-sent events have it (HTML Living Standard, 9.2); JSON has no line ends."""
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            self.id.encode(),
            self.kind.encode(),
            self.data,
        )


class Feed:
    """The events of one run. `tell` and `end` from any thread, `follow` in the loop's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        most_bytes: int = FEED_BYTES,
        pace: Pace | None = None,
    ) -> None:
        """`loop`: the readers'; `pace`: holds the program back for the owner, until `disown`."""
        self._loop = loop
        self._pace = pace
        self._untaken_bytes = 0
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._first: Told | None = None
        self._recent: deque[tuple[int, Told]] = deque()
        self._last: Told | None = None
        self._next = 1
        self.held_bytes = 0
        self._offsets = {"stdout": 0, "stderr": 0}
        self._readers: set[asyncio.Event] = set()
        self._waking = False

    def tell(self, kind: str, data: Mapping[str, object]) -> None:
        """The next event."""
        encoded = orjson.dumps(data)
        with self._lock:
            if self._last is not None:
                return
            number, self._next = self._next, self._next + 1
            told = Told(str(number), kind, encoded)
            if self._first is None:
                self._first = told  # the decision: it stays
            else:
                self._recent.append((number, told))
            self.held_bytes += len(encoded) + EVENT_BYTES
            if self._pace is not None and kind == "output":
                self._untaken_bytes += len(encoded)
                if self._untaken_bytes >= UNTAKEN_BYTES:
                    self._pace.hold()
            while self.held_bytes > self._most_bytes and self._recent:
                self.held_bytes -= len(self._recent.popleft()[1].data) + EVENT_BYTES
        self._wake()

    def output(self, stream: str, data: bytes) -> None:
        """A piece of output; text where the piece is UTF-8 by itself."""
        offset = self._offsets[stream]
        self._offsets[stream] += len(data)
        try:
            told = {"data": data.decode(), "encoding": "utf-8"}
        except UnicodeDecodeError:
            told = {"data": base64.b64encode(data).decode(), "encoding": "base64"}
        self.tell("output", {"stream": stream, "offset": offset, **told})

    def disown(self) -> None:
        """There is no owner any more: the program waits for nobody."""
        with self._lock:
            pace, self._pace = self._pace, None
        if pace is not None:
            pace.go_on()

    def _taken(self, told: Told) -> None:
        """The owner has it."""
        with self._lock:
            if self._pace is not None and told.kind == "output":
                self._untaken_bytes -= len(told.data)
                if self._untaken_bytes < UNTAKEN_BYTES:
                    self._pace.go_on()

    def end(self, kind: str, data: Mapping[str, object]) -> None:
        """The last event."""
        with self._lock:
            if self._last is None:
                self._last = Told(LAST, kind, orjson.dumps(data))
                self.held_bytes += len(self._last.data) + EVENT_BYTES
        self._wake()

    async def follow(self, after: int, *, owner: bool = False) -> AsyncIterator[Told | None]:
        """The events behind that number, and those to come; None: nothing happens for now.

        `owner`: it is the one for whom the program waits; there is one at most.
        """
        reader = asyncio.Event()
        self._readers.add(reader)
        if after >= self._next:
            after = 0  # no event of this feed ever had that number
        try:
            while True:
                reader.clear()
                found, after, ended = self._behind(after)
                for told in found:
                    yield told
                    if owner:
                        self._taken(told)
                if ended:
                    return
                if not found:
                    try:
                        async with asyncio.timeout(HEARTBEAT_S):
                            await reader.wait()
                    except TimeoutError:
                        yield None
        finally:
            self._readers.discard(reader)

    def _behind(self, after: int) -> tuple[list[Told], int, bool]:
        """A few events behind that number, what a reader is at then, and whether that was all."""
        with self._lock:
            found = [self._first] if self._first is not None and after < 1 else []
            after = max(after, len(found))
            oldest = self._recent[0][0] if self._recent else self._next
            if self._first is not None and oldest > after + 1:
                missed = {"from": after + 1, "to": oldest - 1}
                found.append(Told(str(oldest - 1), "dropped", orjson.dumps(missed)))
                after = oldest - 1
            # Not all at once: whoever reads slowly holds no more than this beside the feed.
            for number, told in self._recent:
                if number > after:
                    found.append(told)
                    after = number
                    if len(found) >= _AT_ONCE:
                        return found, after, False
            if self._last is not None:
                found.append(self._last)
            return found, after, self._last is not None

    def _wake(self) -> None:
        with self._lock:
            if self._waking or not self._readers:
                return
            self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._awake)
        except RuntimeError:  # the loop is closed: nobody reads any more
            return

    def _awake(self) -> None:
        with self._lock:
            self._waking = False
        for reader in self._readers:
            reader.set()


_AT_ONCE = 32
