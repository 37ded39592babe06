"""The list of refused system calls, and what a profile changes in it."""

from __future__ import annotations

import errno

from runner.model.profile import Syscalls
from runner.syscalls import (
    CLONE_NEW_FLAGS,
    DEFAULTS,
    GROUPS,
    INT_MASK,
    SOCKET_FAMILIES,
    TIOCLINUX,
    TIOCSTI,
    Masked,
    Refusal,
    refusals,
)

# The lists that attack number 8 to 84 of sandboxes walk through, by name.
DANGEROUS = {
    "mount", "umount2", "pivot_root", "chroot", "fsopen", "move_mount", "open_tree",
    "mount_setattr", "setns", "unshare", "ptrace", "process_vm_readv", "process_vm_writev",
    "pidfd_getfd", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter",
    "add_key", "request_key", "keyctl", "init_module", "finit_module", "kexec_load",
    "open_by_handle_at", "settimeofday", "reboot", "swapon", "iopl", "modify_ldt",
}  # fmt: skip
ORDINARY = {
    "read", "write", "openat", "openat2", "execve", "clone", "socket", "connect", "ioctl",
    "fork", "vfork", "kill", "prctl", "mmap", "futex", "epoll_wait", "personality", "memfd_create",
}  # fmt: skip


def outright(changes: Syscalls = DEFAULTS) -> set[str]:
    return {one.name for one in refusals(changes) if one.when is None}


def refused(name: str, *arguments: int, changes: Syscalls = DEFAULTS) -> int | None:
    """The errno that a call gets, as the kernel compares 64-bit arguments with the conditions."""
    for one in refusals(changes):
        if one.name == name and all(
            when is None or arguments[when.index] & when.mask == when.value
            for when in (one.when, one.also)
        ):
            return one.errno_code
    return None


def test_dangerous_calls_are_refused_and_ordinary_ones_are_not():
    assert outright() >= DANGEROUS
    assert not outright() & ORDINARY


def test_the_list_is_stable_and_without_repetition():
    assert refusals() == refusals()
    assert len(set(refusals())) == len(refusals())


def test_clone_is_refused_new_namespaces_and_nothing_else():
    threads = 0x003D0F00  # what glibc's pthread_create passes
    assert refused("clone", threads) is None
    assert refused("clone", 17) is None  # SIGCHLD: fork
    for name, flag in CLONE_NEW_FLAGS.items():
        if name != "CLONE_NEWTIME":
            assert refused("clone", flag | 17) == errno.EPERM, name
    # Its flags can't be seen; libc falls back to clone on this errno and no other.
    assert refused("clone3", 0) == errno.ENOSYS


def test_sockets_of_other_families_also_behind_a_33rd_bit():
    for family in range(64):
        expected = None if family in SOCKET_FAMILIES else errno.EAFNOSUPPORT
        for call in ("socket", "socketpair"):
            assert refused(call, family) == expected
            assert refused(call, family | 1 << 32) == expected


def test_keys_can_not_be_typed_into_a_terminal():
    for command in (TIOCSTI, TIOCLINUX):
        assert refused("ioctl", 0, command) == errno.EPERM
        assert refused("ioctl", 0, command | 1 << 32) == errno.EPERM
    assert refused("ioctl", 0, 0x5401) is None  # TCGETS: isatty


def test_limits_of_init_can_not_be_set_and_ones_own_can():
    for high in (0, 1 << 32):
        assert refused("prlimit64", 1 | high) == errno.EPERM
    assert refused("prlimit64", 0) is None
    assert refused("prlimit64", 17) is None
    assert refused("prlimit64", 1, changes=Syscalls(allow=("prlimit64",))) is None


def test_personality_may_be_asked_but_not_loosened():
    assert refused("personality", 0xFFFFFFFF) is None
    assert refused("personality", 0) is None
    assert refused("personality", 0x0040000) == errno.EPERM  # ADDR_NO_RANDOMIZE
    assert refused("personality", 0x0400000 | 0x0100000) == errno.EPERM


def test_a_profile_adds_and_takes_away_by_call_and_by_group():
    assert "chmod" in outright(Syscalls(deny=("chmod",)))
    assert outright(Syscalls(allow=("mount",))) == outright() - set(GROUPS["mount"])
    assert outright(Syscalls(allow=("ptrace",))) == outright() - set(GROUPS["ptrace"])
    assert outright(Syscalls(allow=("bpf", "perf_event_open"))) == outright() - {
        "bpf", "perf_event_open",
    }  # fmt: skip


def test_a_denial_beats_a_permission():
    assert "bpf" in outright(Syscalls(deny=("bpf",), allow=("bpf",)))


def test_allowing_unshare_allows_what_belongs_to_it():
    allowed = Syscalls(allow=("unshare",))
    assert refused("clone", CLONE_NEW_FLAGS["CLONE_NEWUSER"], changes=allowed) is None
    assert refused("clone3", 0, changes=allowed) is None
    assert refused("socket", 38, changes=Syscalls(allow=("socket",))) is None
    assert refused("ioctl", 0, TIOCSTI, changes=Syscalls(allow=("ioctl",))) is None


def test_a_condition_is_told_apart_from_none():
    assert Refusal("socket", errno.EPERM) != Refusal("socket", errno.EPERM, Masked(0, INT_MASK, 1))


def test_files_get_no_set_id_bits_where_they_would_be_somebodys():
    closed = Syscalls(set_id_bits=False)
    for bit in (0o4000, 0o2000, 0o6000):
        mode = bit | 0o755
        for call, arguments in (
            ("chmod", (0, mode)),
            ("fchmod", (0, mode)),
            ("fchmodat", (0, 0, mode)),
            ("fchmodat2", (0, 0, mode, 0)),
            ("creat", (0, mode)),
            ("mknod", (0, mode | 0o100000, 0)),
            ("mknodat", (0, 0, mode | 0o100000, 0)),
            ("open", (0, 0o101, mode)),
            ("openat", (0, 0, 0o20200002, mode)),  # O_TMPFILE
        ):
            assert refused(call, *arguments, changes=closed) == errno.EPERM, (call, oct(bit))
            assert refused(call, *arguments) is None
    assert refused("openat2", 0, 0, 0, 0, changes=closed) == errno.ENOSYS
    # Allowed: every other bit, and whatever stands where no mode is looked at.
    assert refused("chmod", 0, 0o1755, changes=closed) is None
    assert refused("open", 0, 0, 0o6755, changes=closed) is None
    assert refused("openat", 0, 0, 0o200000, 0o6755, changes=closed) is None
