"""Which system calls a sandbox refuses: a deny-list with errno, in groups, backend-neutral.

A deny-list, because an allow-list that kills breaks honest programs at each new kernel or libc;
errno rather than a signal, because programs know how to fall back. The namespaces, the missing
capabilities and the absent mounts are what contains; this narrows the kernel's surface.

Sources: seccomp(2), the manual page of each call, and the kernel's `include/uapi`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from runner.model.profile import Syscalls
from runner.syscall_names import NAMES

GROUPS: dict[str, tuple[str, ...]] = {
    "mount": (
        "mount", "umount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount",
        "fspick", "move_mount", "open_tree", "open_tree_attr", "mount_setattr",
    ),
    "namespace": ("setns", "unshare"),
    "ptrace": (
        "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
        "process_madvise",
    ),
    "bpf": ("bpf",),
    "perf": ("perf_event_open",),
    "userfaultfd": ("userfaultfd",),
    "io_uring": ("io_uring_setup", "io_uring_enter", "io_uring_register"),
    "keyring": ("add_key", "request_key", "keyctl"),
    "module": ("init_module", "finit_module", "delete_module", "create_module"),
    "kexec": ("kexec_load", "kexec_file_load"),
    "clock": ("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime"),
    "system": (
        "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "vhangup",
        "sethostname", "setdomainname", "nfsservctl", "lookup_dcookie", "fanotify_init",
    ),
    "raw_io": ("iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "uselib", "sysfs", "_sysctl"),
    "handle": ("open_by_handle_at", "name_to_handle_at"),
}  # fmt: skip
"""Group name -> system call names; profiles add and remove by either."""

# include/uapi/linux/sched.h
CLONE_NEW_FLAGS = {
    "CLONE_NEWTIME": 0x00000080,
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
TIOCSTI = 0x5412
TIOCLINUX = 0x541C
INIT_PID = 1
INT_MASK = 0xFFFFFFFF
"""The kernel truncates `int` arguments: compare 32 bits only, or `1 | 1<<32` slips past."""

SOCKET_FAMILIES = frozenset({1, 2, 10, 16})
"""AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK (getifaddrs); all others are refused."""
_FAMILIES_END = 64
"""Beyond the kernel's NPROTO (46), with room: higher numbers are refused by the kernel itself."""

S_ISUID, S_ISGID = 0o4000, 0o2000
"""inode(7)."""
O_CREAT, O_TMPFILE = 0o100, 0o20000000
"""open(2): only with one of these bits is its mode looked at; O_TMPFILE without O_DIRECTORY's."""


@dataclass(frozen=True, slots=True)
class Masked:
    """Holds when `argument & mask == value`; `index` counts from 0."""

    index: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """One system call that fails with `errno_code`, always or under one condition."""

    name: str
    errno_code: int
    when: Masked | None = None
    also: Masked | None = None
    """A second condition, which must hold as well."""


KNOWN = frozenset(GROUPS) | NAMES
"""What `syscalls` in a profile or a policy may name."""

DEFAULTS = Syscalls()


def refusals(changes: Syscalls = DEFAULTS) -> tuple[Refusal, ...]:
    """The default list with a profile's changes, in a stable order.

    Names in `changes` are groups or system calls (`KNOWN`); a denial beats a permission.
    """
    forbidden = set(_expand(changes.deny))
    allowed = set(_expand(changes.allow)) - forbidden
    denied = {name for names in GROUPS.values() for name in names}
    denied = (denied - allowed) | forbidden
    outright = [Refusal(name, errno.EPERM) for name in sorted(denied)]
    found = [*outright]
    if "unshare" not in allowed:
        # The flags of clone3 stand in memory where a filter can't see them: without it, libc
        # falls back to clone, whose flags are an argument.
        found.append(Refusal("clone3", errno.ENOSYS))
        found += [
            Refusal("clone", errno.EPERM, Masked(0, flag, flag))
            for flag in CLONE_NEW_FLAGS.values()
            if flag != CLONE_NEW_FLAGS["CLONE_NEWTIME"]  # a signal number's bit in clone(2)
        ]
    if "ioctl" not in allowed:
        found += [
            Refusal("ioctl", errno.EPERM, Masked(1, INT_MASK, command))
            for command in (TIOCSTI, TIOCLINUX)
        ]
    if "prlimit64" not in allowed:
        # Init has the program's user, for there may be no other, and so would let its limits be
        # set (prlimit(2)): out of processor time it dies, the run with it, and the program's
        # status is lost. One's own limits go by the number 0.
        found.append(Refusal("prlimit64", errno.EPERM, Masked(0, INT_MASK, INIT_PID)))
    if "socket" not in allowed:
        found += [
            Refusal(call, errno.EAFNOSUPPORT, Masked(0, INT_MASK, family))
            for call in ("socket", "socketpair")
            for family in range(_FAMILIES_END)
            if family not in SOCKET_FAMILIES
        ]
    if "personality" not in allowed:
        # Each flag that loosens memory protection, by its bit; and with the top bit, which no
        # personality has, everything but all ones: the query, which changes nothing.
        top = 1 << 31
        found += [
            Refusal("personality", errno.EPERM, Masked(0, top | flag, flag))
            for flag in _PERSONALITY_FLAGS
        ]
        found += [
            Refusal("personality", errno.EPERM, Masked(0, top | 1 << bit, top)) for bit in range(31)
        ]
    if not changes.set_id_bits:
        found += _set_id_bits()
    # What is refused whatever its arguments needs no condition; libseccomp keeps the first alone.
    return tuple(one for one in found if one.name not in denied or one in outright)


def _set_id_bits() -> list[Refusal]:
    """Every way to give a file set-ID bits, as systemd's RestrictSUIDSGID= (systemd.exec(5))."""
    # Its mode stands in memory where a filter can't see it; programs fall back to openat.
    found = [Refusal("openat2", errno.ENOSYS)]
    for bit in (S_ISUID, S_ISGID):
        for call, index in (
            ("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2),
            ("creat", 1), ("mknod", 1), ("mknodat", 2),
        ):  # fmt: skip
            found.append(Refusal(call, errno.EPERM, Masked(index, bit, bit)))
        for call, index in (("open", 1), ("openat", 2)):
            found += [
                Refusal(call, errno.EPERM, Masked(index, flag, flag), Masked(index + 1, bit, bit))
                for flag in (O_CREAT, O_TMPFILE)
            ]
    return found


# include/uapi/linux/personality.h: ADDR_NO_RANDOMIZE, MMAP_PAGE_ZERO, ADDR_COMPAT_LAYOUT,
# READ_IMPLIES_EXEC, ADDR_LIMIT_32BIT, ADDR_LIMIT_3GB.
_PERSONALITY_FLAGS = (0x0040000, 0x0100000, 0x0200000, 0x0400000, 0x0800000, 0x8000000)


def _expand(names: tuple[str, ...]) -> list[str]:
    return [call for name in names for call in GROUPS.get(name, (name,))]
