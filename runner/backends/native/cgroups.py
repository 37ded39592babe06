"""Control groups, v1 and v2: limits over a run as a whole, held and counted by the kernel.

Sources: cgroups(7), the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst.
Each run gets a group named after the process that owns it, so that a later sweep knows whose
groups are orphans without asking anybody.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.errors import BackendError
from runner.model.limits import Limits, Unlimited
from runner.model.swept import Swept

MOUNTS = Path("/proc/self/mountinfo")
CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_US = 100_000
"""The kernel's default scheduling period for cpu.max and cpu.cfs_quota_us."""
REMOVE_WITHIN_S = 2.0
"""A group is busy until the kernel has let go of its last process: tried again for so long."""
MEMBERS_NAMED = 10
"""Processes that a message names; a fork bomb has thousands."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.0005, 0.01
"""Between tries: short at first, because mostly the first one comes a moment too early."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the kernel counted for a run so far; None where this kernel does not count it."""

    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    processes: int | None = None
    """Processes and threads now."""
    processes_peak: int | None = None
    out_of_memory_kills: int = 0
    forks_refused: int = 0


class Cgroup(Protocol):
    """One run's group, whatever the version."""

    def add(self, pid: int) -> None:
        """Move a process in."""

    def read(self) -> Reading:
        """What was counted."""

    def members(self) -> list[int]:
        """Processes that are in it now."""

    def kill(self) -> None:
        """SIGKILL to every process in it, until there is none."""

    def remove(self) -> None:
        """Kill what is left and remove it; BackendError when the kernel keeps it busy."""


class Hierarchy(Protocol):
    """A place where groups can be made."""

    @property
    def detail(self) -> str:
        """What it is, for people."""

    def create(self, run_id: str, limits: Limits, *, as_one: bool = True) -> Cgroup:
        """Make a group and set its limits; OSError when the kernel refuses.

        `as_one`: when memory runs out, all of it is ended together where the kernel can do that.
        """

    def sweep(self, within_s: float = REMOVE_WITHIN_S) -> Swept:
        """Remove groups whose owner is dead; none takes longer than `within_s`."""


def owner_name(run_id: str) -> str:
    """A group's name: owner's pid namespace, pid and start, then the run.

    The start is in clock ticks since boot: unlike a time of day it stays what it was when the
    clock is set.
    """
    pid = os.getpid()
    return f"run-{_pid_namespace()}-{pid}-{_start_ticks(pid)}-{run_id}"


def owner_is_dead(name: str) -> bool:
    """Whether nobody holds the group of this name; False where that can't be known from here."""
    parts = name.split("-", 4)
    if len(parts) != 5 or parts[1] != str(_pid_namespace()):
        return False  # another container's, which may share the hierarchy but not the numbers
    try:
        return _start_ticks(int(parts[2])) != int(parts[3])
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (OSError, ValueError):
        return False


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_ticks(pid: int) -> int | None:
    """When a process started (proc_pid_stat(5), field 22); None: it only waits to be reaped.

    FileNotFoundError or ProcessLookupError: there is no such process.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _write(path: Path, value: object) -> None:
    with path.open("w") as file:
        file.write(str(value))


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _read_counter(path: Path, name: str) -> int:
    """A number from a file of `name number` lines; 0 when it is not there."""
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _pids(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _kill_all(group: Path) -> None:
    """SIGKILL to every process that is in it now; who it can't be sent to, removing tells of."""
    for pid in _pids(group):
        if pid > 0:  # 0: a process of another pid namespace
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)


def _kill_until_empty(group: Path) -> None:
    deadline_s, pause_s = time.monotonic() + REMOVE_WITHIN_S, FIRST_PAUSE_S
    while _pids(group) and time.monotonic() < deadline_s:
        _kill_all(group)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LAST_PAUSE_S)


def _remove(group: Path, within_s: float = REMOVE_WITHIN_S) -> None:
    """Kill what is in it and remove it. BackendError: it is still there."""
    deadline_s, pause_s = time.monotonic() + within_s, FIRST_PAUSE_S
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            why = error.strerror
        else:
            return
        _kill_all(group)
        if time.monotonic() > deadline_s:
            break
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LAST_PAUSE_S)
    members = _pids(group)
    named = ", ".join(map(str, members[:MEMBERS_NAMED]))
    raise BackendError(
        f"the control group {group} could not be removed: {why}; "
        + (
            f"end the processes in it ({named}) and run `runner clean`"
            if members
            else "remove the groups below it and run `runner clean`"
        )
    )


def _sweep(parent: Path, within_s: float) -> Swept:
    removed, left = [], []
    for group in sorted(parent.glob("run-*")):
        if group.is_dir() and owner_is_dead(group.name):
            try:
                _remove(group, within_s)
            except BackendError as error:
                left.append(str(error))
            else:
                removed.append(f"control group {group}")
    return Swept(tuple(removed), tuple(left))


class UnifiedHierarchy:
    """cgroup v2, below a folder that is ours."""

    def __init__(self, parent: Path, detail: str) -> None:
        """`parent` exists, may be written, and hands the controllers down."""
        self._parent = parent
        self._detail = detail

    @property
    def detail(self) -> str:
        """What it is, for people."""
        return self._detail

    def create(self, run_id: str, limits: Limits, *, as_one: bool = True) -> Cgroup:
        """Make a group and set its limits."""
        group = self._parent / owner_name(run_id)
        group.mkdir()
        try:
            if not isinstance(limits.memory_bytes, Unlimited):
                _write(group / "memory.max", limits.memory_bytes)
                with contextlib.suppress(OSError):  # no swap accounting: then nothing to close
                    _write(group / "memory.swap.max", 0)
                _write(group / "memory.oom.group", int(as_one))
            if not isinstance(limits.processes, Unlimited):
                # One more: the sandbox's init is in the group too.
                _write(group / "pids.max", limits.processes + 1)
            if not isinstance(limits.cpus, Unlimited) and (group / "cpu.max").exists():
                _write(group / "cpu.max", f"{int(limits.cpus * PERIOD_US)} {PERIOD_US}")
        except OSError:
            _remove(group)
            raise
        return _UnifiedGroup(group)

    def sweep(self, within_s: float = REMOVE_WITHIN_S) -> Swept:
        """Remove groups whose owner is dead."""
        return _sweep(self._parent, within_s)


class _UnifiedGroup:
    def __init__(self, group: Path) -> None:
        self._group = group

    def add(self, pid: int) -> None:
        _write(self._group / "cgroup.procs", pid)

    def read(self) -> Reading:
        group = self._group
        return Reading(
            cpu_s=_read_counter(group / "cpu.stat", "usage_usec") / 1e6,
            memory_peak_bytes=_read_int(group / "memory.peak"),
            processes=_read_int(group / "pids.current"),
            processes_peak=_read_int(group / "pids.peak"),
            out_of_memory_kills=_read_counter(group / "memory.events", "oom_kill"),
            forks_refused=_read_counter(group / "pids.events", "max"),
        )

    def members(self) -> list[int]:
        return _pids(self._group)

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # Linux before 5.14: one by one then
            _write(self._group / "cgroup.kill", 1)
        _kill_until_empty(self._group)

    def remove(self) -> None:
        _remove(self._group)


class LegacyHierarchy:
    """cgroup v1: one folder in each controller's tree, below the group that we are in."""

    def __init__(self, parents: dict[str, Path]) -> None:
        """`parents`: controller -> folder that exists and may be written."""
        self._parents = parents

    @property
    def detail(self) -> str:
        """What it is, for people."""
        return f"cgroup v1 ({', '.join(sorted(self._parents))})"

    def create(self, run_id: str, limits: Limits, *, as_one: bool = True) -> Cgroup:
        """Make the folders and set the limits; this version ends one process at a time."""
        del as_one
        name = owner_name(run_id)
        groups = {controller: parent / name for controller, parent in self._parents.items()}
        group = _LegacyGroup(groups)
        try:
            for folder in groups.values():
                folder.mkdir(exist_ok=True)  # controllers mounted together share one
            if not isinstance(limits.memory_bytes, Unlimited):
                memory = groups["memory"]
                _write(memory / "memory.limit_in_bytes", limits.memory_bytes)
                if (memory / "memory.memsw.limit_in_bytes").exists():
                    _write(memory / "memory.memsw.limit_in_bytes", limits.memory_bytes)
                else:
                    _write(memory / "memory.swappiness", 0)
            if not isinstance(limits.processes, Unlimited):
                _write(groups["pids"] / "pids.max", limits.processes + 1)
            if not isinstance(limits.cpus, Unlimited):
                _write(groups["cpu"] / "cpu.cfs_period_us", PERIOD_US)
                _write(groups["cpu"] / "cpu.cfs_quota_us", int(limits.cpus * PERIOD_US))
        except OSError:
            group.remove()
            raise
        return group

    def sweep(self, within_s: float = REMOVE_WITHIN_S) -> Swept:
        """Remove groups whose owner is dead."""
        found = (_sweep(parent, within_s) for parent in sorted(set(self._parents.values())))
        return sum(found, Swept())


class _LegacyGroup:
    def __init__(self, groups: dict[str, Path]) -> None:
        self._groups = groups

    def add(self, pid: int) -> None:
        for folder in self._groups.values():
            _write(folder / "cgroup.procs", pid)

    def read(self) -> Reading:
        usage_ns = _read_int(self._groups["cpuacct"] / "cpuacct.usage")
        memory = self._groups["memory"]
        return Reading(
            cpu_s=None if usage_ns is None else usage_ns / 1e9,
            memory_peak_bytes=_read_int(memory / "memory.max_usage_in_bytes"),
            processes=_read_int(self._groups["pids"] / "pids.current"),
            processes_peak=_read_int(self._groups["pids"] / "pids.peak"),
            out_of_memory_kills=_read_counter(memory / "memory.oom_control", "oom_kill"),
            forks_refused=_read_counter(self._groups["pids"] / "pids.events", "max"),
        )

    def members(self) -> list[int]:
        return _pids(self._groups["pids"])

    def kill(self) -> None:
        for folder in self._groups.values():
            _kill_until_empty(folder)

    def remove(self) -> None:
        failures = []
        for folder in sorted(set(self._groups.values())):
            try:
                _remove(folder)
            except BackendError as error:  # the others are removed all the same
                failures.append(str(error))
        if failures:
            raise BackendError("; ".join(failures))


class NoHierarchyError(Exception):
    """No control groups for us here; the message says why, in one clause."""


def find_unified_as_root() -> Hierarchy:
    """cgroup v2 as root: a folder of our own below the root group."""
    mount = _mount_of("cgroup2", None)
    if mount is None:
        raise NoHierarchyError("no cgroup v2 is mounted")
    available = (mount / "cgroup.controllers").read_text().split()
    if missing := {"memory", "pids"}.difference(available):
        raise NoHierarchyError(f"cgroup v2 at {mount} lacks {', '.join(sorted(missing))}")
    parent = mount / "runner"
    try:
        _hand_down(mount)
        parent.mkdir(exist_ok=True)
        _hand_down(parent)
    except OSError as error:
        raise NoHierarchyError(f"cgroup v2 at {mount} can't be used: {error}") from error
    return UnifiedHierarchy(parent, "cgroup v2")


def find_unified_delegated(pid: int) -> Hierarchy:
    """cgroup v2 for an ordinary user: below the delegated group that process `pid` is in.

    The process is moved to a group of its own there, because a group with processes can't hand
    controllers down.
    """
    mount = _mount_of("cgroup2", None)
    if mount is None:
        raise NoHierarchyError("no cgroup v2 is mounted")
    base = mount / _group_of(pid, "").lstrip("/")
    try:
        if not os.access(base / "cgroup.subtree_control", os.W_OK):
            raise NoHierarchyError(f"the group {base} is not delegated to this user")
        available = (base / "cgroup.controllers").read_text().split()
        if missing := {"memory", "pids"}.difference(available):
            raise NoHierarchyError(f"the group {base} lacks {', '.join(sorted(missing))}")
        launcher = base / "launcher"
        launcher.mkdir(exist_ok=True)
        for member in _pids(base):
            _write(launcher / "cgroup.procs", member)
        _hand_down(base)
    except OSError as error:
        raise NoHierarchyError(f"the group {base} can't be used: {error}") from error
    return UnifiedHierarchy(base, "cgroup v2, delegated scope")


def find_legacy() -> Hierarchy:
    """cgroup v1, where the current group may be written: root, or a group handed to the user."""
    parents = {}
    for controller in (*CONTROLLERS, "cpuacct"):
        mount = _mount_of("cgroup", controller)
        if mount is None:
            raise NoHierarchyError(f"no cgroup v1 controller '{controller}' is mounted")
        own = mount / _group_of(os.getpid(), controller).lstrip("/")
        parent = (own if own.is_dir() else mount) / "runner"
        try:
            parent.mkdir(exist_ok=True)
        except OSError as error:
            raise NoHierarchyError(f"cgroup v1 '{controller}' can't be written: {error}") from error
        if not os.access(parent, os.W_OK):
            raise NoHierarchyError(f"cgroup v1 '{controller}' belongs to somebody else")
        parents[controller] = parent
    return LegacyHierarchy(parents)


def group_of_run(run_id: str, members: Iterable[int]) -> Cgroup | None:
    """The run's own group, which one of these processes is in; None: none of them is.

    Whoever made it: where another supervisor's groups are is not known otherwise.
    """
    for pid in members:
        with contextlib.suppress(OSError):
            found = _group_by_member(run_id, pid)
            if found is not None:
                return found
    return None


def _group_by_member(run_id: str, pid: int) -> Cgroup | None:
    def below(mount: Path, controller: str) -> Path | None:
        group = mount / _group_of(pid, controller).lstrip("/")
        return group if group.name.endswith(f"-{run_id}") and group.is_dir() else None

    mount = _mount_of("cgroup2", None)
    if mount is not None and (group := below(mount, "")) is not None:
        return _UnifiedGroup(group)
    groups = {}
    for controller in (*CONTROLLERS, "cpuacct"):
        mount = _mount_of("cgroup", controller)
        group = None if mount is None else below(mount, controller)
        if group is None:
            return None
        groups[controller] = group
    return _LegacyGroup(groups)


def unified_has_controllers() -> bool:
    """Whether this machine's controllers are on v2 (else v1, or none)."""
    mount = _mount_of("cgroup2", None)
    if mount is None:
        return False
    with contextlib.suppress(OSError):
        return "memory" in (mount / "cgroup.controllers").read_text().split()
    return False


def _hand_down(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    wanted = [name for name in CONTROLLERS if name in available]
    handed = (group / "cgroup.subtree_control").read_text().split()
    if missing := [name for name in wanted if name not in handed]:
        _write(group / "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))


def _mount_of(kind: str, controller: str | None) -> Path | None:
    """Where a cgroup file system is mounted (proc_pid_mountinfo(5))."""
    for line in MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        fs_type, _, super_options = (*after.split(" "), "", "")[:3]
        if fs_type == kind and (controller is None or controller in super_options.split(",")):
            return Path(before.split(" ")[4])
    return None


def _group_of(pid: int, controller: str) -> str:
    """The group of a process in one hierarchy, '' for v2 (proc_pid_cgroup, cgroups(7))."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") if controller else not controllers:
            return path
    return "/"
