"""Fresh workspaces: a folder for each run that names none, filled with what the caller sent.

They stand in a folder of this server's own, mode 0700, under the machine's folder for temporary
files: never in the state folder, which no run may see. A lock (flock(2)) says that the server
lives; what dead ones left is removed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from runner.errors import RequestError, RunnerError

_PREFIX = f"runner-serve-{os.geteuid()}-"
_LOCK = "lock"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FreshWorkspaces:
    """All of one server. A context manager: at its end they are removed."""

    def __init__(self) -> None:
        """RunnerError: the folder can't be made."""
        try:
            _remove_left()
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
            self._lock = os.open(self._folder / _LOCK, _NEW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunnerError(
                f"there is no room for workspaces in {tempfile.gettempdir()}: {error.strerror}; "
                "mend that, or set TMPDIR"
            ) from error

    def make(self, run_id: str, files: Mapping[str, bytes]) -> Path:
        """A new folder with these files, by relative paths without `.` and `..`.

        RequestError: a path is a file and a folder. RunnerError: it can't be written.
        """
        folder = self._folder / run_id
        try:
            fill(folder, files)
        except BaseException:
            self.remove(run_id)
            raise
        return folder

    def remove(self, run_id: str) -> None:
        """Remove one; nothing is done where there is none."""
        shutil.rmtree(self._folder / run_id, ignore_errors=True)

    def close(self) -> None:
        """Remove all."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> FreshWorkspaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with these files; see `FreshWorkspaces.make`. What was made may be left."""
    try:
        folder.mkdir(mode=0o700)
        top = os.open(folder, _FOLDER)
        try:
            for path, content in files.items():
                _write(top, path, content)
        finally:
            os.close(top)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise RequestError(
                f"of the files sent, {error.filename!r} is a folder as well"
            ) from error
        raise RunnerError(
            f"the files sent can't be written to {folder}: {error.strerror}; free some space"
        ) from error


def _write(top: int, path: str, content: bytes) -> None:
    """One file below the open folder, step by step: no link is followed, nothing replaced."""
    *folders, name = path.split("/")
    at = os.dup(top)
    try:
        for each in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(each, 0o755, dir_fd=at)
            below = os.open(each, _FOLDER, dir_fd=at)
            os.close(at)
            at = below
        fd = os.open(name, _NEW, 0o644, dir_fd=at)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
    finally:
        os.close(at)


def _remove_left() -> None:
    """What servers of this user left that are dead."""
    with os.scandir(tempfile.gettempdir()) as entries:
        left = [Path(each.path) for each in entries if each.name.startswith(_PREFIX)]
    for folder in left:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            continue
        with contextlib.suppress(OSError):
            fd = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)
