"""Limits of one run, their closed list of names, and how a request tightens them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum, StrEnum
from typing import Any


class Unlimited(Enum):
    """The one value that means "no bound". `None` never means that."""

    UNLIMITED = "unlimited"


UNLIMITED = Unlimited.UNLIMITED


class LimitName(StrEnum):
    """What can end a run; the closed list that outcomes, events and the API use."""

    WALL = "wall"
    CPU_TIME = "cpu_time"
    MEMORY = "memory"
    PROCESSES = "processes"
    OUTPUT = "output"
    WORKSPACE = "workspace"
    OPEN_FILES = "open_files"
    IDLE = "idle"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use. Every bound is a positive number or `UNLIMITED`."""

    wall_s: float | Unlimited
    cpu_time_s: float | Unlimited
    cpus: float | Unlimited
    """How many processors' worth of time it may use at once; needs a cgroup to be exact."""
    memory_bytes: int | Unlimited
    processes: int | Unlimited
    output_bytes: int | Unlimited
    """Bytes on stdout and stderr together."""
    workspace_bytes: int | Unlimited
    """Bytes in everything writable: the workspace's changes, /tmp, /dev/shm, the home."""
    workspace_inodes: int | Unlimited
    open_files: int | Unlimited
    """Descriptors of one process (RLIMIT_NOFILE)."""

    def tightened(self, other: LimitOverrides) -> Limits:
        """These limits with each stated bound of `other` taken where it is the smaller one."""
        least: dict[str, Any] = {
            f.name: _least(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        }
        return replace(self, **least)

    def looser_than(self, other: LimitOverrides) -> tuple[str, ...]:
        """Names of the bounds in `other` that ask for more than these limits grant."""
        return tuple(
            f.name
            for f in fields(self)
            if (asked := getattr(other, f.name)) is not None
            and _least(getattr(self, f.name), asked) != asked
        )


@dataclass(frozen=True, slots=True)
class LimitOverrides:
    """Bounds that somebody stated beside a profile's; `None` means "not stated"."""

    wall_s: float | Unlimited | None = None
    cpu_time_s: float | Unlimited | None = None
    cpus: float | Unlimited | None = None
    memory_bytes: int | Unlimited | None = None
    processes: int | Unlimited | None = None
    output_bytes: int | Unlimited | None = None
    workspace_bytes: int | Unlimited | None = None
    workspace_inodes: int | Unlimited | None = None
    open_files: int | Unlimited | None = None


NO_OVERRIDES = LimitOverrides()

LIMIT_KEYS: dict[str, str] = {
    "wall": "wall_s",
    "cpu_time": "cpu_time_s",
    "cpus": "cpus",
    "memory": "memory_bytes",
    "processes": "processes",
    "output": "output_bytes",
    "workspace": "workspace_bytes",
    "inodes": "workspace_inodes",
    "open_files": "open_files",
}
"""The word for each bound in a profile and on the command line, and its field above."""


def spelled(field: str, bound: float | Unlimited) -> str:
    """A bound as a profile would write it: `5s`, `64MiB`, `32`, `unlimited`."""
    if isinstance(bound, Unlimited):
        return bound.value
    if field.endswith("_s"):
        return f"{_number(bound)}s"
    if field.endswith("_bytes"):
        for factor, unit in _BINARY_UNITS:
            if bound >= factor and bound % factor == 0:
                return f"{int(bound // factor)}{unit}"
        return f"{int(bound)}"
    return _number(bound)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


_BINARY_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def _least(granted: float | Unlimited, asked: float | Unlimited | None) -> float | Unlimited:
    if asked is None or isinstance(asked, Unlimited):
        return granted
    if isinstance(granted, Unlimited):
        return asked
    return min(granted, asked)
