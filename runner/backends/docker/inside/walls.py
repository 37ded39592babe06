"""The walls that a program gets of its own inside the container's.

A user namespace in which it is alone, Landlock, and a seccomp filter: the engine can't be asked
for the first two per container, and making the first needs a call that the filter then refuses.
Whether the kernel grants them is tried, not guessed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWUSER = 0x10000000
# include/uapi/linux/prctl.h, capability.h, seccomp.h
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES_END = 64
# The same on all architectures (landlock(7)).
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
# include/uapi/linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ABI_1_RIGHTS = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SCOPES = 3
"""Abstract unix sockets and signals (ABI 6)."""


def can_have_user_namespace(uid: int) -> bool:
    """Whether a child can get a user namespace with `uid` mapped: by trying."""
    asked, ask = os.pipe2(os.O_CLOEXEC)
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            unshare_user()
            os.write(ask, b"u")
            mapped = os.read(told, 1) == b"m"
            if mapped:
                os.setresuid(uid, uid, uid)
            os._exit(0 if mapped else 1)
        finally:
            os._exit(1)
    os.close(ask)
    os.close(told)
    try:
        if os.read(asked, 1) == b"u":
            map_user(pid, uid, uid)
            os.write(tell, b"m")
    except OSError:
        pass  # the trial's answer is the child's exit code
    os.close(asked)
    os.close(tell)
    return os.waitpid(pid, 0)[1] == 0


def unshare_user() -> None:
    """unshare(2) of the user namespace; the caller then waits to be mapped. OSError."""
    _check(_libc.unshare(_CLONE_NEWUSER), "unshare")


def map_user(pid: int, uid: int, gid: int) -> None:
    """Map one user and group of this namespace to themselves (user_namespaces(7)). OSError."""
    for name, number in (("uid_map", uid), ("gid_map", gid)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"{number} {number} 1\n".encode("ascii"))
        finally:
            os.close(fd)


def drop_privileges(uid: int, gid: int) -> None:
    """Become this user, without any capability in any set, for good (capabilities(7)). OSError."""
    for capability in range(_CAPABILITIES_END):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL:
                break  # past the kernel's last one
            _check(-1, "PR_CAPBSET_DROP")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def landlock_abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none."""
    version = _libc.syscall(
        _LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION
    )
    return max(0, int(version))


def restrict_files(writable: tuple[bytes, ...], devices: bytes) -> None:
    """Landlock: everything may be read and executed, only beneath `writable` be changed.

    Beneath `devices` what is there may be written, and nothing made. OSError.
    """
    abi = landlock_abi()
    rights = _ABI_1_RIGHTS
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= right if abi >= since else 0
    attributes = struct.pack("=QQQ", rights, 0, _SCOPES if abi >= 6 else 0)
    # Older kernels know a shorter structure.
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _check(
        _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0),
        "landlock_create_ruleset",
    )
    _allow(ruleset, b"/", rights & (_EXECUTE | _READ_FILE | _READ_DIR))
    for path in writable:
        _allow(ruleset, path, rights & ~_IOCTL_DEV)
    _allow(
        ruleset, devices, rights & (_READ_FILE | _WRITE_FILE | _READ_DIR | _TRUNCATE | _IOCTL_DEV)
    )
    _check(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def install_filter(program: bytes) -> None:
    """A seccomp filter on top of the container's (seccomp(2)); 8 bytes an instruction. OSError."""

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    loaded = Program(len(program) // 8, program)
    _check(
        _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0),
        "PR_SET_SECCOMP",
    )


def _allow(ruleset: int, path: bytes, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
        rule = struct.pack("=Qi", rights, fd)
        _check(
            _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0),
            "landlock_add_rule",
        )
    finally:
        os.close(fd)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result
