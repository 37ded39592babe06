"""Usage from looking at a tree of processes now and then, where no cgroup counts for us.

What a look finds of each process is what the kernel has counted for it (proc_pid_stat(5)): its own
CPU time, and that of the children it has waited for. A process that ends hands its time to the
parent that waits for it; when nobody in the tree does, the time would be lost, so what was last
seen of it is kept. The CPU time that comes out never falls and never counts a second twice; it can
be too low by what a process used after the last look, when nobody in the tree waited for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runner.model.usage import Usage


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process at one look."""

    pid: int
    create_time: float
    """With `pid` it names the process: a pid is used again, the pair is not."""
    cpu_user_s: float
    """Its own, without its children's."""
    cpu_system_s: float
    rss_bytes: int
    """Its resident memory, with or without a full share of what others map too."""
    threads: int = 1
    children_user_s: float = 0.0
    """Of the children it has waited for, and theirs (`cutime`; psutil's `children_user`)."""
    children_system_s: float = 0.0


_Key = tuple[int, float]


class SampledUsage:
    """Running totals over one tree of processes; feed it every look in order."""

    def __init__(self) -> None:
        self._user = _CpuTime()
        self._system = _CpuTime()
        self._memory_peak_bytes: int | None = None
        self._processes: int | None = None

    def feed(self, samples: Iterable[ProcessSample]) -> None:
        """Take what one look at the whole tree found; a process twice counts once."""
        found = {(s.pid, s.create_time): s for s in samples}
        self._user.feed({k: (s.cpu_user_s, s.children_user_s) for k, s in found.items()})
        self._system.feed({k: (s.cpu_system_s, s.children_system_s) for k, s in found.items()})
        memory_bytes = sum(s.rss_bytes for s in found.values())
        threads = sum(max(s.threads, 1) for s in found.values())
        self._memory_peak_bytes = max(self._memory_peak_bytes or 0, memory_bytes)
        self._processes = max(self._processes or 0, threads)

    @property
    def usage(self) -> Usage:
        """What was found so far; all None before the first look."""
        if self._processes is None:
            return Usage()
        return Usage(
            cpu_user_s=self._user.total_s,
            cpu_system_s=self._system.total_s,
            memory_peak_bytes=self._memory_peak_bytes,
            processes=self._processes,
        )


class _CpuTime:
    """One kind of CPU time over the tree."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._live: dict[_Key, tuple[float, float]] = {}
        self._gone: dict[_Key, tuple[tuple[float, float], float]] = {}
        """Those that the look before missed: what was seen of each, and what was kept of it."""
        self._lost_s = 0.0
        """Time of processes that ended without handing it on."""

    def feed(self, found: dict[_Key, tuple[float, float]]) -> None:
        live: dict[_Key, tuple[float, float]] = {}
        handed_on_s = 0.0
        for key, (own_s, children_s) in found.items():
            if key in self._gone:  # not ended, only missed: take back what was kept of it
                self._live[key], kept_s = self._gone.pop(key)
                self._lost_s -= kept_s
            before_own_s, before_children_s = self._live.get(key, (0.0, 0.0))
            live[key] = max(own_s, before_own_s), max(children_s, before_children_s)
            handed_on_s += live[key][1] - before_children_s
        gone = {key: spent for key, spent in self._live.items() if key not in live}
        ended_s = sum(sum(spent) for spent in gone.values())
        # What the living were handed covers the ended ones first; the rest nobody waited for.
        kept_s = max(ended_s - handed_on_s, 0.0)
        self._lost_s += kept_s
        share = kept_s / ended_s if ended_s > 0 else 0.0
        self._gone = {key: (spent, sum(spent) * share) for key, spent in gone.items()}
        self._live = live
        now_s = self._lost_s + sum(own + kids for own, kids in live.values())
        self.total_s = max(self.total_s, now_s)
