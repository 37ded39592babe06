"""Landlock: a lock on files, and in newer kernels on signals and sockets (landlock(7)).

In a sandbox with namespaces it is the second lock behind the mounts; in the tier `process` it is
the first. Every right that the kernel's ABI knows is handled, so what no rule grants is refused.
Rules name file hierarchies as they are at that moment, so this comes after the last mount.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass

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
_READ = EXECUTE | READ_FILE | READ_DIR
_DEVICE = READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | IOCTL_DEV
# A right of a folder can't be given on a file.
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

BIND_TCP = 1  # ABI 4
CONNECT_TCP = 2

SCOPE_ABSTRACT_UNIX_SOCKET = 1  # ABI 6
SCOPE_SIGNAL = 2

LOG_SUBDOMAINS_OFF = 4  # ABI 7
"""Denials in domains that the program makes are its own affair: it can't fill the audit log."""

_COVERS = (
    (1, "files"),
    (2, "links and renames across folders"),
    (3, "truncation"),
    (4, "TCP"),
    (5, "commands to devices"),
    (6, "abstract sockets and signals"),
    (7, "audit of what it refuses"),
)


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """What lies beneath these paths may be used; all else is refused."""

    readable: Sequence[str] = ()
    """Read and executed."""
    writable: Sequence[str] = ()
    """Read, executed, changed; but no commands to devices there."""
    devices: Sequence[str] = ()
    """What is there may be read, written and commanded; nothing made or removed."""


def found(minimum: int) -> int:
    """The kernel's ABI; OSError where it has none, or less than `minimum`."""
    abi = kernel.landlock_abi()
    if abi < minimum:
        raise OSError(f"the kernel has ABI {abi}, the profile asks for {minimum}")
    return abi


def covers(abi: int) -> str:
    """What this ABI restricts, in words."""
    return ", ".join(word for since, word in _COVERS if abi >= since)


def restrict(
    abi: int, allowed: Hierarchies, *, no_tcp: bool = False, together: bool = False
) -> None:
    """Restrict the calling thread to `allowed`, and its signals and abstract sockets to its own.

    `no_tcp`: neither bind nor connect TCP, where the ABI knows it; else the network namespace
    decides. `together`: leave signals and abstract sockets to the namespaces, for processes that
    are restricted one by one and belong together. Needs no_new_privs or CAP_SYS_ADMIN. Raises
    OSError.
    """
    rights = _ABI_1_RIGHTS
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        rights |= right if abi >= since else 0
    network = BIND_TCP | CONNECT_TCP if no_tcp and abi >= 4 else 0
    ruleset = _ruleset(abi, rights, network, scoped=not together)
    for paths, granted in (
        (allowed.readable, _READ),
        (allowed.writable, rights & ~IOCTL_DEV),
        (allowed.devices, _DEVICE),
    ):
        for path in paths:
            _allow(ruleset, path, rights & granted)
    kernel.landlock_restrict(ruleset, LOG_SUBDOMAINS_OFF if abi >= 7 else 0)
    os.close(ruleset)


def keep_signals_inside() -> None:
    """Put the calling thread into a domain that only scopes signals (ABI 6).

    So `kill(-1, …)` of a process in it reaches this domain and those inside of it, all at once, and
    nobody else. Files can still be linked and renamed across folders: of all rights that one is
    refused by every domain that does not grant it (landlock(7), LANDLOCK_ACCESS_FS_REFER). Raises
    OSError.
    """
    ruleset = kernel.landlock_create(struct.pack("=QQQ", REFER, 0, SCOPE_SIGNAL))
    _allow(ruleset, "/", REFER)
    kernel.landlock_restrict(ruleset, 0)
    os.close(ruleset)


def _ruleset(abi: int, rights: int, network: int, *, scoped: bool) -> int:
    scopes = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if abi >= 6 and scoped else 0
    attributes = struct.pack("=QQQ", rights, network, scopes)
    # Older kernels know a shorter structure; what they don't know is zero.
    return kernel.landlock_create(attributes[: 8 if abi < 4 else 16 if abi < 6 else 24])


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        kernel.landlock_add_path(ruleset, rights, fd)
    finally:
        os.close(fd)
