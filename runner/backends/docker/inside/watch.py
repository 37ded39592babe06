"""Watches one run's limits from pid 1 and says what it used."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from runner.backends.docker.inside.counters import Cgroup, Counters


class Watch:
    """Looks at counters, file systems and the clock; decides which limit was crossed.

    Init's own share is taken off: its CPU time, its process, and the memory that was in use when
    the program began (itself and the workspace's copy).
    """

    def __init__(self, cgroup: Cgroup, limits: dict[str, Any], writable: list[str]) -> None:
        """`limits`: `wall_s`, `cpu_time_s`, `processes`, `workspace_bytes`, `…_inodes` or None."""
        self._cgroup = cgroup
        self._limits = limits
        self._folders = [path.encode("utf-8", "surrogateescape") for path in writable]
        self._begin = cgroup.read()
        self._begin_self = resource.getrusage(resource.RUSAGE_SELF)
        self._begin_children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._begin_used = self._used()
        self._last = self._begin
        self._processes_peak = 1
        self._memory_peak_bytes = 0
        self._start_s = time.monotonic()
        self._end_s: float | None = None
        wall_s = limits["wall_s"]
        self.deadline_s = float("inf") if wall_s is None else self._start_s + wall_s

    def stopped(self) -> None:
        """The program has ended: the clock stops here."""
        if self._end_s is None:
            self._end_s = time.monotonic()

    def tick(self) -> str | None:
        """The name of a limit for which the run has to end now, else None."""
        self._look()
        if time.monotonic() >= self.deadline_s:
            return "wall"
        if self._grew("oom_kills"):
            return "memory"
        if self._grew("forks_refused"):
            return "processes"
        if self._cpu_crossed():
            return "cpu_time"
        return "workspace" if self._full() else None

    def end(self, *, failed: bool, killed_for: str | None) -> str | None:
        """After the last process: the limit that ended the run, or `told`, or None."""
        self._look()
        if killed_for is not None:
            return killed_for
        if self._grew("oom_kills"):
            return "memory"
        if failed and self._grew("forks_refused"):
            return "processes"
        if self._cpu_crossed():
            return "cpu_time"
        return "workspace" if self._full() else None

    def usage(self) -> dict[str, Any]:
        """Wall and CPU seconds, peak memory and processes; None for what could not be read."""
        user_s, system_s = self._cpu()
        # By what was waited for, too: cgroup v1 counts in ticks and misses what is shorter.
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        user_s = max(user_s or 0.0, reaped.ru_utime - self._begin_children.ru_utime)
        system_s = max(system_s or 0.0, reaped.ru_stime - self._begin_children.ru_stime)
        return {
            "wall_s": (self._end_s or time.monotonic()) - self._start_s,
            "cpu_user_s": user_s,
            "cpu_system_s": system_s,
            "memory_peak_bytes": self._memory_peak_bytes or None,
            "processes": None if self._last.processes is None else self._processes_peak,
        }

    def _look(self) -> None:
        now = self._last = self._cgroup.read()
        if now.processes is not None:
            self._processes_peak = max(self._processes_peak, now.processes - 1)
        base_bytes = self._begin.memory_bytes or 0
        before = self._begin.memory_peak_bytes
        for bytes_now in (
            now.memory_bytes,
            # A peak no higher than before the program began is not the program's.
            now.memory_peak_bytes if before is not None and _above(now, before) else None,
        ):
            if bytes_now is not None:
                self._memory_peak_bytes = max(self._memory_peak_bytes, bytes_now - base_bytes)

    def _cpu(self) -> tuple[float | None, float | None]:
        mine = resource.getrusage(resource.RUSAGE_SELF)
        return (
            _difference(
                self._begin.cpu_user_s,
                self._last.cpu_user_s,
                mine.ru_utime - self._begin_self.ru_utime,
            ),
            _difference(
                self._begin.cpu_system_s,
                self._last.cpu_system_s,
                mine.ru_stime - self._begin_self.ru_stime,
            ),
        )

    def _cpu_crossed(self) -> bool:
        bound_s = self._limits["cpu_time_s"]
        user_s, system_s = self._cpu()
        return bound_s is not None and (user_s or 0.0) + (system_s or 0.0) >= bound_s

    def _grew(self, field: str) -> bool:
        before, now = getattr(self._begin, field), getattr(self._last, field)
        return before is not None and now is not None and now > before

    def _used(self) -> tuple[int, int]:
        used_bytes = used_inodes = 0
        for folder in self._folders:
            room = os.statvfs(folder)
            used_bytes += (room.f_blocks - room.f_bfree) * room.f_frsize
            used_inodes += room.f_files - room.f_ffree
        return used_bytes, used_inodes

    def _full(self) -> bool:
        """Whether the program used up what it may write, in one file system or in all together."""
        used = self._used()
        names = ("workspace_bytes", "workspace_inodes")
        for name, now, before in zip(names, used, self._begin_used, strict=True):
            bound = self._limits[name]
            if bound is not None and now - before >= bound:
                return True
        for folder in self._folders:
            room = os.statvfs(folder)
            if (room.f_blocks and not room.f_bfree) or (room.f_files and not room.f_ffree):
                return True
        return False


def _above(now: Counters, before: int) -> bool:
    return now.memory_peak_bytes is not None and now.memory_peak_bytes > before


def _difference(before: float | None, after: float | None, own: float) -> float | None:
    if before is None or after is None:
        return None
    return max(0.0, after - before - own)
