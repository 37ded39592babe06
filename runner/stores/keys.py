"""Private keys, the log's and a witness's: a folder of files that only their owner can read.

A key is on the disk before the log names it, so a log never names one that was not there. Which one
signs is the log's word alone (`checkpoints.py`): a file that it does not name, left by a process
that died in between, is never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from runner.audit import note
from runner.errors import RecordError
from runner.stores.home import fsync_folder

FOLDER_NAME = "keys"

_MOST_BYTES = 1024  # a key takes some 150


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whose keys they are, for what is said of them."""

    name: str
    lost: str
    """What to do when a key can't be used, a clause."""
    exposed: str
    """What to do when others may have it, a clause."""


LOG = KeyOwner(
    "the log",
    "nothing is signed without it, so no run starts; put it back from a copy, or, if it is lost, "
    "let `runner audit key rotate --lost` make a new one",
    "then `runner audit key rotate`",
)


class SigningKeyError(RecordError):
    """A private key can't be used, so checkpoints can't be made."""


class KeyFolder:
    """Private keys by what the log calls them: their verifier keys (`vkey`, C2SP signed-note)."""

    def __init__(self, home: Path, owner: KeyOwner = LOG) -> None:
        """`home`: the folder that it is in, the state folder for the log's."""
        self.path = home / FOLDER_NAME
        self._owner = owner

    def make(self, name: str) -> str:
        """Make a key and keep it, durably; returns its vkey. SigningKeyError: it can't be kept.

        `name`: the key's, without white space and plus signs. Any number may be made at once.
        """
        made = note.Signer(name, secrets.token_bytes(note.KEY_BYTES))
        try:
            self._make_folder()
            self._check_folder()
            self._keep(self._file(made.vkey), f"{made.private}\n".encode())
        except OSError as error:
            raise SigningKeyError(
                f"a key for {self._owner.name} can't be kept in {self.path}: "
                f"{error.strerror or error}; make room, or make the folder writable, and try again"
            ) from error
        return made.vkey

    def check(self, vkey: str) -> None:
        """SigningKeyError unless the key is there, ours alone and no link. Reads nothing of it."""
        os.close(self._open(vkey))

    def signer(self, vkey: str) -> note.Signer:
        """The private key that `vkey` belongs to. SigningKeyError: it can't be used."""
        fd = self._open(vkey)
        try:
            data = os.read(fd, _MOST_BYTES)
        except OSError as error:
            raise self._unusable(vkey, f"can't be read: {error.strerror}") from error
        finally:
            os.close(fd)
        try:
            signer = note.Signer.parse(data.decode("ascii").strip())
        except ValueError:
            raise self._unusable(vkey, "is damaged") from None
        if signer.vkey != vkey:
            raise self._unusable(vkey, "holds another key")
        return signer

    def remove(self, vkey: str) -> None:
        """Remove a key that signs no more: nobody who gets in later can sign as the past did."""
        with contextlib.suppress(OSError):  # gone already, or gone next time
            self._file(vkey).unlink()
            fsync_folder(self.path)

    def _file(self, vkey: str) -> Path:
        return self.path / f"{hashlib.sha256(vkey.encode()).hexdigest()[:16]}.key"

    def _open(self, vkey: str) -> int:
        """A descriptor of the key's file, once owner and modes are right."""
        path = self._file(vkey)
        try:
            self._check_folder()
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._unusable(vkey, "is missing") from None
        except OSError as error:
            why = "is a symbolic link" if path.is_symlink() else f"can't be read: {error.strerror}"
            raise self._unusable(vkey, why) from error
        try:
            self._check_file(vkey, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check_folder(self) -> None:
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise SigningKeyError(
                f"{self.path} is not a folder of {self._owner.name}'s keys: {self._owner.lost}"
            )
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise SigningKeyError(
                f"the folder of {self._owner.name}'s keys {self.path} is open to others "
                f"(uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}): they may have the "
                f"key; `chmod 700 {self.path}`, {self._owner.exposed}"
            )

    def _check_file(self, vkey: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise self._unusable(vkey, "is no file of its own (a link to another one?)")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            path = self._file(vkey)
            raise SigningKeyError(
                f"{self._owner.name}'s private key {path} is open to others "
                f"(uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}): they may have it; "
                f"`chmod 600 {path}`, {self._owner.exposed}"
            )

    def _unusable(self, vkey: str, what: str) -> SigningKeyError:
        return SigningKeyError(
            f"{self._owner.name}'s private key {self._file(vkey)} {what}: {self._owner.lost}"
        )

    def _make_folder(self) -> None:
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self.path.chmod(0o700)  # whatever the umask took
            fsync_folder(self.path.parent)

    def _keep(self, path: Path, data: bytes) -> None:
        """Whole and durable under its name, or not there."""
        beside = path.with_name(f".{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with open(os.open(beside, flags, 0o600), "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        fsync_folder(self.path)
