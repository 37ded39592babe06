"""The machine that a figure was measured on, so that a stranger can judge it."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, object]:
    """Kernel, processors, memory, control groups, Python, and how busy it is now."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _field("/proc/cpuinfo", r"model name\s*:\s*(.+)"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "virtual": "hypervisor" in (_field("/proc/cpuinfo", r"flags\s*:\s*(.+)") or "").split(),
        "cgroup": _cgroup(),
        "python": platform.python_version(),
        "uid": os.geteuid(),
        "load_1m": os.getloadavg()[0],
    }


def _field(path: str, pattern: str) -> str | None:
    found = re.search(pattern, Path(path).read_text())
    return found.group(1) if found else None


def _cgroup() -> str:
    """Where the controllers are (cgroups(7))."""
    mounts = Path("/proc/self/mountinfo").read_text()
    if re.search(r" - cgroup \S+ \S*\bmemory\b", mounts):
        return "v1"
    return "v2" if " - cgroup2 " in mounts else "none"


def _commit() -> str | None:
    """Of the source that is measured, with `+` when it differs from that commit."""
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", "runner", "profiles"],
            capture_output=True,
            check=False,
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")
