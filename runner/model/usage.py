"""What a run cost. A field that was not measured is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Measured by the kernel and by runner, never by the program's word."""

    wall_s: float | None = None
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    memory_peak_bytes: int | None = None
    """Peak of the whole run with a cgroup; the largest sampled sum without one."""
    processes: int | None = None
    """Most processes and threads at once."""
    execs: int | None = None
    connections: int | None = None
    requests: int | None = None
    bytes_in: int | None = None
    """Bytes that came over the network."""
    bytes_out: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
