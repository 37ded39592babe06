"""From a sandbox's spec to what the engine is asked to create. Pure.

The words of the result are those of the Engine API (ContainerCreate, version 1.41,
https://docs.docker.com/engine/api/v1.41/).
"""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.backends.docker.boot import COMMAND
from runner.backends.guards import Guards
from runner.model.limits import Unlimited
from runner.model.profile import WorkspaceMode
from runner.model.spec import RUN_FOLDER, InjectedFile, SandboxSpec
from runner.syscall_names import NUMBERS
from runner.syscalls import CLONE_NEW_FLAGS, refusals

UID = 20000
"""The program's user and group: nobody's on an ordinary host, where accounts end at 59999 but
begin at 1000 and are given in order (Debian policy, 9.2.2), and beyond what images ship."""

LABEL_RUN = "runner.run"
LABEL_OWNER = "runner.owner"

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID")
"""What init keeps: lay the workspace down, become the program's user, kill and read what it
left. The program has none of them, not even in its bounding set."""

PAGE_BYTES = 4096
INIT_MEMORY_BYTES = 24 << 20
"""For init itself, on top of the run's limit: Python and its buffers take 12 MiB."""
ENTRY_MEMORY_BYTES = 1024
"""What init remembers of each path of the workspace."""
INIT_PROCESSES = 1
CPU_PERIOD_US = 100_000
CPU_QUOTA_LEAST_US = 1000
"""The least that the kernel takes (Documentation/scheduler/sched-bwc.rst)."""
SPARE_INODES = 64
"""Mount points and folders that the engine makes."""

HOME = "/home/agent"
# The engine's own lists (oci/defaults.go), and what else tells of the machine.
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/bus", "/proc/cmdline", "/proc/config.gz",
    "/proc/diskstats", "/proc/driver", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore",
    "/proc/keys", "/proc/key-users", "/proc/kmsg", "/proc/latency_stats", "/proc/mdstat",
    "/proc/modules", "/proc/partitions", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/proc/version_signature",
    "/sys/block", "/sys/bus", "/sys/class", "/sys/devices/pci0000:00", "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/hypervisor", "/sys/kernel",
    "/sys/module", "/sys/power",
)  # fmt: skip
READONLY_PATHS = ("/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


_UNTOLD = frozenset({WorkspaceMode.NONE, WorkspaceMode.BIND})
"""Modes whose changes are not listed."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How large the workspace is that is copied in."""

    bytes: int = 0
    """Each file rounded up to whole pages, as a tmpfs holds it."""
    paths: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    """A folder of the host that the container works on, as it was looked at."""

    uid: int
    gid: int
    """Its owner's, and so the program's."""
    guards: Guards
    identities: tuple[tuple[str, int, int], ...]
    """Path, device and inode of everything that is mounted of it, absolute, the folder first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to create, and what to tell init."""

    image: str
    create: Mapping[str, Any]
    """Body of ContainerCreate."""
    config: Mapping[str, Any]
    """The `CONFIG` frame."""
    mounted: tuple[InjectedFile, ...]
    """Injected files that need a mount of their own; their sources are in `create`, by index."""


def plan(
    spec: SandboxSpec,
    *,
    run_id: str,
    owner: str,
    image: str,
    copied: Copied,
    bound: Bound | None,
    files_folder: str,
    program_filter: bytes,
) -> Plan:
    """Compile `spec`; `files_folder` is where the caller puts `mounted`, each named by index.

    `program_filter` is the program's own seccomp filter (8 bytes an instruction), or empty where
    none could be compiled for the engine's architecture.
    """
    limits = spec.limits
    writable = _writable(spec)
    mounted = tuple(file for file in spec.files if not _below(file.path, RUN_FOLDER))
    inside = tuple(file for file in spec.files if _below(file.path, RUN_FOLDER))
    memory_bytes = 0
    if not isinstance(limits.memory_bytes, Unlimited):
        extra_bytes = INIT_MEMORY_BYTES + copied.bytes + copied.paths * ENTRY_MEMORY_BYTES
        memory_bytes = limits.memory_bytes + extra_bytes
    owner_ids = (bound.uid, bound.gid) if bound is not None else (UID, UID)
    config = _config(spec, writable, inside, mounted)
    config["uid"], config["gid"] = owner_ids
    config["identities"] = [list(each) for each in bound.identities] if bound is not None else []
    config["seccomp"] = base64.b64encode(program_filter).decode("ascii")
    host_config = {
        "AutoRemove": True,
        "Binds": [],
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "CgroupnsMode": "private",
        "Dns": ["127.0.0.1"],
        "DnsSearch": ["."],
        "Init": False,
        "IpcMode": "private",
        "LogConfig": {"Type": "none", "Config": {}},
        "MaskedPaths": list(MASKED_PATHS),
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "Mounts": [*_bound(spec, bound), *_mounts(spec, mounted, files_folder)],
        # Not NanoCpus: the engine refuses more of them than the machine has processors.
        "CpuPeriod": CPU_PERIOD_US,
        "CpuQuota": (
            -1
            if isinstance(limits.cpus, Unlimited)
            else max(CPU_QUOTA_LEAST_US, round(limits.cpus * CPU_PERIOD_US))
        ),
        "NetworkMode": "none",
        "PidsLimit": (
            -1 if isinstance(limits.processes, Unlimited) else limits.processes + INIT_PROCESSES
        ),
        "Privileged": False,
        "ReadonlyPaths": list(READONLY_PATHS),
        "ReadonlyRootfs": True,
        "RestartPolicy": {"Name": "no"},
        "SecurityOpt": [
            "no-new-privileges:true",
            f"seccomp={json.dumps(seccomp(spec, own=bool(program_filter)))}",
        ],
        "Tmpfs": _tmpfs(spec, writable, inside, copied, owner_ids),
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
    }
    create = {
        "Image": image,
        "Entrypoint": [],
        "Cmd": list(COMMAND),
        "Env": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": spec.hostname,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        # The engine closes init's stdin when the one who attached is gone: see lease.py.
        "StdinOnce": True,
        "Tty": False,
        "NetworkDisabled": False,
        "Healthcheck": {"Test": ["NONE"]},
        "Volumes": {},
        "Labels": {LABEL_RUN: run_id, LABEL_OWNER: owner},
        "HostConfig": host_config,
    }
    return Plan(image, create, config, mounted)


def seccomp(spec: SandboxSpec, *, own: bool) -> dict[str, Any]:
    """The engine's form of the system calls that are refused to everything in the container.

    Where the program gets a filter of its `own` with all of them, init may make the one user
    namespace that the program lives in; nothing else may be unshared even then.

    No list of architectures: the runtime's filter is then for the machine's own, and a call by
    another one's numbers (`int 0x80`, x32) kills. Calls that have a number only are left out: the
    engine's form has names (`unnamed`).
    """
    syscalls: list[dict[str, Any]] = []
    for refusal in refusals(spec.syscalls):
        if refusal.name in NUMBERS:
            continue
        rule: dict[str, Any] = {
            "names": [refusal.name],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": refusal.errno_code,
        }
        if own and refusal.name == "unshare":
            rule["args"] = [
                {"index": 0, "value": CLONE_NEW_FLAGS["CLONE_NEWUSER"], "op": "SCMP_CMP_NE"}
            ]
        elif refusal.when is not None:
            rule["args"] = [
                {
                    "index": when.index,
                    "value": when.mask,
                    "valueTwo": when.value,
                    "op": "SCMP_CMP_MASKED_EQ",
                }
                for when in (refusal.when, refusal.also)
                if when is not None
            ]
        syscalls.append(rule)
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}


def unnamed(spec: SandboxSpec) -> tuple[str, ...]:
    """Refused calls that the engine can't be told of, sorted."""
    return tuple(sorted({r.name for r in refusals(spec.syscalls) if r.name in NUMBERS}))


def _writable(spec: SandboxSpec) -> tuple[str, ...]:
    """Every folder that the program may write, each a tmpfs of its own; outer ones first."""
    home = dict(spec.environment).get("HOME", HOME)
    wanted = ["/tmp", "/var/tmp", "/dev/shm", HOME, spec.workspace.target]  # noqa: S108
    if home.startswith("/home/") and posixpath.normpath(home) == home:
        wanted.append(home)
    kept: list[str] = []
    for path in sorted(dict.fromkeys(wanted), key=lambda path: (path.count("/"), path)):
        covered = any(_below(path, outer) for outer in kept)
        # The workspace has a file system of its own wherever it stands: its size is its own.
        if not covered or path == spec.workspace.target:
            kept.append(path)
    return tuple(kept)


def _tmpfs(
    spec: SandboxSpec,
    writable: tuple[str, ...],
    inside: tuple[InjectedFile, ...],
    copied: Copied,
    owner_ids: tuple[int, int],
) -> dict[str, str]:
    limits = spec.limits
    uid, gid = owner_ids
    found = {}
    for path in _scratch(spec, writable):
        own = copied if path == spec.workspace.target else Copied()
        mode = "1777" if path in {"/tmp", "/var/tmp", "/dev/shm"} else "0755"  # noqa: S108
        options = ["rw", "exec", "nosuid", "nodev", f"mode={mode}", f"uid={uid}", f"gid={gid}"]
        if mode == "1777":
            options[-2:] = ["uid=0", "gid=0"]
        if not isinstance(limits.workspace_bytes, Unlimited):
            options.append(f"size={_pages(limits.workspace_bytes) + own.bytes}")
        if not isinstance(limits.workspace_inodes, Unlimited):
            options.append(f"nr_inodes={limits.workspace_inodes + own.paths + SPARE_INODES}")
        found[path] = ",".join(options)
    handed_bytes = sum(_pages(len(file.content)) for file in inside) + PAGE_BYTES
    found[RUN_FOLDER] = f"rw,exec,nosuid,nodev,mode=0755,uid=0,gid=0,size={handed_bytes}"
    return found


def _scratch(spec: SandboxSpec, writable: tuple[str, ...]) -> list[str]:
    """What of these is a tmpfs: all but a folder that is bound."""
    bound = spec.workspace.target if spec.workspace.is_bound else None
    return [path for path in writable if path != bound]


def _bound(spec: SandboxSpec, bound: Bound | None) -> list[dict[str, Any]]:
    """The folder, and over it what is guarded; the engine mounts outer targets first.

    The engine has no `nosuid` and `nodev` for these (ContainerCreate, Mounts): no_new_privs and
    the container's list of devices do the same.
    """
    if bound is None:
        return []
    folder = spec.workspace.target
    paths = [(folder, False)]
    paths += [(f"{folder}/{path}", False) for path in bound.guards.pinned]
    paths += [(f"{folder}/{path}", True) for path in bound.guards.read_only]
    return [_mount(path, path, read_only=read_only) for path, read_only in paths]


def _mounts(
    spec: SandboxSpec, mounted: tuple[InjectedFile, ...], files_folder: str
) -> list[dict[str, Any]]:
    sources = [(path, path) for path in spec.read]
    sources += [(f"{files_folder}/{index}", file.path) for index, file in enumerate(mounted)]
    return [_mount(source, target, read_only=True) for source, target in sources]


def _mount(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        # What is mounted below would not be read-only with it.
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def _config(
    spec: SandboxSpec,
    writable: tuple[str, ...],
    inside: tuple[InjectedFile, ...],
    mounted: tuple[InjectedFile, ...],
) -> dict[str, Any]:
    limits = spec.limits
    target = spec.workspace.target
    return {
        "argv": list(spec.argv),
        "environment": [list(pair) for pair in spec.environment],
        "cwd": spec.cwd,
        "terminal": spec.terminal,
        "limits": {
            name: None if isinstance(bound, Unlimited) else bound
            for name, bound in (
                ("wall_s", limits.wall_s),
                ("cpu_time_s", limits.cpu_time_s),
                ("workspace_bytes", limits.workspace_bytes),
                ("workspace_inodes", limits.workspace_inodes),
                ("open_files", limits.open_files),
            )
        },
        "writable": list(writable),
        "scratch": _scratch(spec, writable),
        "workspace": None if spec.workspace.mode in _UNTOLD else target,
        "mounted": [
            posixpath.relpath(file.path, target) for file in mounted if _below(file.path, target)
        ],
        "files": [
            {
                "path": file.path,
                "mode": 0o555 if file.executable else 0o444,
                "content": base64.b64encode(file.content).decode("ascii"),
            }
            for file in inside
        ],
    }


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
