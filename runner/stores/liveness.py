"""Who is alive: each supervisor holds a `flock` on a file of its own, and the kernel lets go of it
when the process is gone, however it went. No process ids, which are used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".lock"
_ID = re.compile(r"[0-9a-f]{32}")


class LiveLock:
    """The sign of life of one supervisor: held from `take` to `release`, or to its death."""

    def __init__(self, supervisor_id: str, path: Path, fd: int) -> None:
        self.supervisor_id = supervisor_id
        self._path = path
        self._fd: int | None = fd

    @staticmethod
    def take(folder: Path) -> LiveLock:
        """A new supervisor id with its file made and locked. OSError: it can't be."""
        while True:
            supervisor_id = secrets.token_hex(16)
            path = folder / f"{supervisor_id}{_SUFFIX}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink > 0:
                    return LiveLock(supervisor_id, path, fd)
            # A recovery came between making and locking, took it for a dead one's and removed it.
            os.close(fd)

    def release(self) -> None:
        """Remove the file and let go; may be called twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: close the copy of the parent's lock, which stays the parent's."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


@contextmanager
def claimed(folder: Path, supervisor_id: str) -> Iterator[bool]:
    """Whether that supervisor is dead; while True is held, nobody else finds it so.

    A missing file counts as dead: a supervisor that lives has one. So does an id that never was.
    """
    if not _ID.fullmatch(supervisor_id):
        yield True
        return
    path = folder / f"{supervisor_id}{_SUFFIX}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def living(folder: Path) -> list[str]:
    """Ids of the supervisors that live now; nothing is changed."""
    found = []
    for supervisor_id in known_supervisors(folder):
        try:
            fd = os.open(folder / f"{supervisor_id}{_SUFFIX}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(supervisor_id)
        finally:
            os.close(fd)
    return found


def known_supervisors(folder: Path) -> list[str]:
    """Ids of all supervisors that have a file, dead ones too."""
    return sorted(p.name.removesuffix(_SUFFIX) for p in folder.glob(f"*{_SUFFIX}"))
