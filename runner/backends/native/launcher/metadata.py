"""Carries out changes of mode, owner, times and attributes for a program that may not.

The kernel asks for the owner of a file alone, so where the program's user owns more than the
program may touch, these calls are refused to it. Here they are done in its place, on files beneath
the run's own folders: what the call points to is copied once, it is made sure that the copy is of
the thread that waits, and then the change is made to a descriptor that was opened here.

By whom: an ancestor of the program, outside of its Landlock domain, with the same user and not one
capability; so the kernel's own rules for that user hold, and its errno is the answer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from runner.backends.native.launcher import kernel, unotify
from runner.backends.native.launcher.beneath import Folders

PATH_BYTES = 4096  # PATH_MAX, limits.h
NAME_BYTES = 255  # XATTR_NAME_MAX
VALUE_BYTES = 65536  # XATTR_SIZE_MAX
_SET_ID = stat.S_ISUID | stat.S_ISGID
_MODE = 0o7777
_INT = 0xFFFFFFFF
_ADDRESS_END = 1 << 63
_MICROSECONDS = 1_000_000
# What programs use for a descriptor that has no call of its own, glibc's fchmodat(3) too.
_OF_DESCRIPTOR = re.compile(rb"/proc/(?:self|thread-self)/fd/([0-9]{1,9})\Z")

Change = Callable[[Folders, int], None]
"""Done to what a descriptor is open at, beneath the folders. OSError."""


class _Caller:
    """The thread that waits: what is read of it, while it does."""

    def __init__(self, thread: int) -> None:
        self._process = f"/proc/{thread}"

    def memory(self, address: int, most_bytes: int) -> bytes:
        """Up to so many bytes from there, fewer where memory ends. OSError, EFAULT: none."""
        if address >= _ADDRESS_END:
            raise _error(errno.EFAULT)
        fd = self._open("mem", os.O_RDONLY)
        try:
            return os.pread(fd, most_bytes, address)
        except OSError as error:
            raise _error(errno.EFAULT) from error
        finally:
            os.close(fd)

    def exactly(self, address: int, size_bytes: int) -> bytes:
        """OSError, EFAULT: there are not so many."""
        found = self.memory(address, size_bytes) if size_bytes else b""
        if len(found) != size_bytes:
            raise _error(errno.EFAULT)
        return found

    def text(self, address: int, most_bytes: int, too_long: int) -> bytes:
        """Up to a zero byte. OSError, `too_long`: it comes not soon enough."""
        found, end, _ = self.memory(address, most_bytes + 1).partition(b"\0")
        if not end:
            raise _error(too_long if len(found) > most_bytes else errno.EFAULT)
        return found

    def descriptor(self, number: int) -> int:
        """What it has open under this number, opened with O_PATH: nothing of it is shared."""
        try:
            return self._open(f"fd/{number}", os.O_PATH)
        except FileNotFoundError as error:
            raise _error(errno.EBADF) from error

    def folder(self, number: int) -> int:
        """What a relative path begins at: its own folder for AT_FDCWD."""
        if number != kernel.AT_FDCWD:
            return self.descriptor(number)
        return self._open("cwd", os.O_PATH)

    def _open(self, name: str, flags: int) -> int:
        try:
            return os.open(f"{self._process}/{name}", flags | os.O_CLOEXEC)
        except PermissionError as error:  # it has made itself undumpable (ptrace(2))
            raise _error(errno.EPERM) from error


@dataclass(frozen=True, slots=True)
class _Call:
    """Where the arguments of a call stand."""

    change: Callable[[_Caller, Sequence[int]], Change]
    """From the arguments behind the path, or the descriptor."""
    fd: int | None = None
    path: int | None = None
    flags: int | None = None
    follow: bool = True
    null_path: bool = False
    """No path means the descriptor itself (utimensat(2))."""


def _mode(_: _Caller, words: Sequence[int]) -> Change:
    mode = words[0] & _MODE
    if mode & _SET_ID:
        raise _error(errno.EPERM)

    def change(folders: Folders, fd: int) -> None:
        # The run's own folders are measured and listed by who has no other right than their owner.
        if folders.has(fd) and mode & stat.S_IRWXU != stat.S_IRWXU:
            raise _error(errno.EPERM)
        kernel.change_mode(fd, mode)

    return change


def _owner(_: _Caller, words: Sequence[int]) -> Change:
    user, group = words[0] & _INT, words[1] & _INT
    return lambda _, fd: kernel.change_owner(fd, user, group)


def _times(caller: _Caller, words: Sequence[int]) -> Change:
    times = caller.exactly(words[0], 32) if words[0] else None
    return lambda _, fd: kernel.change_times(fd, times)


def _times_us(caller: _Caller, words: Sequence[int]) -> Change:
    if not words[0]:
        return _times(caller, words)
    read_s, read_us, written_s, written_us = struct.unpack("=4q", caller.exactly(words[0], 32))
    if not (0 <= read_us < _MICROSECONDS and 0 <= written_us < _MICROSECONDS):
        raise _error(errno.EINVAL)
    times = struct.pack("=4q", read_s, read_us * 1000, written_s, written_us * 1000)
    return lambda _, fd: kernel.change_times(fd, times)


def _times_s(caller: _Caller, words: Sequence[int]) -> Change:
    if not words[0]:
        return _times(caller, words)
    read_s, written_s = struct.unpack("=2q", caller.exactly(words[0], 16))
    times = struct.pack("=4q", read_s, 0, written_s, 0)
    return lambda _, fd: kernel.change_times(fd, times)


def _set_attribute(caller: _Caller, words: Sequence[int]) -> Change:
    name = _attribute_name(caller, words[0])
    size_bytes, flags = words[2], words[3] & _INT
    if size_bytes > VALUE_BYTES:
        raise _error(errno.E2BIG)
    if flags & ~(os.XATTR_CREATE | os.XATTR_REPLACE):
        raise _error(errno.EINVAL)
    value = caller.exactly(words[1], size_bytes)
    return lambda _, fd: os.setxattr(f"/proc/self/fd/{fd}", name, value, flags)


def _remove_attribute(caller: _Caller, words: Sequence[int]) -> Change:
    name = _attribute_name(caller, words[0])
    return lambda _, fd: os.removexattr(f"/proc/self/fd/{fd}", name)


def _attribute_name(caller: _Caller, address: int) -> bytes:
    """Only `user.*` (xattr(7)): for the others the file system seems to have none, as many have."""
    name = caller.text(address, NAME_BYTES, errno.ERANGE)
    if not name.startswith(b"user."):
        raise _error(errno.EOPNOTSUPP)
    return name


_CALLS = {
    "chmod": _Call(_mode, path=0),
    "fchmod": _Call(_mode, fd=0),
    "fchmodat": _Call(_mode, fd=0, path=1),
    "fchmodat2": _Call(_mode, fd=0, path=1, flags=3),
    "chown": _Call(_owner, path=0),
    "lchown": _Call(_owner, path=0, follow=False),
    "fchown": _Call(_owner, fd=0),
    "fchownat": _Call(_owner, fd=0, path=1, flags=4),
    "utime": _Call(_times_s, path=0),
    "utimes": _Call(_times_us, path=0),
    "futimesat": _Call(_times_us, fd=0, path=1, null_path=True),
    "utimensat": _Call(_times, fd=0, path=1, flags=3, null_path=True),
    "setxattr": _Call(_set_attribute, path=0),
    "lsetxattr": _Call(_set_attribute, path=0, follow=False),
    "fsetxattr": _Call(_set_attribute, fd=0),
    "removexattr": _Call(_remove_attribute, path=0),
    "lremovexattr": _Call(_remove_attribute, path=0, follow=False),
    "fremovexattr": _Call(_remove_attribute, fd=0),
}
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
NUMBERS = {
    "x86_64": {
        "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "utime": 132,
        "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
        "lremovexattr": 198, "fremovexattr": 199, "utimes": 235, "fchownat": 260,
        "futimesat": 261, "fchmodat": 268, "utimensat": 280, "fchmodat2": 452,
    },
    "aarch64": {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15,
        "fremovexattr": 16, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55,
        "utimensat": 88, "fchmodat2": 452,
    },
}  # fmt: skip
"""Machine -> name -> system call number."""

CALLS = {number: _CALLS[name] for name, number in NUMBERS[platform.machine()].items()}
"""System call number -> how it is carried out."""


def serve(listener: int, folders: Folders) -> None:
    """Carry out and answer one call that waits. OSError: the listener itself is of no use."""
    notification = unotify.receive(listener)
    if notification is not None:
        unotify.answer(listener, notification, _result(listener, notification, folders))


def _result(listener: int, notification: unotify.Notification, folders: Folders) -> int:
    """0, or the errno that the call fails with."""
    call = CALLS[notification.number]
    try:
        with contextlib.ExitStack() as held:
            where = _read_where(held, call, notification)
            change = call.change(_Caller(notification.thread), _behind(call, notification))
            if not unotify.is_valid(listener, notification):
                return errno.ESRCH  # nobody is there to be told
            with _found(folders, where) as fd:
                change(folders, fd)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


@dataclass(frozen=True, slots=True)
class _Where:
    start: int
    """-1: an absolute path has none."""
    path: bytes | None
    """None: what `start` is open at."""
    follow: bool


def _read_where(
    held: contextlib.ExitStack, call: _Call, notification: unotify.Notification
) -> _Where:
    caller = _Caller(notification.thread)
    words = notification.arguments
    number = _signed(words[call.fd]) if call.fd is not None else kernel.AT_FDCWD
    flags = words[call.flags] & _INT if call.flags is not None else 0
    if flags & ~(kernel.AT_SYMLINK_NOFOLLOW | kernel.AT_EMPTY_PATH):
        raise _error(errno.EINVAL)
    follow = call.follow and not flags & kernel.AT_SYMLINK_NOFOLLOW
    path: bytes | None = None
    if call.path is not None and not (call.null_path and not words[call.path]):
        path = caller.text(words[call.path], PATH_BYTES - 1, errno.ENAMETOOLONG)
        if not path and not flags & kernel.AT_EMPTY_PATH:
            raise _error(errno.ENOENT)
    elif call.path is not None and number == kernel.AT_FDCWD:
        raise _error(errno.EFAULT)
    if path is not None and follow and (meant := _OF_DESCRIPTOR.match(path)):
        number, path = int(meant[1]), b""
    if path is not None and path.startswith(b"/"):
        return _Where(-1, path, follow)
    start = caller.descriptor(number) if call.path is None else caller.folder(number)
    held.callback(os.close, start)
    return _Where(start, path or None, follow)


def _behind(call: _Call, notification: unotify.Notification) -> Sequence[int]:
    last = max(index for index in (call.fd, call.path) if index is not None)
    return notification.arguments[last + 1 :]


@contextlib.contextmanager
def _found(folders: Folders, where: _Where) -> Iterator[int]:
    if where.path is None:
        with folders.by_descriptor(where.start) as fd:
            yield fd
    else:
        with folders.by_path(where.start, where.path, follow=where.follow) as fd:
            yield fd


def _signed(word: int) -> int:
    """An `int` argument: the kernel looks at 32 bits of it."""
    low = word & _INT
    return low - (1 << 32) if low >> 31 else low


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
