"""Where a server is, and connections to it."""

from __future__ import annotations

import http.client
import os
import socket
import stat
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runner.errors import RequestError, UnreachableError

if TYPE_CHECKING:
    import ssl

CONNECT_S = 10.0
SILENT_S = 60.0
"""A server says something every 15 seconds while a run goes on; one that does not is gone."""
_CREDENTIALS = struct.Struct("iII")
"""`struct ucred` (unix(7))."""
_PR_SET_PTRACER = 0x59616D61  # linux/prctl.h
_FORMS = "unix:PATH, https://HOST:PORT, or http://HOST:PORT on this machine"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is."""

    text: str
    """As it was given."""
    path: str | None
    """Of a unix socket; None: it is at a port."""
    host: str = "runner"
    port: int = 0
    tls: ssl.SSLContext | None = None
    own: bool = False
    """Of a unix socket: whether only a server of this process's user is talked to."""

    def connection(self) -> http.client.HTTPConnection:
        """A new one, made. UnreachableError: nobody answers there, or who does is not trusted."""
        made: http.client.HTTPConnection
        if self.path is not None:
            made = _UnixConnection(self)
        elif self.tls is not None:
            made = http.client.HTTPSConnection(
                self.host, self.port, timeout=CONNECT_S, context=self.tls
            )
        else:
            made = http.client.HTTPConnection(self.host, self.port, timeout=CONNECT_S)
        try:
            made.connect()
            made.sock.settimeout(SILENT_S)
        except OSError as error:  # ssl.SSLError is one
            made.close()
            why = getattr(error, "verify_message", None) or error.strerror or str(error)
            raise UnreachableError(
                f"no server answers at {self.text}: {why}; `runner serve` starts one"
            ) from error
        return made


def place_of(where: str, ca: str | os.PathLike[str] | None = None, *, own: bool = False) -> Place:
    """What is meant by `unix:PATH`, `https://HOST:PORT` or `http://HOST:PORT`. RequestError.

    `ca`: a file of certificates (PEM) that the server's has to come from; the machine's own else.
    """
    if where.startswith("unix:"):
        path = where.removeprefix("unix:")
        if not path or "\0" in path or ca is not None:
            raise RequestError(f"{where!r} is no place of a server: {_FORMS}; ca goes with https")
        return Place(where, os.path.abspath(path), own=own)  # noqa: PTH100  (links stay)
    try:
        parts = urlsplit(where)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if not host or parts.scheme not in ("http", "https") or parts.path not in ("", "/"):
        raise RequestError(f"{where!r} is no place of a server: {_FORMS}")
    if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        raise RequestError(f"{where!r} holds more than a place; a key is given as key=")
    if parts.scheme == "https":
        import ssl  # noqa: PLC0415  (takes as long as all else here)

        try:
            context = ssl.create_default_context(cafile=None if ca is None else os.fspath(ca))
        except (OSError, ValueError) as error:
            raise RequestError(f"ca {os.fspath(ca or '')!r} can't be used: {error}") from error
        return Place(where, None, host, port or 443, context)
    if not _is_loopback(host) or ca is not None:
        raise RequestError(f"{where!r} would let keys be seen on their way: use https")
    return Place(where, None, "127.0.0.1" if host == "localhost" else host, port or 80)


def check_own(path: str) -> None:
    """UnreachableError: others could have put a socket there.

    The folder and the socket are this user's, and nobody else may write to the folder.
    """
    folder = Path(path).parent
    try:
        above, itself = folder.stat(), Path(path).lstat()
    except OSError as error:
        raise UnreachableError(f"no server listens at {path}: {error.strerror}") from error
    uid = os.geteuid()
    if not stat.S_ISSOCK(itself.st_mode):
        raise UnreachableError(f"no server listens at {path}: it is no socket")
    if above.st_uid != uid or itself.st_uid != uid or above.st_mode & 0o022:
        raise UnreachableError(f"{path} is not this user's alone, so nobody there is trusted")


class _UnixConnection(http.client.HTTPConnection):
    """Over a unix socket."""

    def __init__(self, place: Place) -> None:
        super().__init__("runner", timeout=CONNECT_S)
        self._place = place

    def connect(self) -> None:
        """OSError; UnreachableError: it is not of this process's user, and has to be."""
        path = self._place.path or ""
        if self._place.own:
            check_own(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        self.sock.connect(path)
        if self._place.own:
            pid, uid, _ = _peer(self.sock)
            if uid != os.geteuid():
                raise UnreachableError(f"the server at {path} is not of this user")
            _let_take_descriptors(pid)


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end."""
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(told)
    return pid, uid, gid


def _let_take_descriptors(pid: int) -> None:
    """Let that process have open files of this one, where only ancestors may (Yama, scope 1).

    prctl(2), PR_SET_PTRACER. Where it changes nothing the server says that it can't have them.
    """
    try:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text("ascii").strip()
    except (OSError, ValueError):
        return
    if scope == "1":
        import ctypes  # noqa: PLC0415  (only there)

        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
