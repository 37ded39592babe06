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


@dataclass(frozen=True, slots=True)
class ProtectionStatus:
    """What trying one protection told."""

    protection: Protection
    in_force: bool
    detail: str
    """In force: how (`cgroup v2, delegated scope`). Withheld: by what, as one clause."""
    remedy: str = ""
    """How to get it, one sentence; empty when in force."""
