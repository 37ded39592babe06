"""Builds one sandbox, watches it from outside, ends it, and reads what it changed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from runner.backends.native.launcher import (
    assembly,
    inside,
    kernel,
    listing,
    staging,
    trees,
    workspace,
)
from runner.backends.native.launcher.protocol import (
    Message,
    PeerGoneError,
    end_with_peer,
    receive,
    send,
)

WATCH_S = 0.05
"""How often the scratch is looked at; a full one ends the run."""

NAMESPACES = (
    ("network_namespace", kernel.CLONE_NEWNET),
    ("ipc_namespace", kernel.CLONE_NEWIPC),
    ("uts_namespace", kernel.CLONE_NEWUTS),
    ("pid_namespace", kernel.CLONE_NEWPID),
)
"""One call each, so that the one that is withheld can be named."""

STATUS_BYTES = 64
REPORT_BYTES = 65536


class BuildError(Exception):
    """A step of the building failed: `protection` names it, or is `setup`."""

    def __init__(self, protection: str, why: str) -> None:
        super().__init__(why)
        self.protection = protection
        self.why = why


def main(
    kind: type[Builder],
    control: socket.socket,
    plan: Message,
    blobs: list[bytes],
    streams: tuple[int, int, int],
) -> NoReturn:
    """Serve one run and end the process. `streams`: the program's stdin, stdout and stderr."""
    builder = kind(control, plan, blobs, streams)
    try:
        _raise_open_files()
        builder.serve()
    except PeerGoneError:
        pass  # the supervisor is gone, or wants this sandbox no more
    except BuildError as error:
        _say_failed(control, error.protection, error.why)
    except workspace.WorkspaceError as error:
        _say_failed(control, "setup", str(error))
    except BaseException as error:  # a fork must never run on in its parent's frames
        _say_failed(control, "setup", f"{type(error).__name__}: {error}")
    builder.destroy()
    os._exit(0)


def _raise_open_files() -> None:
    """Reading deep trees takes descriptors; the program gets a limit of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say_failed(control: socket.socket, protection: str, why: str) -> None:
    with contextlib.suppress(PeerGoneError, OSError):
        send(control, {"at": "failed", "protection": protection, "why": why})


def _step(protection: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OSError as error:
        raise BuildError(protection, str(error)) from error


class Builder:
    """The state of one run in the builder's process."""

    _most_fds = 0
    """Descriptors that come with a word of the supervisor's while the program runs."""

    def __init__(
        self,
        control: socket.socket,
        plan: Message,
        blobs: list[bytes],
        streams: tuple[int, int, int],
    ) -> None:
        """Nothing is built yet."""
        self._control = control
        self._plan = plan
        self._blobs = blobs
        self._streams = streams
        self._init = 0
        self._go = -1
        self._report = -1
        self._status = -1
        self._ended_by: str | None = None
        self._deadline_s: float | None = None
        self._exec_errno: int | None = None
        self._keep = False
        self._since_ns = 0
        self._poller = select.poll()
        """What the watch wakes for."""

    def serve(self) -> None:
        """The whole run, from namespaces to the list of changes."""
        end_with_peer(self._control)  # init, if there is one, dies with us
        kernel.set_own_name(self._plan["label"])
        stage = self._build()
        self._start()
        started_s = self._wait_for_go()
        self._watch(stage)
        self._end(stage, started_s)

    def destroy(self) -> None:
        """Kill init, and with it all that is in its namespace; wait until it is gone."""
        if self._init > 0:
            os.kill(self._init, signal.SIGKILL)  # not yet reaped, so the number is still its own
            os.waitpid(self._init, 0)
            self._init = 0

    def _build(self) -> staging.Stage:
        plan = self._plan
        stage: staging.Stage | None = None
        if plan["rootful"]:
            self._enter_mounts()
            stage = self._stage()
        _step("user_namespace", lambda: kernel.unshare(kernel.CLONE_NEWUSER))
        send(self._control, {"at": "userns", "pid": os.getpid()})
        receive(self._control)  # the maps are written
        self._become_inner_user()
        # Whatever this process is busy with: it ends with the launcher, which ends with the
        # supervisor. After the change of user, which would take this back (prctl(2)).
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        self._enter_mounts()
        if stage is None:
            stage = self._stage()
        for protection, flag in NAMESPACES:
            _step(protection, partial(kernel.unshare, flag))
        _step("network_namespace", assembly.raise_loopback)
        _step("uts_namespace", lambda: socket.sethostname(plan["hostname"]))
        _step("mount_namespace", lambda: assembly.assemble(plan, stage, self._blobs))
        return stage

    def _stage(self) -> staging.Stage:
        try:
            stage: staging.Stage = _step("mount_namespace", lambda: staging.prepare(self._plan))
        except BuildError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
                raise BuildError(
                    "setup",
                    "the workspace does not fit into the limits 'workspace' and 'inodes' of the "
                    "profile, and this kernel can't lay it under without a copy",
                ) from error
            raise
        return stage

    def _enter_mounts(self) -> None:
        _step("mount_namespace", lambda: kernel.unshare(kernel.CLONE_NEWNS))
        _step(
            "mount_namespace",
            lambda: kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE),
        )

    def _become_inner_user(self) -> None:
        inner = self._plan["inner_id"]
        if self._plan["rootful"]:
            _step("user_namespace", lambda: os.setgroups([]))
        _step("user_namespace", lambda: os.setresgid(inner, inner, inner))
        _step("user_namespace", lambda: os.setresuid(inner, inner, inner))
        # A change of user makes /proc/self root's, and staging reads there.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        end_with_peer(self._control)

    def _start(self) -> None:
        """Fork init, let it and the program's process get ready, and say what is in force."""
        stdin, stdout, stderr = self._streams
        master = -1
        if self._plan["terminal"]:
            master, slave = _step("mount_namespace", self._open_terminal)
            for fd in {stdin, stdout, stderr}:
                os.close(fd)
            stdin = stdout = stderr = slave
        enter_r, enter_w = os.pipe()
        go_r, self._go = os.pipe()
        self._report, report_w = os.pipe()
        self._status, status_w = os.pipe()
        ends = inside.Ends(stdin, stdout, stderr, enter_r, go_r, report_w, status_w)
        self._init = _step("pid_namespace", os.fork)
        if self._init == 0:
            signal.signal(signal.SIGIO, signal.SIG_DFL)
            self._control.close()
            for fd in (enter_w, self._go, self._report, self._status):
                os.close(fd)
            self._be_init(ends)
        for fd in set(ends.all()):
            os.close(fd)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        send(self._control, {"at": "init", "pid": self._init})
        receive(self._control)  # init is in its cgroup
        os.write(enter_w, inside.GO)
        os.close(enter_w)
        protections = self._await_ready()
        fds = (master,) if master >= 0 else ()
        send(self._control, {"at": "built", "protections": protections}, fds)
        if master >= 0:
            os.close(master)

    def _open_terminal(self) -> tuple[int, int]:
        return assembly.open_terminal()

    def _be_init(self, ends: inside.Ends) -> NoReturn:
        inside.init(self._plan, self._blobs[self._plan["seccomp_blob"]], ends)

    def _await_ready(self) -> list[str]:
        text = b""
        while not text.endswith(b"\n"):
            part = os.read(self._report, REPORT_BYTES)
            if not part:
                raise BuildError("setup", "the sandbox's first process died while it was built")
            text += part
        said = json.loads(text.splitlines()[0])
        if "failed" in said:
            raise BuildError(said["failed"], said["why"])
        ready: list[str] = said["ready"]
        return ready

    def _wait_for_go(self) -> float:
        """Until the supervisor says so; the program starts, and its time."""
        message, _ = receive(self._control)
        if message.get("do") != "run":
            raise PeerGoneError
        self._keep = message["keep"]
        self._since_ns = trees.tick_ns()
        started_s = time.monotonic()
        if self._plan["wall_s"] is not None:
            self._deadline_s = started_s + self._plan["wall_s"]
        os.write(self._go, inside.GO)
        os.close(self._go)
        return started_s

    def _watch(self, stage: staging.Stage) -> None:
        """Until init is gone: the supervisor's word, the deadline, a full scratch."""
        init = os.pidfd_open(self._init)
        poller = self._poller
        poller.register(init, select.POLLIN)
        poller.register(self._control, select.POLLIN)
        poller.register(self._report, select.POLLIN)
        while True:
            wait_s = WATCH_S
            if self._deadline_s is not None:
                wait_s = min(wait_s, max(0.0, self._deadline_s - time.monotonic()))
            ready = {fd for fd, _ in poller.poll(wait_s * 1000)}
            if self._report in ready:
                poller.unregister(self._report)
                self._read_exec_result()
            if self._control.fileno() in ready:
                try:
                    message, fds = receive(self._control, self._most_fds)
                except PeerGoneError:
                    self._kill("supervisor")
                    poller.unregister(self._control)
                else:
                    self._obey(message, fds)
            if init in ready:
                os.close(init)
                return
            if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
                self._deadline_s = None
                self._kill("wall")
            self._look(stage)

    def _obey(self, message: Message, fds: list[int]) -> None:
        """The supervisor's word while the program runs."""
        for fd in fds:
            os.close(fd)
        self._kill(str(message.get("why", "cancelled")))

    def _look(self, stage: staging.Stage) -> None:
        """What is done now and then while the program runs."""
        if self._is_full(stage):
            self._kill("workspace")

    def _is_full(self, stage: staging.Stage, *, now: bool = False) -> bool:
        """Whether what may be written is used up; `now`: not by a look that is a little old."""
        del now
        return scratch_is_full(stage.scratch_fd)

    def _read_exec_result(self) -> None:
        """End of file: the program runs. A line: it could not be executed."""
        text = os.read(self._report, REPORT_BYTES)
        if text:
            self._exec_errno = json.loads(text.splitlines()[0]).get("exec")

    def _kill(self, why: str) -> None:
        if self._ended_by is None:
            self._ended_by = why
            os.kill(self._init, signal.SIGKILL)  # not yet reaped, so the number is still its own

    def _end(self, stage: staging.Stage, started_s: float) -> None:
        used = self._reap()
        full = self._is_full(stage, now=True)
        wall_s = time.monotonic() - started_s
        status = os.read(self._status, STATUS_BYTES)
        send(
            self._control,
            {
                "at": "ended",
                "by": self._ended_by,
                "status": int(status) if status else None,
                "exec_errno": self._exec_errno,
                "scratch_full": full,
                "wall_s": wall_s,
                "cpu_user_s": used.ru_utime,
                "cpu_system_s": used.ru_stime,
                "largest_rss_bytes": _largest_rss_bytes(used),
            },
        )
        truncated = False
        if stage.workspace.upper_fd >= 0:
            truncated = listing.send_all(self._changes(stage), self._send_part, keep=self._keep)
        send(self._control, {"at": "done", "truncated": truncated})
        # Stay until the supervisor has read it: a closed socket must mean that all was said.
        with contextlib.suppress(PeerGoneError):
            receive(self._control)

    def _send_part(self, part: list[trees.Record], fds: tuple[int, ...]) -> None:
        """One at a time: descriptors under way are bounded, and so is what waits in the socket."""
        send(self._control, {"at": "changes", "changes": part}, fds)
        while True:
            message, _ = receive(self._control)
            if message.get("do") == "next":  # a word to end the run may have crossed its end
                return

    def _reap(self) -> resource.struct_rusage:
        """Wait for init, and with it all of the run; what it used."""
        _, _, used = os.wait4(self._init, 0)
        self._init = 0
        return used

    def _changes(self, stage: staging.Stage) -> trees.Found:
        laid = stage.workspace
        if laid.merged_fd < 0:
            found = trees.changed_in_copy(laid.upper_fd, laid.baseline)
        else:
            found = trees.changed_in_overlay(
                laid.upper_fd, laid.merged_fd, laid.lower_fd, self._since_ns, laid.baseline
            )
        # Where an injected file stood was made by us, and the program could not touch it.
        ours = _mount_points(self._plan)
        return (each for each in found if each is None or each.record["path"] not in ours)


def _mount_points(plan: Message) -> set[str]:
    """Paths in the workspace, relative to it, that injected files were mounted on."""
    prefix = f"{plan['workspace']['target']}/"
    paths = (file["path"] for file in plan["files"])
    return {path.removeprefix(prefix) for path in paths if path.startswith(prefix)}


def _largest_rss_bytes(used: resource.struct_rusage) -> int | None:
    """Of any one process of the run; None when it was no more than our own forks before exec."""
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used.ru_maxrss * 1024 if used.ru_maxrss > own_kib else None


def scratch_is_full(fd: int) -> bool:
    """Whether not one page or not one inode is left (statvfs(3))."""
    found = os.fstatvfs(fd)
    no_space = found.f_blocks > 0 and found.f_bavail == 0
    no_inodes = found.f_files > 0 and found.f_favail == 0
    return no_space or no_inodes
