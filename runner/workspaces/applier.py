"""Applies one change to a workspace folder: whole or not at all, and only over what the run saw."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable

from runner.changes.plan import Fate, Result
from runner.errors import StateError
from runner.model.outcome import Change, ChangeKind, Original
from runner.workspaces.folder import (
    CHUNK_BYTES,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    ConflictError,
    MissingFolderError,
    Standing,
    WorkspaceFolder,
    identity,
    new_file,
    rename,
    standing,
    umask,
)

OpenContent = Callable[[str], int]
"""A descriptor of the content of this digest; StateError: there is none."""

_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""What renameat2(2) says where the file system does not know a flag."""


class StrandedError(OSError):
    """What stood at a path could not be put back; the message says where it is."""


class Applier:
    """Applies changes of one run to one folder."""

    def __init__(self, folder: WorkspaceFolder, run_id: str, content: OpenContent) -> None:
        """`content` is called with this process's own rights, the rest is done with the owner's."""
        self._folder = folder
        self._run_id = run_id
        self._content = content
        self._umask = umask()

    def look(self, change: Change) -> Result | None:
        """What becomes of a change without touching anything; None: it would be applied."""
        try:
            with self._folder.as_owner():
                return self._judge(change, self._folder.standing(change.path))
        except ConflictError as error:
            return _in_conflict(change, error)
        except OSError as error:
            return Result(change, Fate.FAILED, _told(error))

    def apply(self, change: Change) -> Result:
        """Do it; what stands in the way is told, never raised."""
        source = -1
        try:
            if _is_content(change):
                source = self._content(change.sha256 or "")
            with self._folder.as_owner(), self._folder.parent(change.path) as (folder_fd, name):
                found = standing(folder_fd, name)
                said = self._judge(change, found)
                if said is not None:
                    return said
                if change.kind is ChangeKind.DELETED:
                    self._delete(change, folder_fd, name, found)
                elif change.type == "directory":
                    self._make_folder(change, folder_fd, name, found)
                else:
                    self._place(change, folder_fd, name, found, source)
                os.fsync(folder_fd)
        except ConflictError as error:
            return _in_conflict(change, error)
        except StateError as error:
            return Result(change, Fate.WITHHELD, str(error))
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                return Result(change, Fate.CHANGED, "the folder holds something that the run left")
            return Result(change, Fate.FAILED, _told(error))
        finally:
            if source >= 0:
                os.close(source)
        return Result(change, Fate.APPLIED)

    def _judge(self, change: Change, found: Standing | None) -> Result | None:
        now = found.is_ if found is not None else None
        if change.kind is ChangeKind.DELETED:
            if now is None:
                return Result(change, Fate.ALREADY, "it is gone already")
        elif now is not None and _is_like(change, now):
            return Result(change, Fate.ALREADY, "it is as the run left it")
        if change.kind is ChangeKind.CREATED:
            if now is not None:
                return Result(change, Fate.CHANGED, f"a {now.type} was put there meanwhile")
            return None
        if now is None and change.original is not None and change.original.type == "directory":
            return None  # what was to make way is gone, perhaps by an attempt that was killed
        why = _moved_on(change.original, now)
        return Result(change, Fate.CHANGED, why) if why else None

    def _spare(self, name: bytes) -> bytes:
        """A name beside the path's, the same whenever this change is tried."""
        told = self._run_id.encode() + b"/" + name
        return b".runner-apply-" + hashlib.sha256(told).hexdigest()[:20].encode("ascii")

    def _make_folder(
        self, change: Change, folder_fd: int, name: bytes, found: Standing | None
    ) -> None:
        if found is None:
            self._folder.check_parent(change.path, folder_fd)
            os.mkdir(name, 0o777 & ~self._umask, dir_fd=folder_fd)
            return
        # A file or a link makes way; it stands aside until the folder is there.
        spare = self._spare(name)
        os.mkdir(spare, 0o777 & ~self._umask, dir_fd=folder_fd)
        try:
            self._exchange(change, folder_fd, spare, name, found)
        except StrandedError:
            raise
        except BaseException:
            os.rmdir(spare, dir_fd=folder_fd)
            raise
        os.unlink(spare, dir_fd=folder_fd)

    def _place(
        self, change: Change, folder_fd: int, name: bytes, found: Standing | None, source: int
    ) -> None:
        """Put a file or a link into place."""
        if found is not None and stat.S_ISDIR(found.mode):
            self._folder.check_parent(change.path, folder_fd)
            os.rmdir(name, dir_fd=folder_fd)  # only when all that was in it is gone
            found = None
        spare = self._spare(name)
        self._write(change, folder_fd, spare, found, source)
        try:
            if found is not None:
                self._exchange(change, folder_fd, spare, name, found)
            else:
                self._folder.check_parent(change.path, folder_fd)
                _rename_new(folder_fd, spare, name)
                return
        except StrandedError:
            raise
        except BaseException:
            os.unlink(spare, dir_fd=folder_fd)
            raise
        os.unlink(spare, dir_fd=folder_fd)

    def _write(
        self, change: Change, folder_fd: int, spare: bytes, found: Standing | None, source: int
    ) -> None:
        if change.type == "symlink":
            target = os.pread(source, CHUNK_BYTES, 0)
            try:
                os.symlink(target, spare, dir_fd=folder_fd)
            except FileExistsError:
                os.unlink(spare, dir_fd=folder_fd)
                os.symlink(target, spare, dir_fd=folder_fd)
            return
        fd = new_file(folder_fd, spare)
        try:
            size_bytes = _copy(source, fd)
            os.ftruncate(fd, size_bytes)
            mode = self._mode(change, found)
            if (
                found is not None
                and stat.S_ISREG(found.mode)
                and not self._folder.keep_group(fd, found)
            ):
                # Another group stands there instead, which gets no more than anybody has.
                mode = mode & ~0o070 | (mode & 0o007) << 3
            os.fchmod(fd, mode)
            os.fsync(fd)
        except BaseException:
            os.unlink(spare, dir_fd=folder_fd)
            raise
        finally:
            os.close(fd)

    def _mode(self, change: Change, found: Standing | None) -> int:
        """The mode that the file has, with only the right to execute it changed; never set-uid."""
        if found is None or not stat.S_ISREG(found.mode):
            return (0o777 if change.executable else 0o666) & ~self._umask
        mode = stat.S_IMODE(found.mode) & 0o777
        if not change.executable:
            return mode & ~0o111
        # Whoever may read it may execute it, as chmod(1) +x has it.
        return mode | (mode >> 2 & 0o111) if not mode & stat.S_IXUSR else mode

    def _delete(self, change: Change, folder_fd: int, name: bytes, found: Standing | None) -> None:
        self._folder.check_parent(change.path, folder_fd)
        if found is not None and stat.S_ISDIR(found.mode):
            os.rmdir(name, dir_fd=folder_fd)
            return
        spare = self._spare(name)
        _rename_new(folder_fd, name, spare)
        taken = os.stat(spare, dir_fd=folder_fd, follow_symlinks=False)
        if found is None or identity(taken) != found.identity:
            _put_back(folder_fd, spare, name)
            raise ConflictError("it was changed while it was deleted, and put back")
        os.unlink(spare, dir_fd=folder_fd)

    def _exchange(
        self, change: Change, folder_fd: int, spare: bytes, name: bytes, found: Standing
    ) -> None:
        """Put `spare` into the place of what was found there, which then stands in its own."""
        self._folder.check_parent(change.path, folder_fd)
        rename(folder_fd, spare, name, RENAME_EXCHANGE)
        taken = os.stat(spare, dir_fd=folder_fd, follow_symlinks=False)
        if identity(taken) != found.identity:
            try:
                rename(folder_fd, spare, name, RENAME_EXCHANGE)
            except FileNotFoundError:
                _put_back(folder_fd, spare, name)  # what was placed is gone again
                raise StrandedError(
                    errno.EBUSY, "it was changed while it was applied, and put back"
                ) from None
            raise ConflictError("it was changed while it was applied, and put back")


def _put_back(folder_fd: int, spare: bytes, name: bytes) -> None:
    try:
        rename(folder_fd, spare, name, RENAME_NOREPLACE)
    except OSError as error:
        shown = os.fsdecode(spare)
        raise StrandedError(
            errno.EEXIST, f"it was changed meanwhile; what stood there is beside it, in {shown!r}"
        ) from error


def _rename_new(folder_fd: int, old: bytes, new: bytes) -> None:
    """Rename to a name that nothing stands under; ConflictError: something does by now."""
    try:
        rename(folder_fd, old, new, RENAME_NOREPLACE)
    except FileExistsError:
        raise ConflictError("something was put there while it was applied") from None


def _is_content(change: Change) -> bool:
    return change.kind is not ChangeKind.DELETED and change.type in ("file", "symlink")


def _is_like(change: Change, now: Original) -> bool:
    """Whether a path is as the run left it."""
    if now.type != change.type:
        return False
    if change.type == "file":
        return (now.sha256, now.executable) == (change.sha256, change.executable)
    return change.type == "directory" or now.sha256 == change.sha256


def _in_conflict(change: Change, error: ConflictError) -> Result:
    if isinstance(error, MissingFolderError) and change.kind is ChangeKind.DELETED:
        return Result(change, Fate.ALREADY, "it is gone already")
    return Result(change, Fate.CHANGED, str(error))


def _moved_on(original: Original | None, now: Original | None) -> str | None:
    """Why what stands at a path is not what the run saw, in a clause; None: it is."""
    if original is None or now is None:
        return "what the run saw there is gone, or not known"
    if now.type != original.type:
        return f"it was a {original.type} and is a {now.type} now"
    if original.type not in ("file", "symlink"):
        return None
    if original.sha256 is None:
        return "it was changed while the run went on, or is too large to be compared"
    if now.sha256 != original.sha256:
        return "its content was changed meanwhile"
    return None if now == original else "its mode was changed meanwhile"


def _copy(source: int, target: int) -> int:
    """All of it, holes left out (lseek(2), SEEK_DATA); how large it is."""
    size_bytes = os.fstat(source).st_size
    position = 0
    while position < size_bytes:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                break
            raise
        end = os.lseek(source, position, os.SEEK_HOLE)
        while position < end:
            chunk = os.pread(source, min(CHUNK_BYTES, end - position), position)
            if not chunk:
                break
            written = 0
            while written < len(chunk):
                written += os.pwrite(target, chunk[written:], position + written)
            position += len(chunk)
    return size_bytes


def _told(error: OSError) -> str:
    if error.errno in _UNSUPPORTED:
        return "this file system can't exchange two files in one step (renameat2)"
    return error.strerror or str(error)
