"""In a run of the tier `process`: init, and what the program's process does in its own way.

Both are forks of the builder, in its signal domain (see process_builder.py), and never return.

Where the program has the caller's user, init carries out changes of metadata in its place (see
metadata.py). It is the one to do so: it stands outside of the program's Landlock domain, can't be
signalled or traced from there, and is the ancestor of all of the run, as one must be to read a
process's memory where Yama restricts that (ptrace_scope 1).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import NoReturn

from runner.backends.native.launcher import (
    inside,
    kernel,
    landlock,
    metadata,
    staging,
    unotify,
)
from runner.backends.native.launcher.beneath import Folders
from runner.backends.native.launcher.protocol import Message

ETC_FILES = ("group", "hosts", "nsswitch.conf", "passwd")
"""Read as they are: nothing can stand in their place. Not resolv.conf: there is no network."""
PROC_FILES = ("cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version")
"""Of /proc nothing is shown that tells of processes, mounts or connections, so no folder of a
process either, not even the program's own: its `net` tells the host's connections."""


_WAKE_BYTES = 4096


def init(plan: Message, seccomp: bytes, ends: inside.Ends) -> NoReturn:
    """Start the program, reap what it leaves behind, report its status, end it all."""
    reporter = inside.Reporter(ends.report)
    try:
        _init(plan, seccomp, ends, reporter)
    except BaseException as error:  # a fork must never run on in its parent's frames
        reporter.fail("setup", error)


def _init(plan: Message, seccomp: bytes, ends: inside.Ends, reporter: inside.Reporter) -> NoReturn:
    builder = os.getppid()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # there is nothing to end yet
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    reporter.step("setup", inside.go_first_when_memory_runs_out, required=False)
    if os.read(ends.enter, 1) != inside.GO:
        os._exit(125)
    # As a user the builder would be among those whom a signal to all reaches.
    reporter.step("landlock", landlock.keep_signals_inside)
    reporter.step("no_capabilities", lambda: _give_up(plan))
    # The builder's end must be the run's; a change of user takes the wish back (prctl(2)).
    signal.signal(signal.SIGTERM, lambda *_: _end_all())
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if os.getppid() != builder:
        os._exit(125)
    # A user of its own can change only what it owns, which is the run's; a user of all must ask.
    ours, theirs = (None, None) if plan["rootful"] else socket.socketpair()
    program = os.fork()
    if program == 0:
        try:
            walls = inside.Walls(
                landlock=lambda: _landlock(plan),
                capabilities=kernel.empty_capabilities,
                seccomp=lambda: _seccomp(seccomp, asks=theirs is not None),
                kept=theirs.fileno() if theirs is not None else None,
            )
            inside.become_program(plan, ends, reporter, walls)
        except BaseException as error:
            reporter.fail("setup", error)
    try:
        if ours is None:
            (status,) = inside.keep_only(ends.status)
            _reap(program, status)
        status, channel = inside.keep_only(ends.status, ours.detach())
        _reap_and_serve(program, status, channel, Folders(_writable(plan)))
    except BaseException:  # nothing is left to say it by; an end without a status is ours
        _end_all()


def _seccomp(program: bytes, *, asks: bool) -> None:
    """First who asks: what a profile refuses besides may be what this needs."""
    if asks:
        unotify.install(unotify.filter_for(metadata.CALLS), inside.KEPT_FD)
    kernel.install_seccomp(program)


def _reap(program: int, status: int) -> NoReturn:
    while True:
        pid, wait_status = os.waitpid(-1, 0)
        _end_with(program, status, pid, wait_status)


def _reap_and_serve(program: int, status: int, channel: int, folders: Folders) -> NoReturn:
    """As `_reap`, and carry out what the program asks for, one call at a time."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # full is as good: it wakes
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poller = select.poll()
    poller.register(woken, select.POLLIN)
    with socket.socket(fileno=channel) as ours:
        listener = unotify.listener_from(ours)
    if listener is not None:
        poller.register(listener, select.POLLIN)
    while True:
        # Before the wait: a child may have ended before the signal was listened for.
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _end_with(program, status, *ended)
        for fd, events in poller.poll():
            if fd == woken:
                os.read(woken, _WAKE_BYTES)
            elif events & select.POLLIN:
                metadata.serve(fd, folders)
            else:
                poller.unregister(fd)  # nobody is left under the filter


def _end_with(program: int, status: int, pid: int, wait_status: int) -> None:
    # A stop comes from a program that asked to be traced by its parent, where a profile allows it.
    if pid == program and not os.WIFSTOPPED(wait_status):
        os.write(status, str(wait_status).encode())
        _end_all()


def _end_all() -> NoReturn:
    """SIGKILL to all in the domain but this process, at once; wait until they are gone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    os._exit(0)


def _give_up(plan: Message) -> None:
    """As root: become the run's own user, for good; as a user: there is nothing to give up."""
    if plan["rootful"]:
        for capability in range(kernel.last_capability() + 1):
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
        user = plan["outer_id"]
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.empty_capabilities()


def _landlock(plan: Message) -> None:
    readable = ["/usr", plan["run"], *plan["read"]]
    readable += [f"/{name}" for name in staging.ROOT_LINKS]
    readable += [f"/etc/{name}" for name in (*staging.ETC_ENTRIES, *ETC_FILES)]
    readable += [f"/proc/{name}" for name in PROC_FILES]
    devices = [f"/dev/{name}" for name in staging.DEVICES]
    landlock.restrict(
        landlock.found(plan["landlock_minimum"]),
        landlock.Hierarchies(
            readable=[path for path in readable if os.path.exists(path)],
            writable=_writable(plan),
            devices=[path for path in devices if os.path.exists(path)],
        ),
        no_tcp=True,
    )


def _writable(plan: Message) -> list[str]:
    return [plan["home"], plan["tmp"], f"{plan['scratch']}/workspace"]
