"""One client's WebSocket (RFC 6455): uvicorn's, with bounds on what a hostile client can hold."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto import events

from runner.surfaces.http.bodies import READING_BYTES, Sizes

MESSAGE_BYTES = 256 << 10
"""Of each message but the first, which is a body: all connections together can hold no more than
there is room for."""
PING_S = 20.0
"""So often it is asked whether the client is there."""
STALLED_S = 120.0
"""A client that takes nothing, and answers nothing, for so long is gone."""
TOO_LARGE = 1009
"""RFC 6455, 7.4.1."""
TRY_LATER = 1013
"""https://www.iana.org/assignments/websocket: what 503 is over HTTP."""


class WebSocketConnection(WSProtocol):
    """Closed where a client takes too much, or is not there."""

    other_uid: int | None = None
    """As `Connection` has it."""
    _stalled: asyncio.TimerHandle | None = None
    _held_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """It is another connection's, which has looked already who it is."""
        super().connection_made(transport)
        peer = self.app_state.get("peer")
        if peer is not None and peer.uid not in (0, os.geteuid()):
            self.other_uid = peer.uid

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is held any more."""
        self._taken()
        self._count(-self._held_bytes)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._taken()
        super().resume_writing()

    def handle_message(self, event: events.TextMessage | events.BytesMessage) -> None:
        """A piece of one; all that are not whole yet are counted among the bodies being read."""
        data = event.data
        self._count(len(data.encode() if isinstance(data, str) else data))
        if self._sizes.held_bytes > READING_BYTES:
            self._refuse(TRY_LATER, "other requests hold all the room for bodies; try again")
            return
        if self._held_bytes > self.buffer.max_length:
            self._refuse(TOO_LARGE, f"a message is larger than {self.buffer.max_length} bytes")
            return
        super().handle_message(event)
        if event.message_finished:
            self._count(-self._held_bytes)
            self.buffer.max_length = MESSAGE_BYTES

    def handle_ping(self, event: events.Ping) -> None:
        """Answered unless it takes no answers."""
        if self.writable.is_set():
            super().handle_ping(event)

    def keepalive_timeout(self) -> None:
        """No answer came; perhaps because nothing of it is read, while the program does not."""
        if self.read_paused:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()  # where nobody is there any more, sending that tells
        else:
            super().keepalive_timeout()

    @property
    def _sizes(self) -> Sizes:
        app: Any = self.config.app
        sizes: Sizes = app.state.sizes
        return sizes

    def _count(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        self._sizes.held_bytes += size_bytes

    def _refuse(self, code: int, why: str) -> None:
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": why})
        if not self.transport.is_closing():
            self.transport.write(self.conn.send(events.CloseConnection(code=code, reason=why)))
            self.transport.close()

    def _taken(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
