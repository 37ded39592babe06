"""A caller's own streams in the hands of a run: open files of the process that called.

Taken by pidfd_getfd(2), which asks what ptrace(2) asks: so from no process that this one could not
control anyway. It is for the server's own user alone (`access.is_own_user`), whose every program
could do the same; one in a sandbox is not that user.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from runner.errors import OtherServerError
from runner.ports import OutputSink
from runner.schema.api_bodies import AttachBody, OpenFile
from runner.streams import FdSink, NullSink
from runner.surfaces.http.peers import Peer

_PIDFD_GETFD = 438  # asm-generic/unistd.h, Linux 5.6; the same on all that came since


class Attached:
    """Descriptors of our own for those of the caller; `close` them."""

    def __init__(self, peer: Peer, wanted: AttachBody) -> None:
        """OtherServerError: one can't be taken, or is not what the caller means."""
        self._fds: list[int] = []
        try:
            with _process(peer) as process:
                self.stdin = self._take(process, wanted.stdin)
                stdout = self._take(process, wanted.stdout)
                stderr = self._take(process, wanted.stderr)
        except OSError as error:
            self.close()
            raise _cant(f"{error.strerror}") from error
        except OtherServerError:
            self.close()
            raise
        self.stdout: OutputSink = NullSink() if stdout is None else FdSink(stdout)
        self.stderr: OutputSink = NullSink() if stderr is None else FdSink(stderr)

    def close(self) -> None:
        """Let go of them; may be called twice."""
        while self._fds:
            os.close(self._fds.pop())

    def _take(self, process: int, wanted: OpenFile | None) -> int | None:
        if wanted is None:
            return None
        fd: int = _libc.syscall(_PIDFD_GETFD, process, wanted.descriptor, 0)
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._fds.append(fd)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (wanted.device, wanted.inode):
            raise _cant(f"its descriptor {wanted.descriptor} is not what it says")
        return fd


@contextlib.contextmanager
def _process(peer: Peer) -> Iterator[int]:
    fd = os.pidfd_open(peer.pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _cant(why: str) -> OtherServerError:
    return OtherServerError(f"open files of the calling process can't be taken: {why}")


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
