"""Builds a sandbox that stays, and forks the commands of its session into it.

Theory of operation. The builder has made the sandbox's namespaces its own, but for that of
processes, which its children are born into; and the root that init entered is the root of all who
share the mount namespace, the builder too. So each command is a child of the builder's, which is
itself no process of the sandbox: nothing in there can look at it or send it a signal. A command
gets a mount namespace of its own, for its script; by that namespace, which no program can leave, a
process is known for one of the command's, whoever became its parent.

    supervisor ── zygote ── builder ──[ init, which reaps what has lost its parent ]
                                    ├─[ command and its children ]
                                    └─[ command … ]
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import NoReturn

from runner.backends.native.launcher import assembly, files, inside, kernel, staging
from runner.backends.native.launcher.builder import Builder
from runner.backends.native.launcher.protocol import Message, PeerGoneError, read_plan, send

COMMAND_FDS = 8
"""Of one command: its channel, its plan, the three streams, and where it is told to enter and to
go, and reports."""
MOST_COMMANDS = 64
"""At once, those included that left nothing but what runs on behind them: each is a process."""
LATE_S = 10.0
"""The supervisor ends a command at its limit of wall time; where it has not so much later, the
session is ended: whoever watches it does not do so any more."""

_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_RUN_FOLDER = "/run/runner"


@dataclass(slots=True)
class _Command:
    """One that has not ended."""

    channel: socket.socket
    pidfd: int
    late_s: float | None
    """When it is too late, on the monotonic clock; None: never."""


class SessionBuilder(Builder):
    """The state of one session in the builder's process."""

    _most_fds = COMMAND_FDS
    _last_capability = 0

    def __init__(
        self,
        control: socket.socket,
        plan: Message,
        blobs: list[bytes],
        streams: tuple[int, int, int],
    ) -> None:
        """No command yet."""
        super().__init__(control, plan, blobs, streams)
        self._commands: dict[int, _Command] = {}

    def destroy(self) -> None:
        """Kill all that is in the sandbox; wait until it is gone."""
        if self._init > 0:
            os.kill(self._init, signal.SIGKILL)
            self._reap_all()
        super().destroy()

    def _build(self) -> staging.Stage:
        self._last_capability = kernel.last_capability()  # while the machine's /proc is there
        return super()._build()

    def _obey(self, message: Message, fds: list[int]) -> None:
        if message.get("do") != "command" or len(fds) != COMMAND_FDS:
            super()._obey(message, fds)
            return
        channel = socket.socket(fileno=fds[0])
        rest = fds[1:]
        try:
            if len(self._commands) >= MOST_COMMANDS:
                raise OSError(f"{MOST_COMMANDS} commands of this session run already")
            pid = os.fork()
            if pid == 0:
                self._be_command(channel, rest)
        except OSError as error:
            with contextlib.suppress(PeerGoneError, OSError):
                send(channel, {"at": "failed", "protection": "setup", "why": str(error)})
            channel.close()
        else:
            wall_s = message["wall_s"]
            late_s = None if wall_s is None else time.monotonic() + wall_s + LATE_S
            command = _Command(channel, os.pidfd_open(pid), late_s)
            self._commands[pid] = command
            self._poller.register(command.pidfd, select.POLLIN)
            with contextlib.suppress(PeerGoneError, OSError):
                send(channel, {"at": "forked", "pid": pid})
        finally:
            for fd in rest:
                os.close(fd)

    def _look(self, stage: staging.Stage) -> None:
        """Full is no reason to end a session: its commands are refused what does not fit."""
        self._reap_commands(stage)
        now_s = time.monotonic()
        if any(each.late_s is not None and now_s > each.late_s for each in self._commands.values()):
            self._kill("wall")

    def _reap_commands(self, stage: staging.Stage | None) -> None:
        for pid in list(self._commands):
            found, status, used = os.wait4(pid, os.WNOHANG)
            if found:
                self._ended(pid, status, used, stage)

    def _ended(
        self,
        pid: int,
        status: int,
        used: resource.struct_rusage,
        stage: staging.Stage | None,
    ) -> None:
        command = self._commands.pop(pid)
        with contextlib.suppress(PeerGoneError, OSError):
            send(
                command.channel,
                {
                    "at": "ended",
                    "status": status,
                    "by": self._ended_by,
                    "scratch_full": stage is not None and self._is_full(stage, now=True),
                    "cpu_user_s": used.ru_utime,
                    "cpu_system_s": used.ru_stime,
                },
            )
        command.channel.close()
        self._poller.unregister(command.pidfd)
        os.close(command.pidfd)

    def _reap_all(self) -> None:
        """The kernel kills them with init, which is not gone before they are reaped."""
        poller = select.poll()
        for command in self._commands.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(command.pidfd, signal.SIGKILL)
            poller.register(command.pidfd, select.POLLIN)
        while self._commands:
            for fd, _ in poller.poll():
                poller.unregister(fd)
            self._reap_commands(None)

    def _reap(self) -> resource.struct_rusage:
        self._reap_all()
        return super()._reap()

    def _be_command(self, channel: socket.socket, rest: list[int]) -> NoReturn:
        """In the child: never returns into the builder's loop."""
        reporter = inside.Reporter(rest[6])
        try:
            signal.signal(signal.SIGIO, signal.SIG_DFL)
            self._control.close()
            self._become(channel, rest, reporter)
        except BaseException as error:  # a fork must never run on in its parent's frames
            reporter.fail("setup", error)

    def _become(
        self, channel: socket.socket, rest: list[int], reporter: inside.Reporter
    ) -> NoReturn:
        plan_fd, stdin, stdout, stderr, enter, go, report = rest
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.read(enter, 1) != inside.GO:
            os._exit(125)  # its control group
        own, blobs = read_plan(plan_fd)
        plan = {**self._plan, **own, "hold": False}
        reporter.step(
            "cgroup_namespace",
            lambda: kernel.unshare(kernel.CLONE_NEWCGROUP),
            "cgroup_namespace" in plan["required"],
        )
        reporter.step("mount_namespace", lambda: kernel.unshare(kernel.CLONE_NEWNS))
        reporter.step("setup", lambda: _inject(own["files"], blobs))
        # Whoever holds it keeps its number from being another's.
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        send(channel, {"at": "entered"}, (namespace,))
        os.close(namespace)
        if plan["terminal"]:
            master, stdin = assembly.open_terminal("")
            stdout = stderr = stdin
            send(channel, {"at": "terminal"}, (master,))
            os.close(master)
        channel.close()
        seccomp = self._blobs[self._plan["seccomp_blob"]]
        inside.become_program(
            plan,
            inside.Ends(stdin, stdout, stderr, enter, go, report, report),
            reporter,
            inside.Walls(
                landlock=lambda: inside.restrict_files(plan),
                capabilities=lambda: kernel.drop_capabilities(self._last_capability),
                seccomp=lambda: kernel.install_seccomp(seccomp),
            ),
            work=files.work(own["file"]) if own["file"] is not None else None,
        )


def _inject(injected: list[Message], blobs: list[bytes]) -> None:
    """The command's script, read-only, where no other command sees it."""
    if not injected:
        return
    size = sum(len(blobs[file["blob"]]) for file in injected) + (64 << 10)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("script", _RUN_FOLDER, "tmpfs", flags, f"mode=0755,size={size},nr_inodes=64")
    for file in injected:
        folder, _, name = file["path"].rpartition("/")
        if folder != _RUN_FOLDER or not name:
            raise OSError(f"no file can be put at {file['path']} in a session")
        fd = os.open(file["path"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as made:
            made.write(blobs[file["blob"]])
            os.fchmod(fd, 0o555 if file["executable"] else 0o444)
    kernel.mount_setattr(kernel.AT_FDCWD, _RUN_FOLDER, _READ_ONLY, recursive=False)
