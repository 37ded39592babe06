"""Fresh workspaces of sessions: they stand as long as their session goes on, whoever serves it.

A server's other fresh workspaces go with it; a session outlives its server, and so does its folder.
Each stands by itself under the machine's folder for temporary files (a workspace never lies in the
state folder), with a note beside it of whose it is. What the log says has ended is removed by any
server of the same state folder: when the next begins or ends, but for the latest, whose changes can
still be looked at, and all of it when a server ends. A lock (flock(2)) says that it is being made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orjson

from runner.errors import RunnerError
from runner.surfaces.http.fresh import fill

KEPT = 16
"""Of sessions that have ended; with what was sent for each, which is as large as a request."""
_PREFIX = f"runner-session-{os.geteuid()}-"
_LOCK, _NOTE, _WORK = "lock", "session.json", "work"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class SessionFolders:
    """Those of one state folder; for all threads of a server."""

    def __init__(self, home: Path, goes_on: Callable[[str], bool]) -> None:
        """`goes_on`: whether the log says so of a session."""
        self._home = str(home.resolve())
        self._goes_on = goes_on

    @contextlib.contextmanager
    def fresh(self, files: Mapping[str, bytes]) -> Iterator[tuple[Path, Callable[[str], None]]]:
        """A workspace with these files, and who is to be told the session's id once there is one.

        At an exception it is removed. RequestError, RunnerError: see `fresh.fill`.
        """
        self.sweep(KEPT)
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        except OSError as error:
            raise RunnerError(
                f"there is no room for workspaces in {tempfile.gettempdir()}: {error.strerror}; "
                "mend that, or set TMPDIR"
            ) from error

        def began(session_id: str) -> None:
            note = orjson.dumps({"home": self._home, "session": session_id})
            with open(os.open(folder / _NOTE, _NEW, 0o600), "wb") as file:
                file.write(note)

        try:
            lock = os.open(folder / _LOCK, _NEW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                fill(folder / _WORK, files)
                yield folder / _WORK, began
            finally:
                os.close(lock)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def sweep(self, kept: int) -> None:
        """Remove those whose session has ended, but for the latest."""
        ended = []
        with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX):
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        if self._is_over(Path(entry.path), status):
                            ended.append((status.st_mtime, entry.path))
        for _, path in sorted(ended, reverse=True)[kept:]:
            shutil.rmtree(path, ignore_errors=True)

    def _is_over(self, folder: Path, status: os.stat_result) -> bool:
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or _is_locked(folder):
            return False
        try:
            note = orjson.loads((folder / _NOTE).read_bytes())
            home, session_id = str(note["home"]), str(note["session"])
        except (OSError, ValueError, KeyError, TypeError):
            return True  # it began no session, or its server died as it did
        if home != self._home:
            return not Path(home).exists()
        return not self._goes_on(session_id)


def _is_locked(folder: Path) -> bool:
    """Whether it is being made. One without a lock is not: that is the first thing in it."""
    try:
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
