"""A secret of the state folder: a file that only its owner can read, made by whoever is first."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from pathlib import Path

from runner.errors import RecordError
from runner.stores.home import fsync_folder

KEY_BYTES = 32
"""As many as HMAC-SHA-256 puts out: RFC 2104, 3, wants no fewer."""


class SecretFile:
    """Random bytes, made when they are first asked for; all threads and processes share them."""

    def __init__(self, path: Path, size_bytes: int = KEY_BYTES) -> None:
        """`path`: in a folder of its own, which is made with mode 0700."""
        self.path = path
        self._size_bytes = size_bytes
        self._bytes: bytes | None = None
        self._lock = threading.Lock()

    def get(self) -> bytes:
        """The bytes. RecordError: they can't be read or made, or are open to others."""
        with self._lock:
            if self._bytes is None:
                try:
                    found = self._read()
                    self._bytes = self._make() if found is None else found
                except OSError as error:
                    raise RecordError(
                        f"the key {self.path}, which what is redacted is marked by, can't be read "
                        f"or made: {error.strerror or error}; mend that and run again"
                    ) from error
            return self._bytes

    def _read(self) -> bytes | None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise self._refused("is no file of yours")
            if status.st_mode & 0o077:
                raise self._refused(f"is open to others (mode {status.st_mode & 0o7777:04o})")
            data = file.read(self._size_bytes + 1)
        if len(data) != self._size_bytes:
            raise self._refused(f"holds {len(data)} bytes and not {self._size_bytes}")
        return data

    def _make(self) -> bytes:
        """Whole under its name, or not there; whose is linked first is everybody's."""
        with contextlib.suppress(FileExistsError):
            self.path.parent.mkdir(mode=0o700)
            self.path.parent.chmod(0o700)  # whatever the umask took
            fsync_folder(self.path.parent.parent)
        beside = self.path.with_name(f".{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(secrets.token_bytes(self._size_bytes))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(beside, self.path)
        finally:
            beside.unlink(missing_ok=True)
        fsync_folder(self.path.parent)
        made = self._read()
        if made is None:
            raise self._refused("went while it was made")
        return made

    def _refused(self, why: str) -> RecordError:
        return RecordError(
            f"the key {self.path}, which what is redacted is marked by, {why}; put the right one "
            "back with mode 0600, or remove it and a new one is made"
        )
