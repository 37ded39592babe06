"""The unix socket that a server listens at: nobody but whom its mode lets can connect, ever."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from runner.errors import RequestError

BACKLOG = 128
_FIRST_PASSED = 3
"""SD_LISTEN_FDS_START."""
_MOST_BYTES = 107
"""`sun_path` (unix(7)), without the byte that ends it."""


@contextlib.contextmanager
def listening(path: Path, mode: int = 0o600) -> Iterator[socket.socket]:
    """A listening socket at this path; at the end it is removed.

    One that a dead server left is replaced. RequestError: somebody listens there, something else
    stands there, or nothing can be made there.
    """
    if len(os.fsencode(path)) > _MOST_BYTES:
        raise RequestError(f"{path} is too long for a socket: {_MOST_BYTES} bytes at most")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_alone(path))
            _remove_left(path)
            made = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            before = os.umask(0o777 & ~mode)
            try:
                made.bind(os.fspath(path))
            finally:
                os.umask(before)
            stack.callback(_remove, path, path.lstat())
            made.listen(BACKLOG)
        except OSError as error:
            raise RequestError(f"can't listen at {path}: {error.strerror}") from error
        yield made


@contextlib.contextmanager
def passed(count: int) -> Iterator[socket.socket]:
    """The listening socket that a service manager passed (sd_listen_fds(3)); it stays there.

    RequestError: it passed several, or what it passed is no unix socket that listens.
    """
    if count != 1:
        raise RequestError(f"{count} sockets were passed; give this server one")
    try:
        made = socket.socket(fileno=_FIRST_PASSED)
        listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise RequestError(f"what was passed is no socket: {error.strerror}") from error
    with made:
        if made.family != socket.AF_UNIX or made.type != socket.SOCK_STREAM or not listens:
            raise RequestError("what was passed is no unix stream socket that listens")
        made.set_inheritable(False)
        yield made


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One server at a time: a lock beside the socket, as long as it lives."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path.with_name(f"{path.name}.lock"), flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise RequestError(f"another server listens at {path}; end it, or name another") from None
    try:
        yield
    finally:
        os.close(fd)


def _remove(path: Path, own: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        if os.path.samestat(path.lstat(), own):
            path.unlink()


def _remove_left(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise RequestError(f"{path} is there already and no socket; name another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise RequestError(f"somebody listens at {path}; end that, or name another")
