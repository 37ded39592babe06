"""What stays behind while runs come and go: looked at between them, judged by its trend."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType

import psutil
from _soak_machine import cgroup_folders, mounts_of

from runner.analysis.recent import Recent
from runner.backends.native.zygote import owner_of

QUIET_S = 20.0
"""What is on its way out may take so long; far more than it takes, for busy machines."""
LOOK_S = 0.02
TREND_POINTS = 6
"""Fewer tell no trend."""
ALLOWED_A_RUN = {
    "supervisor_fds": 0.001,
    "launcher_fds": 0.001,
    "supervisor_objects": 0.05,
    "supervisor_malloc_bytes": 256.0,
    "supervisor_blocks": 4.0,
    "launcher_rss_bytes": 256.0,
    "state_entries": 0.001,
}
"""Growth a run that is none: ten thousand runs come to ten descriptors, 2.5 MB, 500 objects."""
FILLS = {"supervisor_malloc_bytes": 16 << 20, "supervisor_blocks": 200_000}
"""Caches with a bound fill for thousands of runs: so much more is none of a leak, whatever its
slope. Blocks are Python's own, of at most 512 bytes, some 80 on average. Objects are counted
without caches.
"""
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType)
"""What an object leads to and is not a part of it."""


@dataclass(frozen=True)
class Look:
    """The machine and this process at a moment when no run is on."""

    runs: int
    left: dict[str, frozenset[str]]
    """What should not be there at such a moment, by kind."""
    counts: dict[str, float]
    """What may be there and must not grow."""


@dataclass
class Watch:
    """Looks at this process, its launchers, and whatever came from either."""

    home: Path
    """The state folder."""
    marker: str
    """A text that stands in the command line of every program of the soak."""
    looks: list[Look] = field(default_factory=list)
    _mounts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._mounts = frozenset(_mounts(os.getpid()))

    def look(self, runs: int) -> Look:
        """Wait until all is quiet, or has not become so in time, and write down what is there."""
        deadline_s = time.monotonic() + QUIET_S
        while (left := self._left()) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        this = Look(runs, left, self._counts())
        self.looks.append(this)
        return this

    def _left(self) -> dict[str, frozenset[str]]:
        _reap_orphans()
        launchers = {process.pid for process in _launchers()}
        strays = [process for process in self._ours() if process.pid not in launchers]
        found = {
            "process": {_described(process) for process in strays},
            "mount": set(mounts_of(self.home.parent))
            | {
                mount
                for process in strays
                if _mount_namespace(process.pid) != _mount_namespace(os.getpid())
                for mount in set(_mounts(process.pid)) - self._mounts
            },
            "namespace": {
                name
                for pid in (*launchers, *(process.pid for process in strays))
                for name in set(_namespaces(pid)) - set(_namespaces(os.getpid()))
            },
            "descriptor of a namespace": {
                f"{target} of process {pid}"
                for pid in (os.getpid(), *launchers)
                for target in _descriptors(pid)
                if _is_namespace(target)
            },
            "control group": set(_groups_of_ours()),
        }
        return {kind: frozenset(names) for kind, names in found.items() if names}

    def _ours(self) -> Iterator[psutil.Process]:
        """Descendants (orphans come to us, prctl(2)), and who carries the marker elsewhere."""
        seen = {os.getpid()}
        for process in psutil.Process().children(recursive=True):
            seen.add(process.pid)
            yield process
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid not in seen and self.marker in " ".join(process.cmdline()):
                    yield process

    def _counts(self) -> dict[str, float]:
        gc.collect()
        launchers = _launchers()
        return {
            "supervisor_fds": len(_descriptors(os.getpid())),
            "launcher_fds": sum(len(_descriptors(p.pid)) for p in launchers),
            "supervisor_objects": len(gc.get_objects()) - _remembered(),
            # What is in use; resident is more, for freed memory stays with its arena where one
            # block of it is still used (sys.getallocatedblocks, mallinfo2(3)).
            "supervisor_malloc_bytes": _malloc_bytes(),
            "supervisor_blocks": sys.getallocatedblocks(),
            "launcher_rss_bytes": sum(p.memory_info().rss for p in launchers),
            "state_entries": len(self.state_entries()),
        }

    def state_entries(self) -> list[str]:
        """Everything in the state folder but what is kept of each run, which has bounds."""
        return sorted(
            str(path.relative_to(self.home))
            for path in self.home.rglob("*")
            if path.relative_to(self.home).parts[0] not in {"runs", "changes"}
        )

    def growing(self, from_runs: int) -> list[str]:
        """What grew with the runs after the warm-up; by its slope, so one late jump is none."""
        looks = [look for look in self.looks if look.runs >= from_runs]
        found = []
        for name, slope_a_run in ALLOWED_A_RUN.items():
            allowed = slope_a_run
            points = [(float(look.runs), look.counts[name]) for look in looks]
            if points:
                allowed += FILLS.get(name, 0) / max(1.0, points[-1][0] - points[0][0])
            if (slope := growth(points, allowed)) is not None:
                found.append(
                    f"{name} grows by {slope:.4g} a run, from {points[0][1]:.0f} to "
                    f"{points[-1][1]:.0f} in {points[-1][0] - points[0][0]:.0f} runs"
                )
        return found

    def stays(self) -> list[str]:
        """What was there at a moment when no run was on."""
        return [
            f"after {look.runs} runs: {kind}: {name}"
            for look in self.looks
            for kind, names in look.left.items()
            for name in sorted(names)
        ]


def growth(points: Sequence[tuple[float, float]], allowed: float) -> float | None:
    """The slope of the line through the points, if it is above what is allowed beyond doubt.

    By Theil and Sen, the median of the slopes of all pairs, which a few outliers can't turn; and
    the lower quartile of these slopes has to be above it too. None: no growth, or too few points.
    """
    slopes = [
        (y2 - y1) / (x2 - x1)
        for index, (x1, y1) in enumerate(points)
        for x2, y2 in points[index + 1 :]
        if x2 > x1
    ]
    if len(points) < TREND_POINTS or len(slopes) < TREND_POINTS:
        return None
    lower = statistics.quantiles(slopes, n=4)[0]
    return statistics.median(slopes) if lower > allowed else None


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` (malloc.h)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _malloc_bytes() -> int:
    """What malloc has given out in all its arenas; resident memory where that can't be asked."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33
    if ask is None:
        return int(psutil.Process().memory_info().rss)
    ask.restype = _Mallinfo
    told = ask()
    return int(told.uordblks + told.hblkhd)


def _remembered() -> int:
    """Objects that only stand in caches, all of which have bounds."""
    seen: set[int] = set()
    waiting: list[object] = [each for each in gc.get_objects() if isinstance(each, Recent)]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, _SHARED) or not gc.is_tracked(each):
            continue
        seen.add(id(each))
        waiting += gc.get_referents(each)
    return len(seen)


def _launchers() -> list[psutil.Process]:
    """Those that this process itself started."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if owner_of(process.cmdline()) is not None:
                found.append(process)
    return found


def _reap_orphans() -> None:
    """What came to us as a child subreaper (prctl(2)) and is dead; nobody else waits for it."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


def _described(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline()) or process.name()
        return f"{process.pid} ({process.status()}, parent {process.ppid()}): {words[:160]}"
    return f"{process.pid} (gone meanwhile)"


def _mounts(pid: int) -> list[str]:
    """`source on point` of each mount in a process's namespace (proc_pid_mountinfo(5))."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            found.append(f"{after.split()[1]} on {before.split()[4]}")
    return found


def _mount_namespace(pid: int) -> str | None:
    """Ours is everybody's: what others mount there is no business of the soak."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")
    return None


def _namespaces(pid: int) -> list[str]:
    """`kind:[inode]` of each (namespaces(7))."""
    found = []
    for link in Path(f"/proc/{pid}/ns").glob("*"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return found


def _descriptors(pid: int) -> list[str]:
    """What each descriptor of a process leads to."""
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # the one that lists them
                found.append(os.readlink(link))
    return found


def _is_namespace(target: str) -> bool:
    kind, _, inode = target.partition(":[")
    return bool(inode) and kind not in ("pipe", "socket", "anon_inode")


def _groups_of_ours() -> list[str]:
    """Control groups of runs of this process, which is in their names."""
    return [group for group in cgroup_folders("") if f"-{os.getpid()}-" in Path(group).name]


def kinds_of_descriptors() -> Counter[str]:
    """Of this process, without numbers that change: to compare before and after."""
    return Counter(target.partition(":[")[0] for target in _descriptors(os.getpid()))
