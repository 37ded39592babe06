"""Who is at the other end of a unix socket, on the kernel's word."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CREDENTIALS = struct.Struct("iII")
"""`struct ucred` (unix(7))."""
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
_SO_PEERPIDFD = 77
_MOST_GROUPS = 65_536  # NGROUPS_MAX of linux/limits.h


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was then."""

    pid: int
    uid: int
    gid: int
    confined: bool
    """Whether it is held more tightly than this server: a program in a sandbox of the same user has
    that user's uid, and is not the user."""
    groups: tuple[int, ...] = ()
    """Supplementary ones, with those of its user namespace that this one knows."""


def peer_of(sock: Any) -> Peer | None:
    """The peer of a connection's socket, or of asyncio's stand-in for it; None: it is no unix one.

    OSError: the kernel does not say.
    """
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(told)
    return Peer(pid, uid, gid, _is_confined(pid) or _has_ended(sock), _groups(sock))


def _has_ended(sock: Any) -> bool:
    """Whether the process is gone, so that its number may be another's that was looked at.

    Asked after looking; a kernel before Linux 6.5 can't be asked.
    """
    try:
        fd = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        return error.errno != errno.ENOPROTOOPT  # ESRCH: it is reaped already
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(fd)


def _groups(sock: Any) -> tuple[int, ...]:
    """None where the kernel does not tell (before Linux 4.13), or there are more than there can."""
    for most in (64, _MOST_GROUPS):
        try:
            told = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * most)
        except OSError:  # ERANGE: there are more
            continue
        return tuple(number for (number,) in struct.iter_unpack("=I", told))
    return ()


def _is_confined(pid: int) -> bool:
    """In another user namespace, or under seccomp filters that this process is not under.

    Filters can only be counted: some, but another number than this process has, are others.

    What can't be looked at counts: another user's process, one that has ended, or one of a pid
    namespace that is not seen from here (0).
    """
    try:
        theirs, ours = Path(f"/proc/{pid}"), Path("/proc/self")
        elsewhere = (theirs / "ns/user").readlink() != (ours / "ns/user").readlink()
        # Fewer than this process has, but some: not those that it was started under, as a service
        # manager gives a server filters that the users of its socket do not have.
        return pid == 0 or elsewhere or _filters(theirs) not in (0, _filters(ours))
    except (OSError, ValueError):
        return True


def _filters(process: Path) -> int:
    """How many seccomp filters hold a process (proc_pid_status(5), Linux 5.9)."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("Seccomp_filters:"):
            return int(line.split()[1])
    raise ValueError("the kernel does not tell")
