"""Finds what lies beneath the run's own folders, and nothing else, for a caller that is hostile.

What the proof stands on: the program can't move a file into these folders or out of them, by name
or by a link, for Landlock refuses both (LANDLOCK_ACCESS_FS_REFER). So whether a file lies beneath
them never changes, however names change while they are looked at; and that a folder does is
proven by its way up, that a file does by being found in such a folder. What is found is a
descriptor, and only that is acted upon.

All is opened with O_PATH and in the mount of these folders alone, so no device, FIFO, automount or
file of a server is ever waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from runner.backends.native.launcher import kernel

_PATH = os.O_PATH | os.O_CLOEXEC
_FOLDER = _PATH | os.O_DIRECTORY
_RESOLVE = kernel.RESOLVE_NO_MAGICLINKS | kernel.RESOLVE_NO_XDEV
MOST_LINKS = 40
"""More the kernel does not follow either (MAXSYMLINKS, path_resolution(7))."""
MOST_LEVELS = 2048
"""Deeper no path of PATH_MAX bytes leads."""
_TRIES = 8
"""So often a file may be renamed while its name is looked up."""


class Folders:
    """The folders of a run that its program may change."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Opens them. OSError."""
        self._held = [os.open(path, _FOLDER | os.O_NOFOLLOW) for path in paths]
        found = [os.fstat(fd) for fd in self._held]
        # They are held open, so that no other folder can get these numbers.
        self._roots = {(one.st_dev, one.st_ino) for one in found}
        self._names: dict[bytes, int] = {}
        for path, fd in zip(paths, self._held, strict=True):
            self._names[os.fsencode(path)] = fd
            self._names[os.readlink(os.fsencode(f"/proc/self/fd/{fd}"))] = fd  # as getcwd(3) says

    def has(self, fd: int) -> bool:
        """Whether it is open at one of these folders itself."""
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) in self._roots

    @contextlib.contextmanager
    def by_path(self, start: int, path: bytes, *, follow: bool) -> Iterator[int]:
        """What `path` names for somebody in the folder `start`; `follow`: a link at its end too.

        OSError: what openat2(2) says of the path, or EPERM where it leads elsewhere.
        """
        with contextlib.ExitStack() as opened:
            for _ in range(MOST_LINKS):
                start, path = self._begin(start, path)
                above, slash, name = path.rpartition(b"/")
                itself = name in (b"", b".", b"..")
                folder = _opened(opened, start, path if itself else above + slash or b".", _FOLDER)
                if not self._leads_up(folder):
                    raise _elsewhere()
                if itself:
                    yield folder
                    return
                fd = _opened(opened, folder, name, _PATH | os.O_NOFOLLOW)
                if not (follow and stat.S_ISLNK(os.fstat(fd).st_mode)):
                    yield fd
                    return
                start, path = folder, os.readlink(b"", dir_fd=fd)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _begin(self, start: int, path: bytes) -> tuple[int, bytes]:
        """An absolute path by the folder that it begins with, so that nothing above is walked."""
        if not path.startswith(b"/"):
            return start, path
        for name, fd in self._names.items():
            if path == name or path.startswith(name + b"/"):
                return fd, path[len(name) :].lstrip(b"/") or b"."
        raise _elsewhere()

    @contextlib.contextmanager
    def by_descriptor(self, fd: int) -> Iterator[int]:
        """What `fd` is open at. OSError, EPERM: it lies elsewhere, or can't be shown not to.

        Where it says it lies is a hint and no more: it counts when the same file is found there.
        """
        wanted = os.fstat(fd)
        if stat.S_ISDIR(wanted.st_mode) and self._is_shown(fd):
            yield fd
            return
        with contextlib.ExitStack() as opened:
            for _ in range(_TRIES):
                hint = os.readlink(os.fsencode(f"/proc/self/fd/{fd}"))
                if not hint.startswith(b"/"):
                    break  # a pipe or a socket
                try:
                    found = opened.enter_context(self.by_path(fd, hint, follow=False))
                except (FileNotFoundError, NotADirectoryError):
                    continue  # renamed, or removed
                if os.path.samestat(os.fstat(found), wanted):
                    yield found
                    return
        raise _elsewhere()

    def _is_shown(self, folder: int) -> bool:
        try:
            return self._leads_up(folder)
        except PermissionError:
            return False  # its name may show it

    def _leads_up(self, folder: int) -> bool:
        """Whether the way up from a folder comes by one of the run's, in the same mount.

        OSError, EACCES: a folder on it may not be searched.
        """
        here = os.dup(folder)
        try:
            for _ in range(MOST_LEVELS):
                if self.has(here):
                    return True
                found = os.fstat(here)
                try:
                    above = kernel.open_at(here, b"..", _FOLDER, _RESOLVE)
                except OSError as error:
                    if error.errno == errno.EXDEV:
                        return False  # another mount begins there
                    raise
                os.close(here)
                here = above
                if os.path.samestat(os.fstat(here), found):
                    return False  # the root
        finally:
            os.close(here)
        return False


def _opened(opened: contextlib.ExitStack, dirfd: int, path: bytes, flags: int) -> int:
    try:
        fd = kernel.open_at(dirfd, path, flags, _RESOLVE)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _elsewhere() from error
        raise
    opened.callback(os.close, fd)
    return fd


def _elsewhere() -> PermissionError:
    return PermissionError(errno.EPERM, "not beneath the run's own folders")
