"""What a killed run may have left on this machine: processes, control groups, mounts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LOOK_S = 0.003


class Descendants:
    """Every process that came from this one, orphans too.

    As a child subreaper (prctl(2)) this process inherits what loses its parent, so that nothing a
    round started can slip away, whatever it calls itself.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self.ended: dict[int, int] = {}
        """Wait status of every child that was reaped, by process id."""

    def reap(self) -> None:
        """Take in whoever died; runner waits for its launcher's children to be gone from /proc."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self.ended[pid] = status

    def alive(self) -> list[psutil.Process]:
        """Whoever lives now."""
        self.reap()
        return psutil.Process().children(recursive=True)

    def wait(self, until: Callable[[], bool], timeout_s: float) -> float | None:
        """Seconds until `until` held, reaping meanwhile; None: it did not in time."""
        began_s = time.monotonic()
        while True:
            self.reap()
            if until():
                return time.monotonic() - began_s
            if time.monotonic() - began_s > timeout_s:
                return None
            time.sleep(LOOK_S)

    def kill_all(self) -> None:
        """After a violation: the next round starts clean."""
        for process in self.alive():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.wait(lambda: not self.alive(), timeout_s=10)


def described(process: psutil.Process) -> str:
    """For a message: who it is."""
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline()) or process.name()
        return f"{process.pid} ({process.status()}, parent {process.ppid()}): {words[:160]}"
    return f"{process.pid} (gone meanwhile)"


def carrying(marker: str) -> list[str]:
    """Processes anywhere with the marker among their arguments or in their environment."""
    wanted = marker.encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if wanted in (folder / name).read_bytes():
                    found.append(f"{folder.name} has it in its {name}")
                    break
    return found


def cgroup_folders(run_id: str) -> list[str]:
    """Control groups named after a run, in any hierarchy."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    roots = {f[4] for f in mounts if f[f.index("-") + 1] in ("cgroup", "cgroup2")}
    return sorted(
        os.path.join(folder, name)
        for root in roots
        for folder, names, _ in os.walk(root)
        for name in names
        if name.endswith(run_id)
    )


def mounts_of(folder: Path) -> set[str]:
    """Mount points that lie in `folder` or were made by a launcher (proc_pid_mountinfo(5))."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point, source = before.split()[4], after.split()[1]
        if point.startswith(str(folder)) or source in ("scratch", "workspace"):
            found.add(f"{source} on {point}")
    return found
