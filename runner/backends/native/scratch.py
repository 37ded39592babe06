"""Folders of runs in the tier `process`: where all that such a run may write lies.

There is no mount of its own to vanish with it, so each is named after its owner, like a control
group, and a sweep removes those whose owner is dead.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from runner.backends.native.cgroups import owner_is_dead, owner_name
from runner.errors import BackendError
from runner.model.swept import Swept

SHARED = Path("/var/tmp")  # noqa: S108  (each folder is made anew, by a name that nobody has)
"""As root, whose state no run's user may enter."""
_PREFIX = "runner-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_PASSES = 1_000_000
"""Each pass takes a level of a tree away; no tree that a limit let grow has so many."""


def place(cache: Path) -> Path:
    """Where the folders stand; `cache` is a folder that only this user may write."""
    return SHARED if os.geteuid() == 0 else cache / "runs"


def make(parent: Path, run_id: str) -> Path:
    """A new folder for one run. BackendError: it can't be made."""
    folder = parent / f"{_PREFIX}{owner_name(run_id)}"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The run's user must pass through it as root, and sees nothing in it but its own.
        folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)  # whatever the umask is
    except OSError as error:
        raise BackendError(
            f"a folder for the run can't be made at {folder} ({error}); see that there is room "
            "and that it may be written"
        ) from error
    return folder


def remove(folder: Path) -> None:
    """Remove a folder and all in it, whatever the run made there. BackendError: something stays.

    No link is followed, and no depth is too deep: what lies deeper is moved up before it is opened.
    """
    try:
        parent = os.open(folder.parent, _FOLDER)
    except FileNotFoundError:
        return
    try:
        _empty(parent, folder.name)
        os.rmdir(folder.name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BackendError(
            f"the folder {folder} of a run that is over can't be removed ({error}); "
            "run `runner clean` later"
        ) from error
    finally:
        os.close(parent)


def sweep(parent: Path) -> Swept:
    """Remove folders whose owner is dead."""
    removed, left = [], []
    for folder in parent.glob(f"{_PREFIX}run-*"):
        with contextlib.suppress(FileNotFoundError):
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and owner_is_dead(folder.name.removeprefix(_PREFIX)):
                try:
                    remove(folder)
                except BackendError as error:
                    left.append(str(error))
                else:
                    removed.append(f"folder {folder}")
    return Swept(tuple(removed), tuple(left))


def _empty(parent: int, name: str) -> None:
    top = _opened(parent, name)
    moved = 0
    try:
        for _ in range(_MOST_PASSES):
            names = os.listdir(top)
            if not names:
                return
            for entry in names:
                if not _is_folder(top, entry):
                    os.unlink(entry, dir_fd=top)
                    continue
                inner = _opened(top, entry)
                try:
                    for below in os.listdir(inner):
                        if _is_folder(inner, below):
                            _make_ours(inner, below)
                            moved += 1
                            # No name of this form is there: a run has no write access to the top.
                            os.rename(below, f".{moved}", src_dir_fd=inner, dst_dir_fd=top)
                        else:
                            os.unlink(below, dir_fd=inner)
                finally:
                    os.close(inner)
                os.rmdir(entry, dir_fd=top)
    finally:
        os.close(top)


def _is_folder(at: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _opened(at: int, name: str) -> int:
    _make_ours(at, name)
    return os.open(name, _FOLDER, dir_fd=at)


def _make_ours(at: int, name: str) -> None:
    """Let us enter and empty a folder that the run has closed; by descriptor, no link followed."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)
