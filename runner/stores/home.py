"""The state folder: one owner, mode 0700, on a local file system, or it is refused.

SQLite's WAL needs shared memory and `flock` needs a kernel that both sides share, so a folder on
a network file system would corrupt the log without a word (https://sqlite.org/wal.html, 1).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from runner.errors import StateError

# Magic numbers of statfs(2) and linux/magic.h for file systems that other machines write too.
_NETWORK_MAGIC = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x01021997: "9p",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x00C36400: "Ceph",
    0x47504653: "GPFS",
    0x0BD00BD0: "Lustre",
    0x7461636F: "OCFS2",
    0x01161970: "GFS2",
    0x786F4256: "a VirtualBox shared folder",
}
_FUSE_MAGIC = 0x65735546
# FUSE carries local file systems too (fuse-overlayfs in rootless containers), so these by name.
_NETWORK_FUSE = ("sshfs", "s3fs", "rclone", "glusterfs", "gcsfuse", "davfs", "curlftpfs", "ceph")

_STATFS_BYTES = 256  # struct statfs takes 120 bytes on 64-bit Linux; f_type is its first long


def prepare_home(home: Path) -> Path:
    """Make sure that `home` is a state folder that can be used; returns its absolute path.

    Made with mode 0700 where it is missing, its missing parents too. StateError: it can't be
    made, or is not a folder of ours alone on a local file system; one sentence says what to do.
    """
    home = Path(os.path.abspath(home))  # noqa: PTH100  (resolve() would follow a link at its end)
    try:
        if not os.path.lexists(home):
            _make(home)
        _check(home)
        for name in ("live", "runs"):
            _make_private(home / name)
    except OSError as error:
        raise StateError(_sentence(home, error)) from error
    return home


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (fsync(2), on a directory)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make(home: Path) -> None:
    missing = [home]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        _make_private(folder)
        fsync_folder(folder.parent)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    folder.chmod(0o700)  # whatever the umask took


def _check(home: Path) -> None:
    found = home.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise StateError(
            f"the state folder {home} is a symbolic link: set RUNNER_HOME to {home.resolve()}"
        )
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(
            f"the state folder {home} is not a folder: set RUNNER_HOME to another path"
        )
    if found.st_uid != os.geteuid():
        raise StateError(
            f"the state folder {home} belongs to uid {found.st_uid} and not to you (uid "
            f"{os.geteuid()}): set RUNNER_HOME to a folder of your own"
        )
    if found.st_mode & 0o077:
        raise StateError(
            f"the state folder {home} is open to others (mode {found.st_mode & 0o7777:04o}): "
            f"look through it, then `chmod 700 {home}`"
        )
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise StateError(
            f"the state folder {home} can't be written: make it writable or set RUNNER_HOME to "
            "another folder"
        )
    if (remote := network_file_system(home)) is not None:
        raise StateError(
            f"the state folder {home} is on a network file system ({remote}), where a log breaks: "
            "set RUNNER_HOME to a folder on a local disk"
        )


def network_file_system(path: Path) -> str | None:
    """Name of the network file system that `path` is on, or None when it is a local one."""
    magic = _statfs_type(path)
    if magic == _FUSE_MAGIC:
        kind = _mount_type(path)
        return kind if any(name in kind for name in _NETWORK_FUSE) else None
    return _NETWORK_MAGIC.get(magic)


def _statfs_type(path: Path) -> int:
    """`f_type` of statfs(2); Python's `os.statvfs` does not have it."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def _mount_type(path: Path) -> str:
    """File system type of the mount that `path` is on, from proc_pid_mountinfo(5)."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[2] == wanted:
            return rest.split(" ")[0]
    return ""


def _sentence(home: Path, error: OSError) -> str:
    what = error.strerror or str(error)
    where = f"the state folder {home} can't be made or used"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: the disk is full; free some space or set RUNNER_HOME to another disk"
    at = f" at {error.filename}" if error.filename and str(error.filename) != str(home) else ""
    return f"{where}: {what}{at}; set RUNNER_HOME to a folder that you can write"
