"""One look at a process, for `metering.sampled`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.metering.sampled import ProcessSample

if TYPE_CHECKING:
    import psutil


def sample(process: psutil.Process, *, with_memory: bool = True) -> ProcessSample:
    """What the kernel has counted for it so far. psutil.Error: it is gone.

    `with_memory`: False of a process of runner's own, whose memory is none of the run's.
    """
    with process.oneshot():
        times = process.cpu_times()
        return ProcessSample(
            pid=process.pid,
            create_time=process.create_time(),
            cpu_user_s=times.user,
            cpu_system_s=times.system,
            children_user_s=times.children_user,
            children_system_s=times.children_system,
            rss_bytes=process.memory_info().rss if with_memory else 0,
            threads=process.num_threads(),
        )
