"""SandboxSpec to the launcher's plan; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from runner.model.guarded import GUARDED_PATHS
from runner.model.limits import Limits, Unlimited
from runner.model.protection import Protection
from runner.model.spec import SandboxSpec

INNER_ID = 1000
"""User and group of the program as it sees itself; never the caller's number, never 0."""

OWN_PROCESSES = 2
"""Builder and init run under the sandbox's user and count in its RLIMIT_NPROC."""

CGROUP_ROOM = 16
"""With a cgroup RLIMIT_NPROC stands a little above its limit, because only the cgroup counts what
it refuses and so can say which limit a run met. Without one, it is the limit."""

CPU_ROOM_S = 2
"""RLIMIT_CPU of one process stands behind the limit over all, should nobody look any more."""

ALWAYS = {
    "RLIMIT_CORE": 0,
    "RLIMIT_RTPRIO": 0,
    "RLIMIT_NICE": 0,
    "RLIMIT_MEMLOCK": 8 << 20,
    "RLIMIT_MSGQUEUE": 819_200,
}
"""What a caller may have more of than a program should get: no core files, no real-time and no
raised priority (some desktops grant them), the kernel's defaults of memory that can't be swapped
and of message queues (getrlimit(2))."""

FULL_TIER = frozenset(Protection) - {Protection.CGROUP}
"""What a sandbox of this backend has when nothing is withheld; the cgroup is counted apart."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the plan has to know of this machine."""

    rootful: bool
    outer_id: int
    """User and group outside that stand for INNER_ID inside."""
    has_cgroup: bool
    workspace_identity: tuple[int, int] | None
    """Device and inode of the workspace folder when it was decided about."""


def plan(spec: SandboxSpec, seccomp: bytes, host: Host) -> tuple[dict[str, Any], list[bytes]]:
    """The launcher's header and its blobs; see `launcher/protocol.py`."""
    blobs = [seccomp]
    files = []
    for file in spec.files:
        files.append({"path": file.path, "blob": len(blobs), "executable": file.executable})
        blobs.append(file.content)
    device, inode = host.workspace_identity or (0, 0)
    header = {
        "argv": list(spec.argv),
        "env": dict(spec.environment),
        "cwd": spec.cwd,
        "terminal": spec.terminal,
        "hold": spec.hold is not None,
        "together": spec.hold is not None,
        "hostname": spec.hostname,
        "rootful": host.rootful,
        "inner_id": INNER_ID,
        "outer_id": host.outer_id,
        "workspace": {
            "mode": spec.workspace.mode.value,
            "source": spec.workspace.source,
            "target": spec.workspace.target,
            "dev": device,
            "ino": inode,
            "guarded": list(GUARDED_PATHS) if spec.workspace.is_bound else [],
        },
        "read": list(spec.read),
        "files": files,
        "seccomp_blob": 0,
        "scratch_bytes": _number(spec.limits.workspace_bytes),
        "scratch_inodes": _number(spec.limits.workspace_inodes),
        "rlimits": rlimits(spec.limits, has_cgroup=host.has_cgroup),
        "processors": _processors(spec.limits, has_cgroup=host.has_cgroup),
        "required": sorted(spec.requires),
        "isolation": spec.isolation.value,
        "landlock_minimum": spec.landlock_minimum,
        "wall_s": _number(spec.limits.wall_s),
    }
    return header, blobs


def rlimits(limits: Limits, *, has_cgroup: bool) -> dict[str, int]:
    """Names of the `resource` module -> bound (getrlimit(2))."""
    bounds = dict(ALWAYS)
    if not isinstance(limits.open_files, Unlimited):
        bounds["RLIMIT_NOFILE"] = limits.open_files
    if not isinstance(limits.processes, Unlimited):
        room = OWN_PROCESSES + (CGROUP_ROOM if has_cgroup else 0)
        bounds["RLIMIT_NPROC"] = limits.processes + room
    if not isinstance(limits.cpu_time_s, Unlimited):
        bounds["RLIMIT_CPU"] = math.ceil(limits.cpu_time_s) + CPU_ROOM_S
    if not has_cgroup and not isinstance(limits.memory_bytes, Unlimited):
        # Not RLIMIT_AS, which breaks programs that only reserve address space (V8, Go, the JVM).
        bounds["RLIMIT_DATA"] = limits.memory_bytes
    return bounds


def _processors(limits: Limits, *, has_cgroup: bool) -> int | None:
    if has_cgroup or isinstance(limits.cpus, Unlimited):
        return None
    return max(1, math.ceil(limits.cpus))


def _number(bound: float | Unlimited) -> float | None:
    return None if isinstance(bound, Unlimited) else bound
