"""What a run without namespaces is refused beside the default list; a profile can't take it back.

Namespaces make sockets, shared memory and other users' files unreachable; where there are none,
these calls must be. Landlock (ABI 6) keeps files, signals and tracing inside, but not the calls
below: they act on other processes of the same user, or on files that are only shown for reading.

Sources: landlock(7) under "Limitations", credentials(7), the manual page of each call.
"""

from __future__ import annotations

import errno

from runner.syscalls import GROUPS, INT_MASK, Masked, Refusal

_AF_UNIX = 1
_SOCKET_FAMILIES_END = 64
_SOCKET_TYPE_MASK = 0xF
_CONNECTED_TYPES = frozenset({1, 5})
"""SOCK_STREAM and SOCK_SEQPACKET: an end of a pair of these can't be pointed at anybody else, as
one of datagrams can with each sendto(2)."""

_PRIORITY_OF_A_USER = 2  # PRIO_USER, sys/resource.h
_IO_PRIORITY_OF_A_USER = 3  # IOPRIO_WHO_USER, include/uapi/linux/ioprio.h

# Of other processes: an own one is named by 0.
_BY_PROCESS = (
    "prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler",
)  # fmt: skip

# What has a name that all programs of the machine share (sysvipc(7), mq_overview(7)), and io_uring,
# which makes sockets without socket(2).
_SHARED = (
    "shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl",
    "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink",
    *GROUPS["io_uring"], *GROUPS["keyring"],
)  # fmt: skip

# Landlock knows no right for these: watching a folder tells the names in it. And memory that its
# owner fills when it likes would keep waiting who reads there for an EMULATED call.
_UNGOVERNED = ("inotify_add_watch", "fanotify_init", "fanotify_mark", "userfaultfd")

EMULATED = (
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
    "utime", "utimes", "futimesat", "utimensat",
    "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
)  # fmt: skip
"""Changes of a file's mode, owner, times and attributes. The kernel asks for the file's owner and
for nothing else, by path or by a descriptor that was opened for reading: so all files of the user
could be changed, not only the run's. A second filter stops them, and what they ask for is done
from outside to the run's own files (backends/native/launcher/metadata.py)."""

METADATA = ("setxattrat", "removexattrat", "file_setattr")
"""The like, but nothing needs them yet: refused."""

_FILE_SYSTEM_COMMANDS = (0x6600, 0x7600, 0x5800, 0x9400, 0xF500)
"""ioctl(2) commands that change attributes, encrypt, make subvolumes and so on by a descriptor that
is open for reading: the type bytes of ext4, of versions, XFS, Btrfs and F2FS
(Documentation/userspace-api/ioctl/ioctl-number.rst)."""
_COMMAND_TYPE_MASK = 0xFF00


def process_tier_refusals(defaults: tuple[Refusal, ...], *, own_user: bool) -> tuple[Refusal, ...]:
    """`defaults` and what the tier adds.

    `own_user`: the run has a user that owns nothing else, so METADATA can do no harm, nor EMULATED.
    """
    outright = {"socket": errno.EACCES, "connect": errno.EACCES, "bind": errno.EACCES}
    outright |= dict.fromkeys((*_SHARED, *_UNGOVERNED), errno.EPERM)
    if not own_user:
        outright |= dict.fromkeys(METADATA, errno.EPERM)
    added = [Refusal(name, code) for name, code in sorted(outright.items())]
    added += [
        Refusal("socketpair", errno.EAFNOSUPPORT, Masked(0, INT_MASK, family))
        for family in range(_SOCKET_FAMILIES_END)
        if family != _AF_UNIX
    ]
    added += [
        Refusal("socketpair", errno.EPERM, Masked(1, _SOCKET_TYPE_MASK, kind))
        for kind in range(_SOCKET_TYPE_MASK + 1)
        if kind not in _CONNECTED_TYPES
    ]
    added += [Refusal(name, errno.EPERM, bit) for name in _BY_PROCESS for bit in _not_zero(0)]
    for name, user in (
        ("setpriority", _PRIORITY_OF_A_USER),
        ("ioprio_set", _IO_PRIORITY_OF_A_USER),
    ):
        added += [Refusal(name, errno.EPERM, bit) for bit in _not_zero(1)]
        added.append(Refusal(name, errno.EPERM, Masked(0, INT_MASK, user)))
    added += [
        Refusal("ioctl", errno.ENOTTY, Masked(1, _COMMAND_TYPE_MASK, kind))
        for kind in _FILE_SYSTEM_COMMANDS
    ]
    refused = {one.name for one in defaults if one.when is None}
    kept = [one for one in defaults if one.name not in outright]
    seen = set(kept)
    return (
        *kept,
        *(
            one
            for one in added
            if one not in seen and (one.name not in refused or one.name in outright)
        ),
    )


def _not_zero(index: int) -> list[Masked]:
    """Conditions of which one holds for each `int` but 0."""
    return [Masked(index, 1 << bit, 1 << bit) for bit in range(32)]
