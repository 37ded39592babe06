"""What is kept of the runs: `stdout`, `stderr` and `program` in `runs/<run id>/`, mode 0600."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from runner.errors import RecordError, StateError
from runner.model.keeping import Kept

STREAMS = ("stdout", "stderr", "program")
_RUN_ID = re.compile(r"[a-z0-9_-]{1,128}")


def check_run_id(run_id: str) -> str:
    """`run_id` if it can be a run's (`[a-z0-9_-]`, at most 128), which also makes it a file name.

    RecordError: it can't.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise RecordError(
            f"{run_id!r} is no run id: those are lower-case letters, digits, '-' and '_'"
        )
    return run_id


class KeptOutput:
    """The files under one `runs` folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, run_id: str, stream: str, data: bytes) -> None:
        """Add `data` to the stream's file. RecordError: it could not be written."""
        path = self._path(run_id, stream)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, flags, 0o600)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            finally:
                os.close(fd)
        except OSError as error:
            raise RecordError(
                f"{stream} of run {run_id} could not be kept in {path}: {error.strerror}; "
                "free some space or mend the folder and run again"
            ) from error

    def read(self, run_id: str, stream: str) -> bytes | None:
        """What was kept, or None when nothing was. StateError: it could not be read."""
        path = self._path(run_id, stream)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(fd, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StateError(
                f"what was kept in {path} could not be read: {error.strerror}; mend its mode"
            ) from error

    def listing(self) -> Iterator[Kept]:
        """Every run of which something is kept. StateError: the folder can't be read."""
        try:
            with os.scandir(self._folder) as folders:
                names = [f.name for f in folders if f.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise StateError(
                f"{self._folder} can't be read: {error.strerror}; mend its mode"
            ) from error
        for name in names:
            if _RUN_ID.fullmatch(name):
                status = [found for found in map(_status, self._files(name)) if found is not None]
                if status:
                    yield Kept(
                        name,
                        max(found.st_mtime for found in status),
                        sum(found.st_size for found in status),
                    )

    def discard(self, run_id: str) -> str | None:
        """Remove what is kept of a run; None, or why some of it is still there."""
        try:
            for path in self._files(run_id):
                path.unlink(missing_ok=True)
            (self._folder / run_id).rmdir()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                return None  # something else is kept of the run as well
            return (
                f"kept output {error.filename} could not be removed: {error.strerror}; mend that "
                "and run `runner clean`"
            )
        return None

    def _files(self, run_id: str) -> list[Path]:
        return [self._folder / run_id / stream for stream in STREAMS]

    def _path(self, run_id: str, stream: str) -> Path:
        if stream not in STREAMS:
            raise RecordError(f"{stream!r} is nothing that is kept: {', '.join(STREAMS)}")
        return self._folder / check_run_id(run_id) / stream


def _status(path: Path) -> os.stat_result | None:
    """None: it is not there, or went this moment."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
