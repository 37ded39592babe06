"""From init to the program: one fork, every privilege dropped, one exec."""

# Paths are bytes here, of names that nobody promises to be text.
# ruff: noqa: PTH118

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import struct
import termios
from dataclasses import dataclass

from runner.backends.docker.inside import walls

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
    user_namespace: bool
    """Whether it gets one of its own."""
    writable: tuple[bytes, ...] | None
    """Folders for Landlock to leave writable; None: without Landlock."""
    seccomp: bytes
    """A filter of its own on top of the container's; empty: none."""


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
    # The child asks to be mapped into its user namespace, and is told that it is.
    asked, ask = os.pipe2(os.O_CLOEXEC)
    mapped, map_done = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(program, theirs, (tell, ask, mapped), terminal=terminal)
    for fd in (tell, ask, mapped):
        os.close(fd)
    with contextlib.suppress(OSError):  # then the child's read ends, and it says so
        if os.read(asked, 1):
            walls.map_user(pid, program.uid, program.gid)
            os.write(map_done, b"m")
    os.close(asked)
    os.close(map_done)
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
    program: Program, stdio: tuple[int, int, int], talk: tuple[int, int, int], *, terminal: bool
) -> None:
    """In the child: never returns."""
    tell, ask, mapped = talk
    stage = b"s"
    try:
        _settle(program, stdio, talk, terminal=terminal)
        if program.user_namespace:
            walls.unshare_user()
            os.write(ask, b"u")
            if os.read(mapped, 1) != b"m":
                raise OSError(errno.EPERM, "uid_map")
        walls.drop_privileges(program.uid, program.gid)
        os.chdir(program.cwd)
        if program.writable is not None:
            walls.restrict_files(program.writable, b"/dev")
        if program.seccomp:
            walls.install_filter(program.seccomp)
        stage = b"x"
        _exec(program)
    except OSError as error:
        os.write(tell, struct.pack("ci", stage, error.errno or errno.EIO))
    except BaseException:  # nothing may escape into init's own code
        os.write(tell, struct.pack("ci", b"s", errno.EIO))
    finally:
        os._exit(127)


def _settle(
    program: Program, stdio: tuple[int, int, int], keep: tuple[int, ...], *, terminal: bool
) -> None:
    os.setsid()
    if terminal:
        fcntl.ioctl(stdio[0], termios.TIOCSCTTY, 0)
    with open("/proc/self/oom_score_adj", "w") as adjust:
        adjust.write(str(OOM_SCORE))
    for fd, source in enumerate(stdio):
        os.dup2(source, fd, inheritable=True)
    first = 3
    for fd in sorted(keep):  # the rest closes at the exec
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 16)
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
