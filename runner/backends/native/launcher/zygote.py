"""The clean process from which every sandbox of one supervisor is forked.

One thread, an empty environment, no secret ever in it. Each request is a packet with five
descriptors: the run's control socket, the plan, and the program's three streams. The answer is
the builder's process id. It ends when the supervisor does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import NoReturn

from runner.backends.native.launcher import builder, kernel
from runner.backends.native.launcher.process_builder import ProcessBuilder
from runner.backends.native.launcher.protocol import PeerGoneError, read_plan, receive, send
from runner.backends.native.launcher.session_builder import SessionBuilder

CHANNEL_FD = 3
REQUEST_FDS = 5


def main(channel_fd: int) -> NoReturn:
    """Serve the supervisor on the socket that is descriptor `channel_fd`."""
    if channel_fd != CHANNEL_FD:
        os.dup2(channel_fd, CHANNEL_FD)
    kernel.close_all_from(CHANNEL_FD + 1)
    # From here on nothing is imported: a builder and init run where the module path may lead into
    # a workspace, which the program has written.
    sys.meta_path.clear()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # builders are reaped by the kernel
    # A killed builder's init too: the machine's own process 1 may take its time.
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    channel = socket.socket(fileno=CHANNEL_FD)
    try:
        while True:
            _serve(channel)
    except PeerGoneError:
        os._exit(0)


def _serve(channel: socket.socket) -> None:
    message, fds = receive(channel, REQUEST_FDS)
    if message["do"] == "hello":
        send(channel, {"pid": os.getpid()})
        return
    if len(fds) != REQUEST_FDS:
        for fd in fds:
            os.close(fd)
        send(channel, {"error": f"a request carries {REQUEST_FDS} descriptors, not {len(fds)}"})
        return
    try:
        child = os.fork()
    except OSError as error:
        child = -1
        send(channel, {"error": f"fork: {error}"})
    if child == 0:
        _become_builder(channel, fds)
    for fd in fds:
        os.close(fd)
    if child > 0:
        send(channel, {"pid": child})


def _become_builder(channel: socket.socket, fds: list[int]) -> NoReturn:
    try:
        channel.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control_fd, plan_fd, *streams = fds
        control = socket.socket(fileno=control_fd)
        plan, blobs = read_plan(plan_fd)
        os.close(plan_fd)
        kind: type[builder.Builder] = builder.Builder
        if plan["isolation"] == "process":
            kind = ProcessBuilder
        elif plan["hold"]:
            kind = SessionBuilder
        builder.main(kind, control, plan, blobs, (streams[0], streams[1], streams[2]))
    except BaseException as error:  # never return into the zygote's loop
        os.write(2, f"runner launcher: {type(error).__name__}: {error}\n".encode())
    os._exit(125)
