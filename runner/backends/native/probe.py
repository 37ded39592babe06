"""Tries each protection in a throw-away process: in force, or withheld and by what.

A namespace that can be entered but grants no capabilities is withheld all the same (Ubuntu 24.04's
AppArmor does that), so each step is taken the way a sandbox takes it. At the end a whole sandbox
is built: the sum can fail where each part works.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import runner
from runner.backends.native import filters
from runner.errors import ProtectionMissingError
from runner.model.protection import Protection, ProtectionStatus
from runner.syscalls import refusals

TRY_TIMEOUT_S = 20.0
_PACKAGE_PARENT = str(Path(runner.__file__).resolve().parent.parent)
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from runner.backends.native.launcher import trial; trial.main(sys.argv[2])"
)

USERNS_REMEDY = {
    "apparmor": (
        "AppArmor withholds user namespaces here; `runner doctor --fix` installs a profile for "
        "runner's interpreter, or shows the commands for root; where nobody may, "
        "`--profile agent-process` is the lesser tier without them"
    ),
    "sysctl": "ask root for `sysctl kernel.unprivileged_userns_clone=1`",
    "max": "ask root for `sysctl user.max_user_namespaces=15000`",
    "container": (
        "inside a container, start it with `--security-opt seccomp=unconfined "
        "--security-opt systempaths=unconfined` (Docker), or run runner on the host"
    ),
    "container_root": (
        "inside a container, start it as an ordinary user (Docker: `--user 1000:1000 "
        "--security-opt seccomp=unconfined --security-opt systempaths=unconfined`), or give its "
        "root what it lacks with `--cap-add SYS_ADMIN` beside these"
    ),
}

CAP_SYS_ADMIN = 21
"""capabilities(7); a container's root usually goes without."""

TRIALS: tuple[tuple[Protection, str], ...] = (
    (Protection.USER_NAMESPACE, "user"),
    (Protection.MOUNT_NAMESPACE, "mount"),
    (Protection.READONLY_ROOT, "root"),
    (Protection.PID_NAMESPACE, "pid"),
    (Protection.PRIVATE_PROC, "proc"),
    (Protection.NETWORK_NAMESPACE, "network"),
    (Protection.IPC_NAMESPACE, "ipc"),
    (Protection.UTS_NAMESPACE, "uts"),
    (Protection.CGROUP_NAMESPACE, "cgroup"),
    (Protection.NO_CAPABILITIES, "capabilities"),
    (Protection.NO_NEW_PRIVILEGES, "nnp"),
    (Protection.LANDLOCK, "landlock"),
    (Protection.RLIMITS, "rlimits"),
)


def probe(cgroup_detail: str | None, no_cgroup_why: str, cache: Path) -> Sequence[ProtectionStatus]:
    """One status per protection, in the order of their list."""
    found = {protection: _try(protection, trial) for protection, trial in TRIALS}
    found[Protection.SECCOMP] = _seccomp(cache)
    found[Protection.CGROUP] = (
        ProtectionStatus(Protection.CGROUP, in_force=True, detail=cgroup_detail)
        if cgroup_detail is not None
        else ProtectionStatus(
            Protection.CGROUP,
            in_force=False,
            detail=no_cgroup_why,
            remedy=(
                "log in with a systemd user session on cgroup v2, have root delegate a group, or "
                "use a profile with 'cgroup: sampled'"
            ),
        )
    )
    return [found[protection] for protection in Protection]


def _try(protection: Protection, trial: str) -> ProtectionStatus:
    try:
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _BOOT, _PACKAGE_PARENT, trial],
            env={"LANG": "C.UTF-8"},
            capture_output=True,
            timeout=TRY_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ProtectionStatus(protection, in_force=False, detail="trying it did not end")
    detail = result.stdout.decode(errors="replace").strip()
    if result.returncode == 0:
        return ProtectionStatus(protection, in_force=True, detail=detail or "tried")
    if not detail:
        detail = result.stderr.decode(errors="replace").strip().splitlines()[-1:][0]
    return ProtectionStatus(protection, in_force=False, detail=detail, remedy=_remedy(protection))


def _seccomp(cache: Path) -> ProtectionStatus:
    try:
        program = filters.compiled(refusals(), cache)
    except ProtectionMissingError as error:
        return ProtectionStatus(
            Protection.SECCOMP,
            in_force=False,
            detail=str(error),
            remedy="install libseccomp (`apt install libseccomp2`)",
        )
    tried = _try(Protection.SECCOMP, "seccomp")
    if not tried.in_force:
        return tried
    return ProtectionStatus(
        Protection.SECCOMP, in_force=True, detail=f"filter of {len(program) // 8} instructions"
    )


def _remedy(protection: Protection) -> str:
    if protection is Protection.LANDLOCK:
        return "boot a kernel with Landlock in its `lsm=` list (5.13 or newer)"
    for path, word, withholds in (
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "apparmor", "1"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "sysctl", "0"),
        ("/proc/sys/user/max_user_namespaces", "max", "0"),
    ):
        with contextlib.suppress(OSError):
            if Path(path).read_text().strip() == withholds and os.geteuid() != 0:
                return USERNS_REMEDY[word]
    if in_container():
        return USERNS_REMEDY["container_root" if _root_without_mounts() else "container"]
    return "see docs/installing.md for what the kernel has to allow"


def _root_without_mounts() -> bool:
    """Whether we are a root that may not mount: proc(5), /proc/self/status, CapEff."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and not int(effective.split()[1], 16) >> CAP_SYS_ADMIN & 1


def in_container() -> bool:
    """Whether this looks like the inside of a container; only words depend on it."""
    if any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv")):
        return True
    with contextlib.suppress(OSError):
        return b"container=" in Path("/proc/1/environ").read_bytes()
    return False
