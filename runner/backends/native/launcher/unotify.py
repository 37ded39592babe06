"""Seccomp user notification: system calls that another process carries out (seccomp_unotify(2)).

A filter of its own stops the calls; whoever holds its listener takes each as a `Notification` and
answers it. There is no way here to answer "continue": what a pointer leads to can change between
look and call, so that answer would be worth nothing.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import platform
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from runner.backends.native.launcher import kernel

# include/uapi/linux/seccomp.h and audit.h
_RET_USER_NOTIF = 0x7FC00000
_RET_ALLOW = 0x7FFF0000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[platform.machine()]
_IOCTL_RECV = 0xC0502100  # SECCOMP_IOWR(0, struct seccomp_notif)
_IOCTL_SEND = 0xC0182101  # SECCOMP_IOWR(1, struct seccomp_notif_resp)
_IOCTL_ID_VALID = 0x40082102  # SECCOMP_IOW(2, __u64)
_IOCTL_SET_FLAGS = 0x40082104  # SECCOMP_IOW(4, __u64)
_FD_SYNC_WAKE_UP = 1
_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags; seccomp_data: nr, arch, ip, args
_RESPONSE = struct.Struct("=QqiI")  # id, val, error, flags

# include/uapi/linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_OFFSET_OF_NUMBER, _OFFSET_OF_ARCH = 0, 4  # struct seccomp_data

_LEAST_MESSAGE = b"l"


@dataclass(frozen=True, slots=True)
class Notification:
    """A thread that is stopped in a system call."""

    id: int
    thread: int
    """Its id, as the listener's holder sees it; another's once `is_valid` says no."""
    number: int
    arguments: tuple[int, ...]
    """Six, of 64 bits each, as they stood in the registers."""


def filter_for(numbers: Collection[int]) -> bytes:
    """A BPF program that stops these calls of this architecture and allows all else.

    Calls of other architectures are for the filter beside it, which ends who makes them.
    """
    wanted = sorted(numbers)
    code = [
        (_LOAD, 0, 0, _OFFSET_OF_ARCH),
        (_JUMP_IF_EQUAL, 0, len(wanted) + 1, _AUDIT_ARCH),
        (_LOAD, 0, 0, _OFFSET_OF_NUMBER),
    ]
    code += [
        (_JUMP_IF_EQUAL, len(wanted) - position, 0, number)
        for position, number in enumerate(wanted)
    ]
    code += [(_RETURN, 0, 0, _RET_ALLOW), (_RETURN, 0, 0, _RET_USER_NOTIF)]
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def install(program: bytes, channel_fd: int) -> None:
    """Put the calling process under the filter; send its listener, and keep none. OSError.

    While it is looked after, a stopped call is left for a deadly signal only (Linux 5.19): so no
    call is carried out twice because of a signal between.
    """
    flags = kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER | kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    try:
        listener = kernel.install_seccomp(program, flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise OSError(
            errno.EBUSY,
            "something above runner has taken seccomp's only listener (a container manager "
            "that intercepts system calls does); the tier needs it: turn that interception off",
        ) from error
    with socket.socket(fileno=os.dup(channel_fd)) as channel:
        fds = array.array("i", (listener,))
        channel.sendmsg([_LEAST_MESSAGE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    os.close(listener)
    os.close(channel_fd)


def listener_from(channel: socket.socket) -> int | None:
    """What `install` sent; None: the other end is gone without it. OSError."""
    _, fds, _, _ = socket.recv_fds(channel, len(_LEAST_MESSAGE), 1)
    if not fds:
        return None
    # One waits while the other works, so both go on one processor (Linux 6.6): a third is saved.
    fcntl.ioctl(fds[0], _IOCTL_SET_FLAGS, _FD_SYNC_WAKE_UP)
    return fds[0]


def receive(listener: int) -> Notification | None:
    """One that poll(2) told of; None: its thread was killed meanwhile, or a signal came between.

    What poll told of is counted until it is taken, so this waits for nothing.
    """
    buffer = bytearray(_NOTIF.size)
    try:
        fcntl.ioctl(listener, _IOCTL_RECV, buffer)
    except (FileNotFoundError, InterruptedError):
        return None
    id_, thread, _, number, _, _, *arguments = _NOTIF.unpack(buffer)
    return Notification(id_, thread, number, tuple(arguments))


def is_valid(listener: int, notification: Notification) -> bool:
    """Whether its thread still waits: so what was read by its id until now was that thread's."""
    return _told(listener, _IOCTL_ID_VALID, struct.pack("=Q", notification.id))


def answer(listener: int, notification: Notification, errno_code: int) -> None:
    """Let the call return 0, or fail with `errno_code`; nothing if its thread is gone."""
    _told(listener, _IOCTL_SEND, _RESPONSE.pack(notification.id, 0, -errno_code, 0))


def _told(listener: int, command: int, words: bytes) -> bool:
    """Whether the thread was still there; a signal, such as a child's end, does not matter."""
    while True:
        try:
            fcntl.ioctl(listener, command, words)
        except InterruptedError:
            continue
        except FileNotFoundError:
            return False
        return True
