"""Whether what was used is more than what was granted, for limits that are watched by looking."""

from __future__ import annotations

from runner.metering.usage import cpu_s
from runner.model.limits import LimitName, Limits, Unlimited
from runner.model.usage import Usage


def crossed(limits: Limits, usage: Usage) -> LimitName | None:
    """The first of `cpu_time`, `memory`, `processes` that `usage` has crossed, else None.

    CPU time is crossed when it is used up (as RLIMIT_CPU has it, getrlimit(2)); memory and
    processes when there is more than the limit. What was not measured crosses nothing.
    """
    used_s = cpu_s(usage)
    if used_s is not None and _at_least(used_s, limits.cpu_time_s):
        return LimitName.CPU_TIME
    if _above(usage.memory_peak_bytes, limits.memory_bytes):
        return LimitName.MEMORY
    if _above(usage.processes, limits.processes):
        return LimitName.PROCESSES
    return None


def _at_least(used: float, limit: float | Unlimited) -> bool:
    return not isinstance(limit, Unlimited) and used >= limit


def _above(used: int | None, limit: int | Unlimited) -> bool:
    return used is not None and not isinstance(limit, Unlimited) and used > limit
