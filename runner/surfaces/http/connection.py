"""One client's connection: uvicorn's, with bounds on what a slow or hostile client can hold."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runner.errors import BusyError, RequestError
from runner.surfaces.http import problems
from runner.surfaces.http.bodies import Sizes
from runner.surfaces.http.peers import peer_of

HEAD_S = 10.0
"""From connecting, or a request's first byte, to the end of its headers."""
BODY_S = 60.0
"""From there to the end of its body: 16 MiB at 280 kB/s."""
HEAD_BYTES = 64 << 10
"""Of one request's line and headers; the parser has no bound of its own."""
STALLED_S = 120.0
"""A client that takes nothing of its answer for so long is gone; of events it can come back."""
FRAMING = 2
"""A body's chunks and trailers may take as much again as the body, and no more."""
CONNECTIONS = 512
"""At once; one more is answered with 503."""
OF_ANOTHER_USER = 128
"""Of these, for each user of a unix socket but the server's own and root: a socket that others may
call at is everybody's to connect to, and nobody may keep its owner out."""


class Connection(HttpToolsProtocol):
    """Closed where a request does not arrive in time, or has no end."""

    other_uid: int | None = None
    """Whose it is, if it is another user's than the server's."""
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = True
    _message_bytes = 0
    _cycles: tuple[RequestResponseCycle, ...] = ()
    """Requests that are not answered yet, the first one is being."""

    def connection_made(self, transport: Any) -> None:
        """Look who it is; `state["peer"]` of every request's scope, and `state["cut"]` ends it."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503, BusyError.code, "there are too many connections; try again")
            return
        try:
            peer = peer_of(transport.get_extra_info("socket"))
        except OSError:  # it has gone already
            transport.abort()
            return
        if peer is not None and peer.uid not in (0, os.geteuid()):
            self.other_uid = peer.uid
            others = [getattr(each, "other_uid", None) for each in self.connections]
            if others.count(peer.uid) > OF_ANOTHER_USER:
                message = f"there are too many connections of uid {peer.uid}; try again"
                self._refuse(503, BusyError.code, message)
                return
        self.app_state = {**self.app_state, "peer": peer, "cut": transport.abort}
        self._within(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._within(None)
        self._taken()
        super().connection_lost(exc)
        for cycle in self._cycles:  # uvicorn tells the last one alone
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._taken()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Count what a message takes, headers, chunks' lengths and trailers included."""
        self._message_bytes += len(data)
        if self._timer is None and self._is_idle():
            self._within(HEAD_S)  # line ends between requests begin none, and end uvicorn's timer
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._message_bytes > HEAD_BYTES:
            self._refuse(431, RequestError.code, f"the headers take more than {HEAD_BYTES} bytes")
        elif self._message_bytes > HEAD_BYTES + FRAMING * self._most_body():
            self._refuse(413, RequestError.code, "the request has no end")

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._in_head, self._message_bytes = True, 0
        self._within(HEAD_S)

    def on_headers_complete(self) -> None:
        """Its headers are there."""
        self._in_head, self._message_bytes = False, 0
        self._within(BODY_S)
        super().on_headers_complete()
        left = [each for each in self._cycles if not each.response_complete]
        self._cycles = (*left, self.cycle)

    def on_message_complete(self) -> None:
        """All of it is."""
        self._within(None)
        self._message_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """It goes on as a `WebSocketConnection`, which is not waited for as a request is."""
        self._within(None)
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(400, RequestError.code, msg)

    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _most_body(self) -> int:
        app: Any = self.config.app
        sizes: Sizes = app.state.sizes
        return sizes.most_bytes

    def _within(self, wait_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait_s is not None:
            self._timer = self.loop.call_later(wait_s, self._late)

    def _taken(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _late(self) -> None:
        self._timer = None
        self._refuse(408, RequestError.code, "the request did not arrive in time")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer where that is possible still, and close."""
        if self._is_idle():
            body = bytes(problems.document(status, code, message).body)
            head = f"HTTP/1.1 {status} refused\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()
