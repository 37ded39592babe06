"""Inside a sandbox: process 1, and the process that becomes the program.

Both are forks of the builder and never return from here.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from runner.backends.native.launcher import assembly, kernel, landlock, programs
from runner.backends.native.launcher.protocol import Message

GO = b"g"


@dataclass(frozen=True, slots=True)
class Ends:
    """The descriptors that the inner processes were given."""

    stdin: int
    stdout: int
    stderr: int
    enter: int
    """Init reads GO here once it is in its cgroup."""
    go: int
    """The program's process reads GO here before it executes."""
    report: int
    """Steps that failed and what was achieved, one JSON object a line; closed by the exec."""
    status: int
    """Init writes the program's wait status here, as text."""

    def all(self) -> tuple[int, ...]:
        """Every descriptor, for who must not keep them."""
        return (
            self.stdin, self.stdout, self.stderr, self.enter, self.go, self.report, self.status
        )  # fmt: skip


class Reporter:
    """Says through a pipe which step failed; the protection's name, or `setup`."""

    def __init__(self, fd: int) -> None:
        """`fd`: the pipe's end."""
        self._fd = fd
        self.applied: list[str] = []

    def step(self, protection: str, action: Callable[[], object], required: bool = True) -> None:
        """Take one step; a failed one ends the process unless the plan lets it be absent."""
        try:
            action()
        except OSError as error:
            if required:
                self.fail(protection, error)
            return
        if protection != "setup":
            self.applied.append(protection)

    def fail(self, protection: str, error: BaseException) -> NoReturn:
        """Say it, and end the process."""
        self.say({"failed": protection, "why": str(error)})
        os._exit(125)

    def say(self, message: Message) -> None:
        """One line to the builder."""
        os.write(self._fd, json.dumps(message).encode("ascii") + b"\n")


def init(plan: Message, seccomp: bytes, ends: Ends) -> NoReturn:
    """Be process 1: finish the mounts, start the program, reap, report its status, end."""
    reporter = Reporter(ends.report)
    try:
        _init(plan, seccomp, ends, reporter)
    except BaseException as error:  # a fork must never run on in its parent's frames
        reporter.fail("setup", error)


def _init(plan: Message, seccomp: bytes, ends: Ends, reporter: Reporter) -> NoReturn:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    last_capability = kernel.last_capability()
    if not plan["hold"]:
        reporter.step("setup", go_first_when_memory_runs_out, required=False)
    if os.read(ends.enter, 1) != GO:
        os._exit(125)
    required = set(plan["required"])
    reporter.step(
        "cgroup_namespace",
        lambda: kernel.unshare(kernel.CLONE_NEWCGROUP),
        "cgroup_namespace" in required,
    )
    reporter.step("private_proc", assembly.mount_proc)
    reporter.step("readonly_root", assembly.enter)
    # Nobody in here may look into this process or take its descriptors (ptrace(2)): not the
    # program either, which may run before the next steps here are done, and its exec undoes this.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    program = os.fork()
    if program == 0:
        try:
            become_program(
                plan,
                ends,
                reporter,
                Walls(
                    landlock=lambda: restrict_files(plan),
                    capabilities=lambda: kernel.drop_capabilities(last_capability),
                    seccomp=lambda: kernel.install_seccomp(seccomp),
                ),
            )
        except BaseException as error:
            reporter.fail("setup", error)
    reporter.step("no_new_privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
    reporter.step("no_capabilities", lambda: kernel.drop_capabilities(last_capability))
    (status,) = keep_only(ends.status)
    if plan["hold"]:
        _hold()
    while True:
        pid, wait_status = os.waitpid(-1, 0)
        # Not a stop, which comes from a program that asked to be traced by its parent (ptrace(2)),
        # where a profile allows that.
        if pid == program and not os.WIFSTOPPED(wait_status):
            os.write(status, str(wait_status).encode())
            os._exit(0)  # the kernel kills whatever is left in here


def _hold() -> NoReturn:
    """Be there, and reap what commands leave behind them, until somebody ends the sandbox."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigwait({signal.SIGCHLD})


def keep_only(*fds: int) -> tuple[int, ...]:
    """Close all but these, which are moved; the streams lead nowhere. Where they are now."""
    apart = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in fds]
    kept = tuple(os.dup2(fd, 3 + position, inheritable=False) for position, fd in enumerate(apart))
    kernel.close_all_from(3 + len(kept))
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return kept


def go_first_when_memory_runs_out() -> None:
    """Of all on the machine the kernel is to choose the sandbox (proc_pid_oom_score_adj(5)).

    It matters without a cgroup: shared memory that is mapped nowhere (memfd_create(2), shmget(2))
    counts for no process, so nothing else bounds it. The program can lower its own score again,
    but not this process's, with which it dies.
    """
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


@dataclass(frozen=True, slots=True)
class Walls:
    """The steps that the tiers take in ways of their own; each raises OSError."""

    landlock: Callable[[], None]
    capabilities: Callable[[], None]
    seccomp: Callable[[], object]
    kept: int | None = None
    """A descriptor that the last step needs: it stands at KEPT_FD until the exec."""


KEPT_FD = 5


def become_program(
    plan: Message,
    ends: Ends,
    reporter: Reporter,
    walls: Walls,
    work: Callable[[], None] | None = None,
) -> NoReturn:
    """Give up every privilege, wait for the word to go, and execute.

    `ends`: `enter` and `status` are not used. With `hold` in the plan nothing is executed; `work`:
    what is done instead of that.
    """
    for number in signal.Signals:
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    if plan["terminal"]:
        fcntl.ioctl(ends.stdin, termios.TIOCSCTTY, 0)
    # The three streams first, the three that must stay until the exec behind them.
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (ends.stdin, ends.stdout, ends.stderr)]
    report = fcntl.fcntl(ends.report, fcntl.F_DUPFD, 20)
    go = fcntl.fcntl(ends.go, fcntl.F_DUPFD, 20)
    last = fcntl.fcntl(walls.kept, fcntl.F_DUPFD, 20) if walls.kept is not None else None
    for fd, kept_fd in enumerate(kept):
        os.dup2(kept_fd, fd)
    os.dup2(report, 3, inheritable=False)
    os.dup2(go, 4, inheritable=False)
    if last is not None:
        os.dup2(last, KEPT_FD, inheritable=False)
    kernel.close_all_from(KEPT_FD if last is None else KEPT_FD + 1)
    reporter = _continued(reporter, 3)
    reporter.step("setup", lambda: os.chdir(plan["cwd"]))
    reporter.step("rlimits", lambda: _rlimits(plan))
    if plan["processors"] is not None:
        reporter.step("setup", lambda: _confine_to_processors(plan["processors"]))
    reporter.step("no_new_privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
    required = set(plan["required"])
    reporter.step("landlock", walls.landlock, "landlock" in required)
    reporter.step("no_capabilities", walls.capabilities)
    program = programs.look(plan["argv"], plan["env"]) if plan["argv"] else []
    reporter.step("seccomp", walls.seccomp)
    reporter.say({"ready": sorted(set(reporter.applied))})
    if os.read(4, 1) != GO:
        os._exit(125)
    if plan["hold"]:
        os._exit(0)  # that the walls stand has been shown; commands come later
    os.umask(0o022)
    if work is not None:
        os.close(3)
        work()
        os._exit(0)
    try:
        programs.execute(program, plan["argv"], plan["env"])
    except OSError as error:
        reporter.say({"exec": error.errno})
    os._exit(127)


def _continued(reporter: Reporter, fd: int) -> Reporter:
    moved = Reporter(fd)
    moved.applied = reporter.applied
    return moved


def _rlimits(plan: Message) -> None:
    """setrlimit(2); what the caller's own hard limits forbid stays at theirs."""
    for name, value in plan["rlimits"].items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (bound, bound))


def _confine_to_processors(count: int) -> None:
    """At most so many processors at once (sched_setaffinity(2)); the last ones, not the busiest."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


def restrict_files(plan: Message) -> None:
    """Landlock: write where the run's own files are, read what is there. OSError: it can't be."""
    writable = ["/tmp", "/dev/shm", assembly.HOME]
    if plan["workspace"]["mode"] != "none":
        writable.append(plan["workspace"]["target"])
    # /proc: a program may set its own name, oom score and the like; the mount guards the rest.
    abi = landlock.found(plan["landlock_minimum"])
    landlock.restrict(
        abi,
        landlock.Hierarchies(readable=("/",), writable=writable, devices=["/dev", "/proc"]),
        # One command of a session may end what another one started: the namespace keeps them in.
        together=plan["together"],
    )
