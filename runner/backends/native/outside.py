"""Runs that another process holds, looked at and ended from outside.

A builder bears the beginning of its run's id as its name (`label`), which the sandbox can't change:
it is no process of its own. With a builder goes the sandbox: init is killed with it
(PR_SET_PDEATHSIG), and with init all that is inside.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runner.backends.native.belongings import Watched
from runner.backends.native.cgroups import Cgroup, group_of_run
from runner.backends.native.orphans import ours
from runner.backends.native.sampling import sample
from runner.errors import BackendError
from runner.metering.sampled import SampledUsage
from runner.model.usage import Usage

LABEL_CHARACTERS = 15
"""TASK_COMM_LEN (PR_SET_NAME(2const)), without the zero byte at the end."""


@dataclass(frozen=True, slots=True)
class Outside:
    """A run's builder, and the control group that the run has for itself."""

    builder: int
    cgroup: Cgroup | None


def label(run_id: str) -> str:
    """A builder's name."""
    return run_id[:LABEL_CHARACTERS]


def find(run_ids: Collection[str]) -> Mapping[str, Outside]:
    """Those that have a sandbox here now."""
    wanted = {label(run_id): run_id for run_id in run_ids}
    found = {}
    for pid, _ in ours():
        if (run_id := wanted.get(_name(pid))) is not None:
            found[run_id] = Outside(pid, group_of_run(run_id, _children(pid)))
    return found


def usage(run: Outside) -> Usage | None:
    """What it has used so far; None: it is gone."""
    import psutil  # noqa: PLC0415  (late: speed)

    samples = []
    try:
        builder = psutil.Process(run.builder)
        wall_s = max(0.0, time.time() - builder.create_time())
        processes = builder.children(recursive=True)
    except psutil.Error:
        return None
    for process in processes:
        with contextlib.suppress(psutil.Error):
            samples.append(sample(process))
    sampled = SampledUsage()
    sampled.feed(samples)
    seen = replace(sampled.usage, wall_s=wall_s)
    if run.cgroup is None:
        return seen
    counted = run.cgroup.read()
    if counted.cpu_s is not None:
        seen = replace(seen, cpu_user_s=counted.cpu_s, cpu_system_s=0.0)
    return replace(
        seen,
        memory_peak_bytes=counted.memory_peak_bytes or seen.memory_peak_bytes,
        processes=counted.processes or seen.processes,
    )


def kill(run_id: str) -> bool:
    """End it; False: it has no sandbox here. BackendError: it does not end."""
    run = find([run_id]).get(run_id)
    if run is None:
        return False
    builder = Watched(run.builder, "builder")
    # Looked at again: with the descriptor in hand the number can't be another's any more.
    if _name(run.builder) != label(run_id):
        return True
    if (why := builder.end()) is not None:
        raise BackendError(f"run {run_id}: {why}")
    if run.cgroup is not None:
        run.cgroup.kill()
    return True


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").rstrip("\n")
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    import psutil  # noqa: PLC0415  (late: speed)

    with contextlib.suppress(psutil.Error):
        return [each.pid for each in psutil.Process(pid).children()]
    return []
