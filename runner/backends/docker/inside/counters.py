"""The kernel's counters over this container's cgroup, version 1 or 2, as init sees them.

Sources: the kernel's Documentation/admin-guide/cgroup-v1/{memory,cpuacct,pids}.rst and
cgroup-v2.rst. What is not there reads as None.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """One reading; cumulative since the container began."""

    cpu_user_s: float | None
    cpu_system_s: float | None
    memory_bytes: int | None
    memory_peak_bytes: int | None
    oom_kills: int | None
    processes: int | None
    forks_refused: int | None


class Cgroup:
    """Where the counters stand."""

    def __init__(self, mounts: str) -> None:
        """`mounts` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
        self._v2: str | None = None
        self._v1: dict[str, str] = {}
        for line in mounts.splitlines():
            left, _, right = line.partition(" - ")
            fields, tail = left.split(), right.split()
            if len(fields) < 5 or len(tail) < 3:
                continue
            if tail[0] == "cgroup2":
                self._v2 = fields[4]
            elif tail[0] == "cgroup":
                for option in tail[2].split(","):
                    self._v1[option] = fields[4]
        if self._v1.get("memory") or self._v1.get("pids"):
            self._v2 = None  # a hybrid: the unified hierarchy has no controllers

    def read(self) -> Counters:
        """All counters now."""
        return self._read_v1() if self._v2 is None else self._read_v2(self._v2)

    @property
    def complete(self) -> bool:
        """Whether memory, processes and CPU time can all be read here."""
        now = self.read()
        return None not in (now.cpu_user_s, now.oom_kills, now.forks_refused, now.memory_bytes)

    def _read_v1(self) -> Counters:
        memory, pids, cpu = (
            self._v1.get(name, "/nowhere") for name in ("memory", "pids", "cpuacct")
        )
        user_ns = _number(f"{cpu}/cpuacct.usage_user")
        system_ns = _number(f"{cpu}/cpuacct.usage_sys")
        return Counters(
            cpu_user_s=None if user_ns is None else user_ns / 1e9,
            cpu_system_s=None if system_ns is None else system_ns / 1e9,
            memory_bytes=_number(f"{memory}/memory.usage_in_bytes"),
            memory_peak_bytes=_number(f"{memory}/memory.max_usage_in_bytes"),
            oom_kills=_field(f"{memory}/memory.oom_control", "oom_kill"),
            processes=_number(f"{pids}/pids.current"),
            forks_refused=_field(f"{pids}/pids.events", "max"),
        )

    def _read_v2(self, at: str) -> Counters:
        user_us = _field(f"{at}/cpu.stat", "user_usec")
        system_us = _field(f"{at}/cpu.stat", "system_usec")
        return Counters(
            cpu_user_s=None if user_us is None else user_us / 1e6,
            cpu_system_s=None if system_us is None else system_us / 1e6,
            memory_bytes=_number(f"{at}/memory.current"),
            memory_peak_bytes=_number(f"{at}/memory.peak"),
            oom_kills=_field(f"{at}/memory.events", "oom_kill"),
            processes=_number(f"{at}/pids.current"),
            forks_refused=_field(f"{at}/pids.events", "max"),
        )


def _text(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 65536).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.strip().isdigit() else None


def _field(path: str, name: str) -> int | None:
    for line in (_text(path) or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None
