"""From init to the program: one fork, every privilege dropped, one exec."""

# Paths are bytes here, of names that nobody promises to be text.
# ruff: noqa: PTH118

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import termios
from dataclasses import dataclass

# include/uapi/linux/prctl.h and capability.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES_END = 64

DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"
OOM_SCORE = 500
"""oom_score_adj of the program: the kernel takes it before init, which has to tell of it."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to exec, as bytes, and as whom."""

    argv: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    cwd: bytes
    uid: int
    gid: int
    open_files: int | None


@dataclass(frozen=True, slots=True)
class Child:
    """A program that was started."""

    pid: int
    stdin: int
    """Init's side; with a terminal the same descriptor as `stdout`."""
    stdout: int
    stderr: int | None
    failed_at: str | None
    """`setup` or `exec` when the program never began, else None."""
    errno_code: int


def start(program: Program, *, terminal: bool, window: list[int] | None) -> Child:
    """Fork and exec; returns once the exec has happened or failed. `window`: rows, columns."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    if terminal:
        stdin, slave = os.openpty()
        if window is not None:
            resize(slave, *window)
        os.fchown(slave, program.uid, program.gid)
        stdout, stderr, theirs = stdin, None, (slave, slave, slave)
    else:
        their_in, stdin = os.pipe2(os.O_CLOEXEC)
        stdout, their_out = os.pipe2(os.O_CLOEXEC)
        stderr, their_err = os.pipe2(os.O_CLOEXEC)
        theirs = (their_in, their_out, their_err)
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        _become(program, theirs, tell, libc, terminal=terminal)
    os.close(tell)
    for fd in set(theirs):
        os.close(fd)
    with os.fdopen(told, "rb") as reader:
        said = reader.read()
    failed_at, errno_code = None, 0
    if said:
        stage, errno_code = struct.unpack("ci", said[: struct.calcsize("ci")])
        failed_at = "exec" if stage == b"x" else "setup"
    return Child(pid, stdin, stdout, stderr, failed_at, errno_code)


def resize(fd: int, rows: int, columns: int) -> None:
    """Set the size of the terminal behind `fd` (TIOCSWINSZ, ioctl_tty(2))."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _become(
    program: Program, stdio: tuple[int, int, int], tell: int, libc: ctypes.CDLL, *, terminal: bool
) -> None:
    """In the child: never returns."""
    stage = b"s"
    try:
        _settle(program, stdio, tell, terminal=terminal)
        _drop_privileges(program, libc)
        os.chdir(program.cwd)
        stage = b"x"
        _exec(program)
    except OSError as error:
        os.write(tell, struct.pack("ci", stage, error.errno or errno.EIO))
    except BaseException:  # nothing may escape into init's own code
        os.write(tell, struct.pack("ci", b"s", errno.EIO))
    finally:
        os._exit(127)


def _settle(program: Program, stdio: tuple[int, int, int], tell: int, *, terminal: bool) -> None:
    os.setsid()
    if terminal:
        fcntl.ioctl(stdio[0], termios.TIOCSCTTY, 0)
    with open("/proc/self/oom_score_adj", "w") as adjust:
        adjust.write(str(OOM_SCORE))
    for fd, source in enumerate(stdio):
        os.dup2(source, fd, inheritable=True)
    last = 1 << 16
    os.closerange(3, tell)
    os.closerange(tell + 1, last)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue  # libc's own real-time signals
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if program.open_files is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        bound = (
            program.open_files if hard == resource.RLIM_INFINITY else min(program.open_files, hard)
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (bound, bound))


def _drop_privileges(program: Program, libc: ctypes.CDLL) -> None:
    for capability in range(_CAPABILITIES_END):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL:
                break  # past the kernel's last one
            raise OSError(ctypes.get_errno(), "PR_CAPBSET_DROP")
    os.setgroups([])
    os.setresgid(program.gid, program.gid, program.gid)
    os.setresuid(program.uid, program.uid, program.uid)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def _exec(program: Program) -> None:
    """As execvp(3) searches, with the program's own PATH; without its retry through a shell."""
    name = program.argv[0]
    if b"/" in name:
        os.execve(name, list(program.argv), program.environment)  # noqa: S606
    refused: OSError | None = None
    missing = OSError(errno.ENOENT, "not found")
    if name:
        for folder in program.environment.get(b"PATH", DEFAULT_PATH).split(b":"):
            try:
                path = os.path.join(folder, name)
                os.execve(path, list(program.argv), program.environment)  # noqa: S606
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    refused = refused or error
    raise refused or missing
