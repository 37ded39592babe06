"""A profile: what a run may do, use and see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.model.budget import Budget
from runner.model.grant import Grant
from runner.model.limits import LimitOverrides, Limits
from runner.model.loop_guard import LoopGuard
from runner.model.protection import Protection
from runner.model.rule import PolicyLayer


class WorkspaceMode(StrEnum):
    """What the run sees of its folder; from the narrowest to the widest, `copy` beside `cow`."""

    NONE = "none"
    """Nothing: it starts in an empty home."""
    TMPFS = "tmpfs"
    """Nothing, at the folder's own path: what it makes there is listed."""
    COPY = "copy"
    """All of it, copied before the run; what it changes stays in the sandbox and is listed."""
    COPY_ON_WRITE = "cow"
    """The same, laid under a layer where the kernel does that right, and copied else."""
    BIND = "bind"
    """The folder itself: what the run changes is changed at once, and is not listed."""


class NetworkMode(StrEnum):
    """What the run can reach."""

    NONE = "none"
    """Its own loopback, nothing else."""


class Isolation(StrEnum):
    """How far a run is kept from the rest of the machine."""

    FULL = "full"
    """In namespaces of its own: nothing of the host is there but what the profile shows."""
    PROCESS = "process"
    """Among the host's processes and files, held by Landlock, seccomp and limits; no namespaces."""


class CgroupMode(StrEnum):
    """How limits over the whole run are held."""

    REQUIRED = "required"
    """By the kernel, in a cgroup, or the run does not start."""
    SAMPLED = "sampled"
    """In a cgroup where there is one; else watched from outside, and the outcome says degraded."""


class ProfileOrigin(StrEnum):
    """Where a profile was found; only the first two can be named by an organisation's policy."""

    SHIPPED = "shipped"
    SYSTEM = "system"
    """A folder of the organisation, `/etc/runner/profiles`."""
    USER = "user"
    FILE = "file"
    """Given by its path."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Which variables a run gets."""

    set: tuple[tuple[str, str], ...] = ()
    inherit: tuple[str, ...] = ()
    """Names copied from runner's own environment when they are there."""
    deny: tuple[str, ...] = ()
    """Globs over names that a request may not set (`LD_*`)."""


@dataclass(frozen=True, slots=True)
class Syscalls:
    """Changes to the default seccomp deny-list, by system call name."""

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    set_id_bits: bool = True
    """Whether files may be given set-user-ID and set-group-ID bits (inode(7)). Where they stay in
    the sandbox the bits mean nothing; in a folder that is bound they would be the owner's."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile after `extends` was resolved."""

    name: str
    source: str
    """Path of the file it was read from, absolute and without symbolic links: however it was
    spelled, it is one profile."""
    description: str
    threat_model: str
    workspace: WorkspaceMode
    network: NetworkMode
    cgroup: CgroupMode
    limits: Limits
    requires: frozenset[Protection]
    """Protections without which a run under this profile does not start."""
    policy: PolicyLayer
    environment: Environment = Environment()
    syscalls: Syscalls = Syscalls()
    read: tuple[str, ...] = ()
    """Absolute host paths shown read-only beside the root."""
    image: str | None = None
    """Image for backends that need one; None: the backend's default."""
    origin: ProfileOrigin = ProfileOrigin.FILE
    apply_allow: tuple[str, ...] = ()
    """Globs over paths of the workspace that are protected (`changes.protected`) and may be applied
    all the same."""
    apply_deny: tuple[str, ...] = ()
    """Globs over paths of the workspace that are never applied; the layers' above it."""
    isolation: Isolation = Isolation.FULL
    landlock_minimum: int = 0
    """The least Landlock ABI to run with (landlock(7)); 0: the newest that the kernel has."""
    budgets: tuple[Budget, ...] = ()
    """Its own; those of the layers above hold as well."""
    loop_guard: LoopGuard | None = None
    """Its own; of the layers above too, the strictest of each value holds."""

    @property
    def is_kept(self) -> bool:
        """Whether its name is nobody's to take: it was shipped, or is the organisation's."""
        return self.origin in {ProfileOrigin.SHIPPED, ProfileOrigin.SYSTEM}

    @property
    def identity(self) -> str:
        """What it is counted under: its name where nobody else can take that, else its path."""
        return self.name if self.is_kept else self.source


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What a layer above the profile says; a profile can only be tightened by it."""

    policy: PolicyLayer
    limits: LimitOverrides = LimitOverrides()
    requires: frozenset[Protection] = frozenset()
    cgroup: CgroupMode | None = None
    """`REQUIRED` here makes every profile's `REQUIRED`; None says nothing."""
    environment_deny: tuple[str, ...] = ()
    syscalls_deny: tuple[str, ...] = ()
    read_deny: tuple[str, ...] = ()
    """Globs over host paths that no profile may show."""
    profiles: tuple[str, ...] | None = None
    """Globs over profile names or files that may be used; None says nothing."""
    workspace_modes: tuple[WorkspaceMode, ...] | None = None
    """What a profile's workspace may be; None says nothing."""
    apply_deny: tuple[str, ...] = ()
    """Globs over paths of a workspace that are never applied, whatever a profile allows."""
    grants: tuple[Grant, ...] | None = None
    """Who may use which profiles; None says nothing."""
    budgets: tuple[Budget, ...] = ()
    """How much may be used within which time."""
    loop_guard: LoopGuard | None = None
    """Pauses for what is tried again and again; None says nothing."""
    isolation: Isolation | None = None
    """`FULL` here refuses every profile with less; None says nothing."""
    landlock_minimum: int = 0
    """The least Landlock ABI of every run; 0 says nothing."""
