"""Landlock: a second lock on the file system, behind the mounts (landlock(7)).

Reading and executing everywhere in the sandbox's root; writing only where the plan says. Rules
name file hierarchies as they are at that moment, so this comes after the last mount.
"""

from __future__ import annotations

import os
import stat
import struct

from runner.backends.native.launcher import kernel

# include/uapi/linux/landlock.h
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
_ABI_1_RIGHTS = (1 << 13) - 1
REFER = 1 << 13  # ABI 2
TRUNCATE = 1 << 14  # ABI 3
IOCTL_DEV = 1 << 15  # ABI 5
# A right of a folder can't be given on a file.
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

SCOPE_ABSTRACT_UNIX_SOCKET = 1  # ABI 6
SCOPE_SIGNAL = 2


def restrict(abi: int, writable: tuple[str, ...], devices: tuple[str, ...]) -> None:
    """Restrict the calling thread: all may be read, only beneath `writable` and `devices` written.

    Needs no_new_privs or CAP_SYS_ADMIN. Raises OSError.
    """
    rights = _ABI_1_RIGHTS
    if abi >= 2:
        rights |= REFER
    if abi >= 3:
        rights |= TRUNCATE
    if abi >= 5:
        rights |= IOCTL_DEV
    handled_net = 0  # the network namespace decides about connections
    scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if abi >= 6 else 0
    attributes = struct.pack("=QQQ", rights, handled_net, scoped)
    # Older kernels know a shorter structure; what they don't know is zero.
    ruleset = kernel.landlock_create(attributes[: 8 if abi < 4 else 16 if abi < 6 else 24])
    _allow(ruleset, "/", rights & (EXECUTE | READ_FILE | READ_DIR))
    for path in writable:
        _allow(ruleset, path, rights & ~IOCTL_DEV)
    for path in devices:
        _allow(ruleset, path, rights & (READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | IOCTL_DEV))
    kernel.landlock_restrict(ruleset)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        kernel.landlock_add_path(ruleset, rights, fd)
    finally:
        os.close(fd)
