"""The protections a sandbox can have, and what was found about each on a machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Protection(StrEnum):
    """Closed list; outcomes and events use these words."""

    USER_NAMESPACE = "user_namespace"
    MOUNT_NAMESPACE = "mount_namespace"
    PID_NAMESPACE = "pid_namespace"
    NETWORK_NAMESPACE = "network_namespace"
    IPC_NAMESPACE = "ipc_namespace"
    UTS_NAMESPACE = "uts_namespace"
    CGROUP_NAMESPACE = "cgroup_namespace"
    READONLY_ROOT = "readonly_root"
    PRIVATE_PROC = "private_proc"
    NO_CAPABILITIES = "no_capabilities"
    NO_NEW_PRIVILEGES = "no_new_privileges"
    SECCOMP = "seccomp"
    LANDLOCK = "landlock"
    CGROUP = "cgroup"
    """CPU, memory and process limits that the kernel holds for the run as a whole."""
    RLIMITS = "rlimits"


LANDLOCK_NEWEST = 7
"""The newest Landlock ABI that runner makes use of (landlock(7); Linux 6.15)."""

LANDLOCK_OF_PROCESS_TIER = 6
"""The first ABI that keeps signals inside (Linux 6.12): without it the tier `process` has no wall
between a run and the caller's other processes."""

NAMESPACES = frozenset(
    {
        Protection.USER_NAMESPACE,
        Protection.MOUNT_NAMESPACE,
        Protection.PID_NAMESPACE,
        Protection.NETWORK_NAMESPACE,
        Protection.IPC_NAMESPACE,
        Protection.UTS_NAMESPACE,
    }
)
"""Those that stand before anything runs in a sandbox; it is given the cgroup's later, if at all."""

NOT_IN_PROCESS_TIER = NAMESPACES | {
    Protection.CGROUP_NAMESPACE,
    Protection.READONLY_ROOT,
    Protection.PRIVATE_PROC,
}
"""What `isolation: process` can't give."""

ALWAYS_IN_PROCESS_TIER = frozenset(
    {
        Protection.NO_CAPABILITIES,
        Protection.NO_NEW_PRIVILEGES,
        Protection.SECCOMP,
        Protection.LANDLOCK,
        Protection.RLIMITS,
    }
)
"""The walls that are left in it, so none of them can be optional."""


@dataclass(frozen=True, slots=True)
class ProtectionStatus:
    """What trying one protection told."""

    protection: Protection
    in_force: bool
    detail: str
    """In force: how (`cgroup v2, delegated scope`). Withheld: by what, as one clause."""
    remedy: str = ""
    """How to get it, one sentence; empty when in force."""
