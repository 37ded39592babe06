"""What init found around itself, as protections. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.model.protection import Protection, ProtectionStatus

_WHOLE_MAP = ["0", "0", "4294967295"]
"""/proc/self/uid_map of the first user namespace (user_namespaces(7))."""


@dataclass(frozen=True, slots=True)
class Found:
    """Init's findings (the `READY` frame)."""

    seccomp: bool
    no_new_privileges: bool
    user_namespace: bool
    landlock_abi: int
    pid_one: bool
    uid_map: tuple[str, ...]
    root_read_only: bool
    own_cgroup_root: bool
    counters: bool
    interfaces: tuple[str, ...]

    @staticmethod
    def of(told: dict[str, Any]) -> Found:
        """From the frame's JSON."""
        return Found(
            seccomp=told["seccomp"],
            no_new_privileges=told["no_new_privileges"],
            user_namespace=told["user_namespace"],
            landlock_abi=told["landlock_abi"],
            pid_one=told["pid_one"],
            uid_map=tuple(told["uid_map"]),
            root_read_only=told["root_read_only"],
            own_cgroup_root=told["own_cgroup_root"],
            counters=told["counters"],
            interfaces=tuple(told["interfaces"]),
        )


def statuses(found: Found, info: dict[str, Any]) -> tuple[ProtectionStatus, ...]:
    """Each protection: what was found in a container of this engine, and what the engine says."""
    p = Protection
    limits = [
        word
        for key, word in (
            ("MemoryLimit", "memory"),
            ("PidsLimit", "processes"),
            ("CpuCfsQuota", "cpu"),
        )
        if not info.get(key)
    ]
    version, driver = info.get("CgroupVersion", "?"), info.get("CgroupDriver", "?")
    alone = found.interfaces in ((), ("lo",))
    mapped = list(found.uid_map) != _WHOLE_MAP
    rows = (
        _status(
            p.USER_NAMESPACE,
            found.user_namespace or mapped,
            "the program's own, inside of the container"
            if found.user_namespace
            else "the engine maps the container's users",
            "the engine does not map users, and no user namespace can be made in a container",
            "Set the sysctl user.max_user_namespaces to a number above 0, or start the engine "
            "with `--userns-remap default`.",
        ),
        _status(p.MOUNT_NAMESPACE, True, "the container's own", "", ""),
        _status(
            p.PID_NAMESPACE,
            found.pid_one,
            "the container's own",
            "init is not pid 1",
            "Use a runtime that gives containers a pid namespace.",
        ),
        _status(
            p.NETWORK_NAMESPACE,
            alone,
            "the container's own, with loopback only",
            f"there are interfaces in it: {', '.join(found.interfaces)}",
            "Use a runtime that honours `--network none`.",
        ),
        _status(p.IPC_NAMESPACE, True, "the container's own", "", ""),
        _status(p.UTS_NAMESPACE, True, "the container's own", "", ""),
        _status(
            p.CGROUP_NAMESPACE,
            found.own_cgroup_root,
            "the container's own",
            "the container sees the host's cgroup paths",
            "Use an engine of version 20.10 or later on a kernel with cgroup namespaces.",
        ),
        _status(
            p.READONLY_ROOT,
            found.root_read_only,
            "the image, mounted read-only",
            "the root can be written",
            "Use a runtime that honours `--read-only`.",
        ),
        _status(
            p.PRIVATE_PROC,
            found.pid_one,
            "of the container's pid namespace, with masked paths",
            "/proc is not the container's",
            "Use a runtime that gives containers a /proc of their own.",
        ),
        _status(p.NO_CAPABILITIES, True, "dropped before the program starts", "", ""),
        _status(
            p.NO_NEW_PRIVILEGES,
            found.no_new_privileges,
            "set by the engine",
            "the engine did not set it",
            "Use an engine that honours `no-new-privileges`.",
        ),
        _status(
            p.SECCOMP,
            found.seccomp,
            "runner's deny-list, by the engine and again by the program's process",
            "the engine or the kernel has no seccomp filters",
            "Use a kernel with CONFIG_SECCOMP_FILTER and an engine built with seccomp.",
        ),
        _status(
            p.LANDLOCK,
            found.landlock_abi > 0,
            f"ABI {found.landlock_abi}, set by the program's process before it starts",
            "the kernel of the engine has it not, or not turned on",
            "Start the engine's machine with `lsm=landlock,…` on the kernel command line.",
        ),
        _status(
            p.CGROUP,
            not limits and found.counters,
            f"cgroup v{version}, by the engine ({driver})",
            f"the engine can't limit {', '.join(limits)}"
            if limits
            else "the cgroup's counters can't be read in a container",
            "Enable the cpu, memory and pids controllers for the engine.",
        ),
        _status(p.RLIMITS, True, "set before the program starts", "", ""),
    )
    return rows


def _status(
    protection: Protection, in_force: bool, how: str, why_not: str, remedy: str
) -> ProtectionStatus:
    if in_force:
        return ProtectionStatus(protection, True, how)
    return ProtectionStatus(protection, False, why_not, remedy)
