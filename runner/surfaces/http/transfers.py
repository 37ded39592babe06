"""Contents of a session's files between a thread that waits and the loop: piece by piece, so that
neither a whole file nor a slow client takes any memory here.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from runner.errors import RequestError, TooLargeError
from runner.surfaces.http.bodies import Sizes

_PIECES = 2
"""Of at most 256 KiB, that wait for a client."""


class Upload(io.RawIOBase):
    """A request's body, read by another thread; who is cut off sends less than was said."""

    def __init__(self, request: Request) -> None:
        """In the loop's thread. RequestError: how long it is has to be said; TooLargeError."""
        stated = request.headers.get("content-length")
        if stated is None or not stated.isdigit():
            raise RequestError(
                "say how long the file is, by Content-Length: what is cut off could not be told "
                "from what is whole"
            )
        self.size_bytes = int(stated)
        sizes: Sizes = request.app.state.sizes
        if self.size_bytes > sizes.most_bytes:
            raise TooLargeError(
                f"the file is larger than {sizes.most_bytes} bytes, which is all that this server "
                "takes at once"
            )
        self._pieces = request.stream()
        self._loop = asyncio.get_running_loop()

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """The next piece, of whatever size; nothing: that was all, or the caller has gone away."""
        del size
        try:
            return asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        except BaseException:  # the loop ends, and this thread has to as well
            return b""

    async def _next(self) -> bytes:
        with contextlib.suppress(StopAsyncIteration, ClientDisconnect):
            while True:
                if piece := await anext(self._pieces):
                    return piece
        return b""


class Download(io.RawIOBase):
    """What another thread writes, for an answer."""

    def __init__(self) -> None:
        """In the loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)
        self._is_left = False

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Waits until there is room. BrokenPipeError: nobody reads any more."""
        self._put(bytes(data))
        return len(data)

    def finish(self) -> None:
        """No more comes; from the writer's thread, whatever happened."""
        with contextlib.suppress(BrokenPipeError):
            self._put(None)

    async def next(self) -> bytes | None:
        """In the loop: the next piece; None: that was all."""
        return await self._pieces.get()

    def leave(self) -> None:
        """In the loop: nobody reads any more, so nobody writes."""
        self._is_left = True
        while not self._pieces.empty():
            self._pieces.get_nowait()

    def _put(self, piece: bytes | None) -> None:
        try:
            done = asyncio.run_coroutine_threadsafe(self._pieces.put(piece), self._loop).result()
        except BaseException as error:  # the loop ends
            raise BrokenPipeError("nobody reads any more") from error
        if self._is_left:
            raise BrokenPipeError("nobody reads any more")
        return done


class Listing:
    """Takes a listing's lines, the first so many bytes of them."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.text = bytearray()
        self.is_cut = False

    def write(self, data: bytes) -> int:
        """What is too much is not kept."""
        left = self._most_bytes - len(self.text)
        self.text += data[:left]
        self.is_cut = self.is_cut or len(data) > left
        return len(data)

    def lines(self) -> list[bytes]:
        """Those that are whole."""
        return bytes(self.text).split(b"\n")[:-1]


class Sent(StreamingResponse):
    """A download as an answer; `end` is called when it is over, or the caller has gone away."""

    def __init__(self, pieces: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
        super().__init__(pieces, media_type="application/octet-stream", headers=headers)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()
