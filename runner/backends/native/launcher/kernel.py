"""System calls that Python 3.11 has no function for, by ctypes.

Each raises OSError with the errno of the call. Numbers and structures: the kernel's
`include/uapi` and the manual page named at each function.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_MACHINE = platform.machine()
if _MACHINE not in ("x86_64", "aarch64"):
    raise ImportError(f"no system call numbers for {_MACHINE}: runner knows x86_64 and aarch64")
_X86 = _MACHINE == "x86_64"

# From 424 on, all architectures share their numbers.
NR_PIVOT_ROOT = 155 if _X86 else 41
NR_CAPSET = 126 if _X86 else 91
NR_SECCOMP = 317 if _X86 else 277
NR_FCHOWNAT = 260 if _X86 else 54
NR_UTIMENSAT = 280 if _X86 else 88
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_CLOSE_RANGE = 436
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442
NR_LANDLOCK_CREATE_RULESET = 444
NR_LANDLOCK_ADD_RULE = 445
NR_LANDLOCK_RESTRICT_SELF = 446
NR_FCHMODAT2 = 452

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

OPEN_TREE_CLONE = 1
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
AT_FDCWD = -100
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x00100000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode(),
            ctypes.c_ulong(flags),
            data.encode(),
        ),
        f"mount {kind or 'bind'} on {target}",
    )


def umount(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_syscall(NR_PIVOT_ROOT, os.fsencode(new), os.fsencode(old)), "pivot_root")


def open_at(dirfd: int, path: bytes, flags: int, resolve: int) -> int:
    """openat2(2), with O_CLOEXEC; `resolve`: RESOLVE_* flags."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _check(
        _syscall(NR_OPENAT2, dirfd, path, how, ctypes.c_size_t(len(how))),
        f"openat2 {os.fsdecode(path)}",
    )


def open_resolved(path: str) -> int:
    """openat2(2): a folder by a path that holds no link, as a descriptor; OSError (ELOOP) else."""
    return open_at(AT_FDCWD, os.fsencode(path), os.O_PATH | os.O_DIRECTORY, RESOLVE_NO_SYMLINKS)


def open_by_names(path: bytes, flags: int) -> int:
    """openat2(2): by a path that may hold links, but none of /proc's that jump; ELOOP at one."""
    return open_at(AT_FDCWD, path, flags, RESOLVE_NO_MAGICLINKS)


def open_tree(dirfd: int, path: str, *, recursive: bool) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount, as a descriptor."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_SYMLINK_NOFOLLOW
    if recursive:
        flags |= AT_RECURSIVE
    if not path:
        flags |= AT_EMPTY_PATH
    return _check(
        _syscall(NR_OPEN_TREE, dirfd, os.fsencode(path), ctypes.c_uint(flags)), f"open_tree {path}"
    )


def move_mount(tree: int, dirfd: int, path: str) -> None:
    """move_mount(2): attach a detached mount at `path` below `dirfd`, never following a link."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    _check(
        _syscall(NR_MOVE_MOUNT, tree, b"", dirfd, os.fsencode(path), ctypes.c_uint(flags)),
        f"move_mount {path}",
    )


def mount_setattr(
    fd: int, path: str, set_flags: int, *, recursive: bool, userns: int | None = None
) -> None:
    """mount_setattr(2); with `userns` the mount is idmapped by that namespace's mapping."""
    if userns is not None:
        set_flags |= MOUNT_ATTR_IDMAP
    attributes = struct.pack("=QQQQ", set_flags, 0, 0, userns if userns is not None else 0)
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    _check(
        _syscall(
            NR_MOUNT_SETATTR,
            fd,
            os.fsencode(path),
            ctypes.c_uint(flags),
            attributes,
            ctypes.c_size_t(len(attributes)),
        ),
        f"mount_setattr {path}",
    )


def set_own_name(name: str) -> None:
    """What a process is called in /proc/PID/comm, at most 15 bytes (proc_pid_comm(5))."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, name.encode())
    finally:
        os.close(fd)


def prctl(option: int, argument: int = 0, argument3: int = 0) -> None:
    """prctl(2)."""
    _check(
        _libc.prctl(
            option, ctypes.c_ulong(argument), ctypes.c_ulong(argument3), ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        ),
        f"prctl {option}",
    )  # fmt: skip


def last_capability() -> int:
    """The highest capability number that the kernel knows (capabilities(7))."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def drop_capabilities(last: int) -> None:
    """Empty the bounding, ambient, inheritable, permitted and effective sets (capabilities(7))."""
    for capability in range(last + 1):
        prctl(PR_CAPBSET_DROP, capability)
    empty_capabilities()


def empty_capabilities() -> None:
    """Empty the ambient, inheritable, permitted and effective sets (capabilities(7)).

    The bounding set needs a capability to be emptied; with no_new_privs it grants nothing.
    """
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    version_3 = 0x20080522
    header = struct.pack("=Ii", version_3, 0)
    _check(_syscall(NR_CAPSET, header, bytes(24)), "capset")


def close_all_from(first: int) -> None:
    """close_range(2) from `first` to the end."""
    _check(
        _syscall(NR_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0), "close_range"
    )


def install_seccomp(program: bytes, flags: int = 0) -> int:
    """seccomp(2), SECCOMP_SET_MODE_FILTER, with a compiled BPF program (8 bytes an instruction).

    Returns the listener's descriptor with SECCOMP_FILTER_FLAG_NEW_LISTENER among `flags`, else 0.
    """

    class Filter(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    fprog = Filter(len(program) // 8, program)
    return _check(
        _syscall(NR_SECCOMP, SECCOMP_SET_MODE_FILTER, ctypes.c_uint(flags), ctypes.byref(fprog)),
        "seccomp",
    )


def change_mode(fd: int, mode: int) -> None:
    """fchmodat2(2) (Linux 6.6) on what `fd` is open at, also with O_PATH."""
    _check(_syscall(NR_FCHMODAT2, fd, b"", ctypes.c_uint(mode), AT_EMPTY_PATH), "fchmodat2")


def change_owner(fd: int, user: int, group: int) -> None:
    """fchownat(2) on what `fd` is open at, also with O_PATH; all bits set: as it is."""
    _check(
        _syscall(NR_FCHOWNAT, fd, b"", ctypes.c_uint(user), ctypes.c_uint(group), AT_EMPTY_PATH),
        "fchownat",
    )


def change_times(fd: int, times: bytes | None) -> None:
    """utimensat(2) on what `fd` is open at, also with O_PATH; two timespecs, or None: now."""
    _check(_syscall(NR_UTIMENSAT, fd, b"", times, AT_EMPTY_PATH), "utimensat")


def landlock_abi() -> int:
    """The kernel's Landlock ABI (landlock(7)); OSError where there is none."""
    version_flag = 1
    return _check(
        _syscall(NR_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), version_flag),
        "landlock_create_ruleset",
    )


def landlock_create(attributes: bytes) -> int:
    """landlock_create_ruleset(2); returns a descriptor."""
    return _check(
        _syscall(NR_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0),
        "landlock_create_ruleset",
    )


def landlock_add_path(ruleset: int, rights: int, fd: int) -> None:
    """landlock_add_rule(2) for what lies beneath `fd`."""
    rule_path_beneath = 1
    attributes = struct.pack("=Qi", rights, fd)
    _check(
        _syscall(NR_LANDLOCK_ADD_RULE, ruleset, rule_path_beneath, attributes, 0),
        "landlock_add_rule",
    )


def landlock_restrict(ruleset: int, flags: int) -> None:
    """landlock_restrict_self(2)."""
    _check(_syscall(NR_LANDLOCK_RESTRICT_SELF, ruleset, flags), "landlock_restrict_self")
