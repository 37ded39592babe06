"""The words that supervisor, zygote and builder exchange.

Messages are JSON objects, one a packet, over AF_UNIX SOCK_SEQPACKET socket pairs that nobody else
holds. A plan is larger than a packet may be and carries bytes, so it travels in a memfd: eight
bytes length of the JSON header, the header, then the blobs that it points into.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import signal
import socket
import struct
from typing import Any

MESSAGE_BYTES = 128 * 1024
"""No message is larger; lists are sent in parts."""

Message = dict[str, Any]


class PeerGoneError(Exception):
    """The other end of the socket is closed."""


def send(channel: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message, with descriptors beside it. PeerGoneError if nobody is there."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        channel.sendmsg([json.dumps(message).encode("ascii")], ancillary)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise PeerGoneError from error


def receive(channel: socket.socket, most_fds: int = 0) -> tuple[Message, list[int]]:
    """Wait for one message. PeerGoneError at the end."""
    fds = array.array("i")
    try:
        data, ancillary, _, _ = channel.recvmsg(
            MESSAGE_BYTES, socket.CMSG_SPACE(most_fds * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError as error:
        raise PeerGoneError from error
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        raise PeerGoneError
    message = json.loads(data)
    if not isinstance(message, dict):
        raise PeerGoneError
    return message, list(fds)


def end_with_peer(channel: socket.socket) -> None:
    """From now on end this process as soon as the other end closes, whatever it is doing.

    By SIGIO (fcntl(2), F_SETOWN): a search through many files does not look at its socket. The
    signal comes by the rights of who asked for it, so a process that changes its user asks again.
    """

    def look(*_: object) -> None:
        # One of its own each time: a signal may come in the middle of another's look.
        poller = select.poll()
        poller.register(channel, 0)  # POLLHUP is always told
        if poller.poll(0):
            os._exit(0)

    signal.signal(signal.SIGIO, look)
    fcntl.fcntl(channel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(channel, fcntl.F_SETFL, fcntl.fcntl(channel, fcntl.F_GETFL) | os.O_ASYNC)
    look()


def write_plan(header: Message, blobs: list[bytes]) -> int:
    """Put a plan into a memfd; `header` refers to a blob by its index. Returns the descriptor."""
    offsets = []
    position = 0
    for blob in blobs:
        offsets.append([position, len(blob)])
        position += len(blob)
    text = json.dumps({**header, "blobs": offsets}).encode("ascii")
    fd = os.memfd_create("plan", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(struct.pack("=Q", len(text)))
        file.write(text)
        for blob in blobs:
            file.write(blob)
    return fd


def read_plan(fd: int) -> tuple[Message, list[bytes]]:
    """What `write_plan` wrote."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        (length,) = struct.unpack("=Q", file.read(8))
        header: Message = json.loads(file.read(length))
        blobs = [file.read(size) for _, size in header["blobs"]]
    return header, blobs
