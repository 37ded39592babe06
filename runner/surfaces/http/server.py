"""Serving: one process, one event loop, and an end that leaves no run without its record."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop
from fastapi import FastAPI

from runner.app import Runner
from runner.clock import SystemClock
from runner.errors import RunnerError, SettingsError
from runner.surfaces.http.app import create_app
from runner.surfaces.http.authentication import Authenticator
from runner.surfaces.http.connection import Connection
from runner.surfaces.http.fresh import FreshWorkspaces
from runner.surfaces.http.jobs import Room
from runner.surfaces.http.listening import (
    Listen,
    Tcp,
    TlsFiles,
    UnixSocket,
    check_listening,
    tcp_socket,
    tls_options,
)
from runner.surfaces.http.meant import INSTANCE, Basis, Itself
from runner.surfaces.http.notifying import READY, STOPPING, notify
from runner.surfaces.http.peer_rules import socket_mode
from runner.surfaces.http.service import Service
from runner.surfaces.http.socket_file import listening, passed
from runner.surfaces.http.websocket import PING_S, STALLED_S, WebSocketConnection

KEEP_ALIVE_S = 30
ANSWERING_S = 5
"""What is still being answered at the end, after all runs have ended, gets so long."""
FILES = 8192
"""Descriptors: 256 runs at once, and all connections."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Serving:
    """How a server is run."""

    listen: Listen | None
    """None: at the unix socket that a service manager passed."""
    sockets: int
    """How many it passed."""
    tls: TlsFiles | None
    """Of a port; None: what is said there can be read on its way."""
    room: Room
    folders: tuple[Path, ...]
    grace_s: float
    """Runs may end so long after a signal; then they are cancelled."""
    body_bytes: int
    basis: Basis | None = None
    """What it runs by, as it stood before any of that was read."""
    notify: str | None = None
    """Where a service manager is told how it goes; see `notifying`."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """What signals mean is `_serve`'s."""
        yield


def serve(runner: Runner, how: Serving, ready: Callable[[Listen | None], None]) -> None:
    """Serve until a signal; `ready`: called once requests are answered, with where that is.

    RequestError: it can't listen there; SettingsError: it must not. SIGTERM, SIGINT or SIGHUP: no
    run begins any more (503), those that run have `grace_s`, or until a second signal, are
    cancelled then, and are recorded either way; what is looked up is answered until then.
    """
    _allow_files()
    peers, issuers = (
        runner.settings.server_peers.value, runner.settings.server_issuers.value
    )  # fmt: skip
    proves_callers = bool(issuers) or bool(runner.keys.in_force())
    if how.listen is not None:
        check_listening(how.listen, how.tls, proves_callers=proves_callers)
    elif how.tls is not None:
        raise SettingsError("the socket that was passed has no use for TLS: leave it out")
    authenticate = Authenticator(runner.store, SystemClock(), peers, issuers)
    with contextlib.ExitStack() as stack:
        fresh = stack.enter_context(FreshWorkspaces())
        sock, where = stack.enter_context(_listening(how, socket_mode(peers)))
        stack.callback(authenticate.failures.finish)
        app = create_app(
            runner,
            authenticate,
            fresh,
            room=how.room,
            folders=how.folders,
            body_bytes=how.body_bytes,
            itself=Itself(how.basis),
        )
        service: Service = app.state.service
        stack.callback(service.sessions.close)
        runner.backend()  # rather now than in the first run
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(_serve(app, sock, how, lambda: ready(where)))


@contextlib.contextmanager
def _listening(how: Serving, mode: int) -> Iterator[tuple[socket.socket, Listen | None]]:
    """The socket, and where it is; `mode`: of a unix socket that is made."""
    if how.listen is None:
        with passed(how.sockets) as made:
            yield made, None
    elif isinstance(how.listen, UnixSocket):
        with listening(how.listen.path, mode) as made:
            yield made, how.listen
    else:
        with tcp_socket(how.listen) as made:
            yield made, Tcp(how.listen.host, made.getsockname()[1])


def _allow_files() -> None:
    """A run takes some ten descriptors, a connection one; what programs get is their profile's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(
    app: FastAPI, sock: socket.socket, how: Serving, ready: Callable[[], None]
) -> None:
    service: Service = app.state.service
    stop, hurry = asyncio.Event(), asyncio.Event()

    def told_to_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for each in _SIGNALS:
        loop.add_signal_handler(each, told_to_stop)
    server = _Server(_config(app, how.tls))
    unheard: RunnerError | None = None
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(_until_served(server, sock, stop))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            ready()
            try:
                notify(how.notify, READY)
            except RunnerError as error:
                unheard = error
                stop.set()
        await stop.wait()
        with contextlib.suppress(RunnerError):  # it is told by the end as well
            notify(how.notify, STOPPING)
        await service.jobs.stop(how.grace_s, hurry)
        server.should_exit = True
    if unheard is not None:
        raise unheard


async def _until_served(server: _Server, sock: socket.socket, stop: asyncio.Event) -> None:
    try:
        await server.serve([sock])
    finally:
        stop.set()


def _config(app: FastAPI, tls: TlsFiles | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws=WebSocketConnection,
        ws_max_size=app.state.sizes.most_bytes,
        ws_per_message_deflate=False,  # a few bytes would become very many
        ws_ping_interval=PING_S,
        ws_ping_timeout=STALLED_S,
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[(INSTANCE, app.state.itself.instance)],
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=ANSWERING_S,
        **tls_options(tls),
    )
