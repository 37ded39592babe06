"""Requests and their answers over connections that are kept, for all threads of a process.

What was cut is sent again where that can't do anything twice: what only looks, and what has a key
that the same server knows (`Runner-Server`). Everything else is told as what it is: nobody knows.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import urlencode

from runner.client.parsing import Fields, decoded
from runner.client.place import Place
from runner.errors import AnswerError, OtherServerError, RunnerError, UnreachableError, error_of

AGAIN_AFTER_S = (0.05, 0.2, 0.5, 1.0, 2.0)
"""So long it is waited before each further try."""
MOST_BYTES = 256 << 20
"""Of one answer; a server keeps 1 MiB of each stream unless it is told otherwise."""
_PIECE_BYTES = 1 << 18
_MOST_IDLE = 8
_IDLE_S = 20.0
"""A server keeps an idle connection 30 s; one that it is about to close is not used."""
JSON_TYPE = "application/json"
EVENTS_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def document(self) -> object:
        """As JSON."""
        return decoded(self.body, f"status {self.status}")

    @property
    def run_id(self) -> str | None:
        """Of the run that its Location names."""
        return run_id_of(self.headers)


@dataclass(slots=True)
class _Idle:
    connection: http.client.HTTPConnection
    since_s: float = field(default_factory=time.monotonic)


class Channel:
    """To one server."""

    def __init__(self, place: Place, key: str | None = None) -> None:
        """`key`: a key of the API, or an issuer's token."""
        self.place = place
        self._headers = {"Accept": JSON_TYPE}
        if key is not None:
            if not key.isascii() or not key.isprintable() or " " in key or not key:
                raise UnreachableError("the key holds what no key and no token holds")
            self._headers["Authorization"] = f"Bearer {key}"
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []
        self._pid = os.getpid()
        self.instance: str | None = None
        """The server process that answered first; None: none has, or it does not say."""

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        again: bool | None = None,
    ) -> Answer:
        """An answer of 2xx; what else is answered is raised as the error that it tells.

        `again`: whether it can be sent again when the connection is cut; None: if it is a GET.
        UnreachableError, AnswerError.
        """
        tries = AGAIN_AFTER_S if (method == "GET" if again is None else again) else ()
        sent = dict(headers or {})
        first: UnreachableError | None = None
        for wait_s in (0.0, *tries):
            time.sleep(wait_s)
            try:
                answer = self._once(method, with_query(path, query), body, sent)
            except UnreachableError as error:
                if first is None and not error.sent:
                    raise
                first = first or error
                if method != "GET" and self.instance is not None:
                    sent["Runner-Server"] = self.instance
                continue
            return self._checked(answer, first)
        if first is None:
            raise UnreachableError(f"no server answers at {self.place.text}")
        raise first

    @contextlib.contextmanager
    def events(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[http.client.HTTPResponse, bool]]:
        """An answer that goes on, and whether it is one; sent once. Closed at the end.

        UnreachableError; what is refused is raised as what it is.
        """
        sent = {"Accept": EVENTS_TYPE, **(headers or {})}
        connection = self._take()
        try:
            response = self._sent(connection, method, path, body, sent)
            if not _is_framed(response):
                raise _cut(self.place, "in the headers of an answer")
            if response.status != 200 or response.headers.get_content_type() != EVENTS_TYPE:
                answer = self._read(response)
                self._checked(answer, None)
                if answer.status != 204:
                    raise AnswerError(f"the server answers {method} {path} with no events")
                yield response, False
                return
            yield response, True
        finally:
            connection.close()

    @contextlib.contextmanager
    def contents(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: tuple[BinaryIO, int] | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """An answer of 2xx, piece by piece as it comes; asked once. Closed at the end.

        `body`: what is sent, and how many bytes of it. UnreachableError; what is refused is raised.
        """
        connection = self._take()
        try:
            with _told_as_cut(self.place):
                sent = dict(self._headers)
                if body is not None:
                    sent["Content-Length"] = str(body[1])
                content = None if body is None else body[0]
                # A server that does not want it says so before all of it is there.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, with_query(path, query), content, sent)
                response = connection.getresponse()
            if response.status >= 300:
                self._checked(self._read(response), None)
            yield self._pieces(response)
        finally:
            connection.close()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            with _told_as_cut(self.place):
                # Not `read1`, which takes an answer that was cut for one that has ended.
                data = response.read(_PIECE_BYTES)
            if not data:
                return
            yield data

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.connection.close()

    def _once(
        self, method: str, path: str, body: Mapping[str, object] | None, headers: Mapping[str, str]
    ) -> Answer:
        connection = self._take()
        try:
            response = self._sent(connection, method, path, body, headers)
            answer = self._read(response)
        except BaseException:
            connection.close()
            raise
        self._give_back(connection, response)
        return answer

    def _sent(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        whole = {**self._headers, **headers}
        data = None
        if body is not None:
            data = json.dumps(body, ensure_ascii=True, allow_nan=False).encode("ascii")
            whole["Content-Type"] = JSON_TYPE
        with _told_as_cut(self.place):
            connection.request(method, path, data, whole)
            response = connection.getresponse()
        said = response.headers.get("Runner-Server")
        if self.instance is None:
            self.instance = said
        return response

    def _read(self, response: http.client.HTTPResponse) -> Answer:
        length = response.length
        with _told_as_cut(self.place):
            body = response.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise AnswerError(f"the server answers with more than {MOST_BYTES} bytes")
        if not _is_framed(response) or (length is not None and len(body) < length):
            raise _cut(self.place, "in the middle of an answer")
        return Answer(response.status, response.headers, body)

    def _checked(self, answer: Answer, first: UnreachableError | None) -> Answer:
        if answer.status < 300:
            return answer
        if answer.status < 400:
            raise AnswerError(f"the server answers with status {answer.status}")
        error = refusal(answer)
        error.run_id = answer.run_id
        if first is not None and isinstance(error, OtherServerError):
            raise UnreachableError(f"{first}; since then it was started anew: {error}") from first
        raise error

    def _take(self) -> http.client.HTTPConnection:
        with self._lock:
            if self._pid != os.getpid():  # the connections are the parent's
                self._idle, self._pid = [], os.getpid()
            idle, self._idle = self._idle, []
            usable = [each for each in idle if _is_usable(each)]
            taken = usable.pop() if usable else None
            self._idle = usable
        for each in idle:
            if each is not taken and each not in usable:
                each.connection.close()
        return self.place.connection() if taken is None else taken.connection

    def _give_back(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        with self._lock:
            if not response.will_close and len(self._idle) < _MOST_IDLE and connection.sock:
                self._idle.append(_Idle(connection))
                return
        connection.close()


def refusal(answer: Answer) -> RunnerError:
    """The error that an answer tells; AnswerError where it tells none."""
    f = Fields(answer.document(), f"the answer of status {answer.status}")
    inner = Fields(f.raw("error"), "the error")
    f.done()
    error = error_of(inner.text("code"), inner.text("message"))
    inner.done()
    return error


def run_id_of(headers: http.client.HTTPMessage) -> str | None:
    """Of the run that Location names."""
    place = headers.get("Location", "")
    name = place.removeprefix("/v1/runs/")
    return name if name != place and name.isascii() and "/" not in name and name else None


def with_query(path: str, query: Mapping[str, object] | None) -> str:
    """The path with what is asked; lists name a thing several times, None is left out."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


@contextlib.contextmanager
def _told_as_cut(place: Place) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _cut(place, why) from error


def _cut(place: Place, why: str) -> UnreachableError:
    error = UnreachableError(f"the connection to the server at {place.text} was cut: {why}")
    error.sent = True
    return error


def _is_framed(response: http.client.HTTPResponse) -> bool:
    """Whether its headers say where it ends; of those that were cut http.client makes an answer."""
    return response.chunked or response.length is not None


def _is_usable(idle: _Idle) -> bool:
    """A server that has closed it makes it readable."""
    sock = idle.connection.sock
    if sock is None or time.monotonic() - idle.since_s > _IDLE_S:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)
