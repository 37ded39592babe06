"""Builds, watches and ends a run of the tier `process`: without namespaces.

Theory of operation. The builder enters a Landlock domain that only keeps signals inside, and all
of the run is forked from there; init enters another within, and the program a third, which also
restricts files. So `kill(-1, SIGKILL)` by the builder or by init ends all within its domain at once
and nobody else, whoever double-forked or changed session, and the program can signal neither of
the two. When init ends, the builder does so; when the builder ends, init does, told by its
parent-death signal.

    supervisor ── zygote ──[ builder ──[ init ──[ program and its children ]]]
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import NoReturn

from runner.backends.native.launcher import (
    assembly,
    copying,
    inside,
    kernel,
    landlock,
    process_inside,
    staging,
    workspace,
)
from runner.backends.native.launcher.builder import Builder, BuildError, _step
from runner.backends.native.launcher.measure import Measure, count

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ProcessBuilder(Builder):
    """The state of one run in the builder's process."""

    _in_domain = False
    _measure: Measure | None = None

    def _build(self) -> staging.Stage:
        plan = self._plan
        # Whatever this process is busy with: it ends with the launcher.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        _step("landlock", lambda: landlock.found(plan["landlock_minimum"]))
        stage: staging.Stage = _step("setup", self._lay_out)
        _step("no_new_privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
        _step("landlock", landlock.keep_signals_inside)
        self._check_domain()
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        if not plan["rootful"] and "RLIMIT_NPROC" in plan["rlimits"]:
            # It counts all of the user's processes, and here they are the caller's own.
            plan["rlimits"]["RLIMIT_NPROC"] += threads_of(os.geteuid())
        return stage

    def _check_domain(self) -> None:
        """What ends the run would end everything of this user, if signals were not kept inside."""
        try:
            os.kill(os.getppid(), 0)
        except PermissionError:
            self._in_domain = True
            return
        raise BuildError("landlock", "the kernel does not keep signals inside a Landlock domain")

    def _lay_out(self) -> staging.Stage:
        plan = self._plan
        owner = plan["outer_id"] if plan["rootful"] else None
        top = os.open(plan["scratch"], _FOLDER)
        folders = {}
        for name in ("workspace", "home", "tmp", "run"):
            os.mkdir(name, 0o755 if name == "run" else 0o700, dir_fd=top)
            folders[name] = os.open(name, _FOLDER, dir_fd=top)
            if owner is not None and name != "run":
                os.fchown(folders[name], owner, owner)
        os.fchmod(folders["run"], 0o755)
        stage = staging.Stage(scratch_fd=top)
        written = (folders["workspace"], folders["home"], folders["tmp"])
        self._measure = Measure(written, plan["scratch_bytes"], plan["scratch_inodes"])
        if plan["workspace"]["source"] is not None:
            self._copy(stage, folders["workspace"], owner)
        elif plan["workspace"]["mode"] == "tmpfs":
            stage.workspace = workspace.Laid(upper_fd=folders["workspace"], baseline={})
        self._inject(folders, owner)
        return stage

    def _copy(self, stage: staging.Stage, target: int, owner: int | None) -> None:
        plan = self._plan
        folder = workspace.opened(plan["workspace"])
        source = os.open(".", _FOLDER, dir_fd=folder)
        os.close(folder)
        try:
            most_bytes = plan["scratch_bytes"] or float("inf")
            most_inodes = plan["scratch_inodes"] or float("inf")
            size_bytes, inodes = count(source, most_bytes, most_inodes)
            if size_bytes >= most_bytes or inodes >= most_inodes:
                raise BuildError(
                    "setup",
                    "the workspace does not fit into the limits 'workspace' and 'inodes' of the "
                    "profile, and isolation: process works on a copy",
                )
            stage.workspace = workspace.Laid(
                upper_fd=target, baseline=copying.copy(source, target, owner)
            )
        finally:
            os.close(source)

    def _inject(self, folders: dict[str, int], owner: int | None) -> None:
        """Files with exactly these bytes; those in the workspace are the program's to change."""
        for file in self._plan["files"]:
            where, _, path = file["path"].removeprefix(f"{self._plan['scratch']}/").partition("/")
            if where not in ("run", "workspace"):
                raise BuildError("setup", f"no file can be put at {file['path']}")
            parent, _, name = path.rpartition("/")
            at = assembly.folder(folders[where], parent) if parent else os.dup(folders[where])
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=at)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=at), "wb") as made:
                made.write(self._blobs[file["blob"]])
                os.fchmod(made.fileno(), 0o555 if file["executable"] else 0o444)
                if owner is not None:
                    os.fchown(made.fileno(), owner, owner)
            os.close(at)

    def _open_terminal(self) -> tuple[int, int]:
        master, slave = os.openpty()
        if self._plan["rootful"]:
            os.fchown(slave, self._plan["outer_id"], self._plan["outer_id"])
        return master, slave

    def _be_init(self, ends: inside.Ends) -> NoReturn:
        process_inside.init(self._plan, self._blobs[self._plan["seccomp_blob"]], ends)

    def _is_full(self, stage: staging.Stage, *, now: bool = False) -> bool:
        del stage
        return self._measure is not None and self._measure.is_full(now=now)

    def _kill(self, why: str) -> None:
        if self._ended_by is None:
            self._ended_by = why
            self._kill_all()

    def _kill_all(self) -> None:
        """SIGKILL to all of the run at once (kill(2), -1); what it forks meanwhile has it too."""
        if self._in_domain:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)

    def _reap(self) -> resource.struct_rusage:
        used = super()._reap()
        self._kill_all()  # init has done so, unless it was killed itself
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        return used

    def destroy(self) -> None:
        """Kill all of the run; wait until it is gone."""
        if self._init > 0:
            self._kill_all()
            self._reap()


def threads_of(uid: int) -> int:
    """Threads of all processes of a user (proc(5)); those that end meanwhile are passed over."""
    threads = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    threads += os.stat(f"/proc/{name}/task").st_nlink - 2
    return threads
