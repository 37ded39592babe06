"""A sandbox to build: profile and request compiled, backend-neutral.

The words follow the OCI runtime specification (https://github.com/opencontainers/runtime-spec)
where it has one: process, root, mounts, resources.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.model.limits import Limits, Unlimited
from runner.model.profile import CgroupMode, Isolation, NetworkMode, Syscalls, WorkspaceMode
from runner.model.protection import Protection
from runner.model.request import Hold

RUN_FOLDER = "/run/runner"
"""Where injected files (scripts, code) stand inside a sandbox."""


@dataclass(frozen=True, slots=True)
class InjectedFile:
    """A file that stands read-only in the sandbox with exactly these bytes."""

    path: str
    """Absolute path inside; may lie over a file of the workspace."""
    content: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder a run works on."""

    mode: WorkspaceMode
    source: str | None
    """Absolute host path; None where nothing of the host is seen, with `none` and `tmpfs`."""
    target: str
    """Absolute path inside; the same as `source` where there is one."""

    @property
    def is_bound(self) -> bool:
        """Whether the run works on the host's folder itself."""
        return self.mode is WorkspaceMode.BIND


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything a backend needs to know, and nothing it has to ask about."""

    argv: tuple[str, ...]
    cwd: str
    environment: tuple[tuple[str, str], ...]
    terminal: bool
    files: tuple[InjectedFile, ...]
    workspace: Workspace
    read: tuple[str, ...]
    """Absolute host paths shown read-only at the same place."""
    image: str | None
    network: NetworkMode
    cgroup: CgroupMode
    limits: Limits
    syscalls: Syscalls
    requires: frozenset[Protection]
    hostname: str = "sandbox"
    isolation: Isolation = Isolation.FULL
    hold: Hold | None = None
    """A sandbox that stays, for commands that come later: then `argv` is empty."""
    landlock_minimum: int = 0
    """The least Landlock ABI; more than 0 only where `landlock` is required."""

    def __post_init__(self) -> None:
        """ValueError for a bound folder with what can't be held there: see the messages."""
        if not self.workspace.is_bound:
            return
        if not (
            isinstance(self.limits.workspace_bytes, Unlimited)
            and isinstance(self.limits.workspace_inodes, Unlimited)
        ):
            raise ValueError("workspace_bytes and workspace_inodes can't be held on a bound folder")
        if self.isolation is not Isolation.FULL:
            raise ValueError("a bound folder needs isolation: full")
        if self.syscalls.set_id_bits:
            raise ValueError("a bound folder needs syscalls with set_id_bits=False")
        inside = f"{self.workspace.target}/"
        if any(file.path.startswith(inside) for file in self.files):
            raise ValueError("no injected file can stay in its place in a bound folder")
