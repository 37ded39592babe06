"""The contents of what runs changed: `changes/<run id>/` in the state folder, mode 0700.

Each content is a file named by its SHA-256; `manifest.json` lists them all and is written last. All
are on the disk before the run's last event names its digest. So what a kill or a power cut leaves
is whole, or has no manifest and counts as nothing. Whoever works on a run's folder holds a lock on
it (flock(2)).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.changes.manifest import SIZE_HEAD_BYTES, size_of
from runner.errors import StateError
from runner.ports import Clock, KeptRun
from runner.stores.home import fsync_folder
from runner.stores.kept import check_run_id

MANIFEST = "manifest.json"
LEFT = "left.json"
_PART = ".part"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TRIES = 8
_BLOCK_BYTES = 1 << 16
"""Of a content that holds nothing but zeros such a piece becomes a hole again."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ChangeArchive:
    """All that is kept; implements `ports.ChangeArchive`."""

    def __init__(self, home: Path, clock: Clock, most_run_bytes: int) -> None:
        """`home`: the state folder; `most_run_bytes`: of the contents of one run; 0 keeps none."""
        self._folder = home / "changes"
        self._clock = clock
        self._most_run_bytes = most_run_bytes

    def keeper(self, run_id: str) -> Keeper | None:
        """For one run that begins; None when contents are not kept at all."""
        if self._most_run_bytes == 0:
            return None
        return Keeper(self._folder / check_run_id(run_id), self._clock, self._most_run_bytes)

    @contextmanager
    def held(self, run_id: str) -> Iterator[HeldChanges | None]:
        """What is kept of a run, for this block alone; None: nothing (any more).

        StateError: somebody else works on it.
        """
        path = self._folder / check_run_id(run_id)
        fd = _locked(path)
        try:
            whole = fd is not None and (path / MANIFEST).is_file()
            yield HeldChanges(path) if whole else None
        finally:
            if fd is not None:
                os.close(fd)

    def runs(self) -> list[KeptRun]:
        """What is kept, oldest first; what a kill left unfinished counts as of no time and size."""
        found = []
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._folder):
                if entry.is_dir(follow_symlinks=False):
                    found.append(_kept_run(Path(entry.path)))
        return sorted(found, key=lambda run: (run.kept_s, run.run_id))

    def discard(self, run_id: str) -> bool:
        """Remove what is kept of a run; False: somebody works on it now, or it is gone."""
        path = self._folder / check_run_id(run_id)
        try:
            fd = _locked(path)
        except StateError:
            return False
        if fd is None:
            return False
        try:
            _remove(path)
        finally:
            os.close(fd)
        return True

    def sweep_is_due(self, every_s: float) -> bool:
        """Whether nobody swept for so long; notes that somebody does now."""
        mark = self._folder / ".swept"
        now_s = self._clock.now()
        try:
            if 0 <= now_s - mark.stat().st_mtime < every_s:
                return False
        except FileNotFoundError:
            if not self._folder.is_dir():
                return False
        mark.touch(mode=0o600)
        os.utime(mark, (now_s, now_s))
        return True


class Keeper:
    """Takes in the contents of one run; implements `ports.ChangeKeeper`."""

    def __init__(self, path: Path, clock: Clock, most_bytes: int) -> None:
        self._path = path
        self._clock = clock
        self._left_bytes = self._most_bytes = most_bytes
        self._lock: int | None = None
        self._names: set[str] = set()
        self.kept_bytes = 0

    def refusal(self, size_bytes: int) -> str | None:
        """Why a content of this size would not be kept, or None; what is admitted is counted."""
        if size_bytes > self._left_bytes:
            return f"the run changed more than keep_changes_bytes ({self._most_bytes}) keeps"
        self._left_bytes -= size_bytes
        return None

    def begin(self) -> Content:
        """The next content."""
        try:
            self._open()
            return Content(self, self._path, os.open(self._path / _PART, _NEW, 0o600))
        except OSError as error:
            return Content(self, self._path, None, _not_kept(error))

    def kept(self, name: str, size_bytes: int) -> None:
        """A content is in the folder. It is synced with all others, when much of it is written."""
        self._names.add(name)
        self.kept_bytes += size_bytes

    def finish(self, manifest: bytes) -> str | None:
        """Make it durable; why it could not be, in a clause, and then nothing is kept."""
        try:
            self._open()
            for name in self._names:
                _fsync(self._path / name)
            _write_durably(self._path, MANIFEST, manifest, self._clock.now())
            fsync_folder(self._path)
            fsync_folder(self._path.parent)
        except OSError as error:
            self.abandon()
            return _not_kept(error)
        self._unlock()
        return None

    def abandon(self) -> None:
        """Keep nothing of this run."""
        if self._lock is not None:
            with suppress(OSError):  # the sweep removes what can't be removed now
                _remove(self._path)
            self._unlock()

    def _open(self) -> None:
        if self._lock is not None:
            return
        with suppress(FileExistsError):
            self._path.parent.mkdir(mode=0o700)
            fsync_folder(self._path.parent.parent)
        # A sweep may take a folder that nobody holds yet for a leftover, once.
        for _ in range(_TRIES):
            self._path.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self._path, _FOLDER)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self._path.exists():
                return
            self._unlock()
        raise OSError(errno.EAGAIN, "it was swept away again and again")

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Content:
    """One content on its way into the folder; implements `ports.ContentFile`."""

    def __init__(
        self, keeper: Keeper, folder: Path, fd: int | None, failure: str | None = None
    ) -> None:
        self._keeper = keeper
        self._folder = folder
        self._fd = fd
        self._failure = failure
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._sha256.update(data)
        if self._fd is not None and self._failure is None:
            try:
                write_sparsely(self._fd, data, self._size_bytes)
            except OSError as error:
                self._failure = _not_kept(error)
        self._size_bytes += len(data)

    def finish(self) -> tuple[str, str | None]:
        """Digest, and why it is not kept, or None."""
        digest = self._sha256.hexdigest()
        if self._fd is None:
            return digest, self._failure
        part = self._folder / _PART
        try:
            if self._failure is None:
                os.ftruncate(self._fd, self._size_bytes)
                part.replace(self._folder / digest)
                self._keeper.kept(digest, self._size_bytes)
            else:
                part.unlink()
        except OSError as error:
            self._failure = _not_kept(error)
        finally:
            os.close(self._fd)
            self._fd = None
        return digest, self._failure


class HeldChanges:
    """What is kept of one run, held alone; implements `ports.HeldChanges`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def manifest(self) -> bytes:
        """The list, as it was kept."""
        return _read(self._path / MANIFEST)

    def done(self) -> frozenset[int]:
        """Numbers of the changes in the list that were applied already."""
        try:
            told = json.loads(_read(self._path / LEFT))
            return frozenset(int(number) for number in told)
        except (FileNotFoundError, ValueError, TypeError):
            return frozenset()  # at worst a change is found applied once more

    def open(self, sha256: str) -> int:
        """A descriptor to read a content from its beginning, which is what its digest says.

        StateError: it is not there, or not what was kept.
        """
        if not _DIGEST.fullmatch(sha256):
            raise StateError(f"{sha256!r} is no digest, so nothing can be kept by it")
        path = self._path / sha256
        try:
            fd = os.open(path, _OLD)
        except OSError as error:
            raise StateError(f"the content in {path} can't be read: {error.strerror}") from error
        found = hashlib.sha256()
        while chunk := os.read(fd, 1 << 20):
            found.update(chunk)
        if found.hexdigest() != sha256:
            os.close(fd)
            raise StateError(f"the content in {path} is not what was kept; discard the changes")
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def settle(self, done: frozenset[int], needed: frozenset[str]) -> None:
        """Note what was applied, durably, and remove all contents but the `needed` ones."""
        text = json.dumps(sorted(done)).encode("ascii")
        kept_s = (self._path / MANIFEST).stat().st_mtime
        _write_durably(self._path, LEFT, text, kept_s)
        for file in self._path.iterdir():
            if _DIGEST.fullmatch(file.name) and file.name not in needed:
                file.unlink()

    def remove(self) -> None:
        """All of it."""
        _remove(self._path)


def write_sparsely(fd: int, data: bytes, position: int) -> None:
    """Write at `position`, and leave out pieces of zeros; the file's size is set by the caller."""
    view = memoryview(data)
    for start in range(0, len(view), _BLOCK_BYTES):
        block = view[start : start + _BLOCK_BYTES]
        if not any(block):
            continue
        written = 0
        while written < len(block):
            written += os.pwrite(fd, block[written:], position + start + written)


def _locked(path: Path) -> int | None:
    """A lock on the folder, as a descriptor; None: there is none. StateError: it is taken."""
    try:
        fd = os.open(path, _FOLDER)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} can't be opened: {error.strerror}; remove it") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StateError(
            f"somebody else is at work on the changes of {path.name}; try again when they are done"
        ) from None
    if not path.exists():  # removed by whoever held it before
        os.close(fd)
        return None
    return fd


def _kept_run(path: Path) -> KeptRun:
    try:
        fd = os.open(path / MANIFEST, _OLD)
    except OSError:
        return KeptRun(path.name, 0.0, 0, whole=False)
    try:
        contents_bytes, listed = size_of(os.read(fd, SIZE_HEAD_BYTES)), os.fstat(fd)
        whole = contents_bytes is not None
        # The list counts as well: a run may make thousands of empty files with long names.
        size_bytes = (contents_bytes or 0) + listed.st_size
        return KeptRun(path.name, listed.st_mtime, size_bytes if whole else 0, whole=whole)
    finally:
        os.close(fd)


def _read(path: Path) -> bytes:
    fd = os.open(path, _OLD)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _write_durably(folder: Path, name: str, data: bytes, time_s: float) -> None:
    """Whole or not at all, on the disk when this returns."""
    part = folder / f".{name}"
    fd = os.open(part, _NEW, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.utime(fd, (time_s, time_s))
        os.fsync(fd)
    finally:
        os.close(fd)
    part.replace(folder / name)


def _fsync(path: Path) -> None:
    fd = os.open(path, _OLD)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    """The manifest first, so that what a kill leaves of it counts as nothing."""
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def _not_kept(error: OSError) -> str:
    return f"it could not be written to the state folder ({error.strerror})"
