"""The part of the contract about limits: each ends what crosses it, by its own name."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from runner.errors import RecordError
from runner.metering.slices import used_of
from runner.model.budget import Resource
from runner.model.limits import LimitName
from runner.model.outcome import Termination
from runner.model.usage import Usage
from runner.ports import Backend
from runner.streams import FdSink
from runner.testing.backend_filling import FILL, FILL_INODES
from runner.testing.backend_harness import (
    NO_LIMIT,
    BackendHarness,
    Given,
    Ran,
    expect,
    holds_processes,
    same,
)

_FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
_THREAD_BOMB = """
import threading, time
while True:
    try:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    except RuntimeError:
        time.sleep(0.01)
"""
_MEMORY_BOMB = """
held = []
while True:
    held.append(b"x" * (4 << 20))
"""


class LimitContract(BackendHarness):
    """Crossing a limit ends the run with that limit's name, and the next run works."""

    def test_wall_even_when_termination_is_ignored(self) -> None:
        text = "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
        self._ends_by(LimitName.WALL, text + "time.sleep(1000)", wall_s=1.0)

    def test_wall_when_it_stopped_itself(self) -> None:
        text = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
        self._ends_by(LimitName.WALL, text, wall_s=1.0)

    def test_wall_holds_while_nobody_reads(self) -> None:
        reader, writer = os.pipe()
        try:
            given = Given(stdout=FdSink(writer))
            text = "while True: print('x' * 1000)"
            more: dict[str, Any] = {"wall_s": 1.0, "output_bytes": NO_LIMIT}
            self._ends_by(LimitName.WALL, text, given=given, **more)
        finally:
            os.close(reader)
            os.close(writer)

    def test_cpu_time(self) -> None:
        self._ends_by(LimitName.CPU_TIME, "while True: pass", cpu_time_s=0.5)

    def test_cpu_time_of_many_together(self) -> None:
        text = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
        self._ends_by(LimitName.CPU_TIME, text, cpu_time_s=0.5)

    def test_memory(self) -> None:
        with self.backend() as backend:
            ran = self.python(_MEMORY_BOMB, memory_bytes=64 << 20, backend=backend)
            if holds_processes(ran):
                _limit(ran, LimitName.MEMORY)
            else:
                # Without a cgroup the kernel refuses and the program fails, or it is seen in time.
                expect(ran.ending.exit_code != 0, f"it should not have got so much: {ran.ending}")
            self.still_works(backend)

    def test_memory_in_files_counts_as_what_may_be_written(self) -> None:
        more: dict[str, Any] = {"workspace_bytes": 4 << 20}
        self._ends_by(LimitName.WORKSPACE, FILL, "/dev/shm", **more)  # noqa: S108

    def test_processes_stop_a_fork_bomb(self) -> None:
        self._bomb(_FORK_BOMB)

    def test_processes_stop_a_thread_bomb(self) -> None:
        self._bomb(_THREAD_BOMB)

    def test_output_flood(self) -> None:
        with self.backend() as backend:
            ran = self.shell("yes", output_bytes=100_000, backend=backend)
            _limit(ran, LimitName.OUTPUT)
            same(len(ran.stdout), 100_000)
            self.still_works(backend)

    def test_output_flood_on_both_streams(self) -> None:
        ran = self.shell("yes >&2 & exec yes", output_bytes=100_000)
        _limit(ran, LimitName.OUTPUT)
        same(len(ran.stdout) + len(ran.stderr), 100_000)

    def test_output_that_just_fits(self) -> None:
        text = "import sys; sys.stdout.write('x' * 100000)"
        same(len(self.python(text, output_bytes=100_000).exited().stdout), 100_000)

    def test_output_without_a_newline(self) -> None:
        _limit(self.shell("cat /dev/zero", output_bytes=100_000), LimitName.OUTPUT)

    def test_workspace_bytes(self) -> None:
        with self.folder(a="1") as folder:
            more = {**self.on(folder), "workspace_bytes": 4 << 20}
            self._ends_by(LimitName.WORKSPACE, FILL, str(folder), **more)

    def test_workspace_bytes_in_tmp(self) -> None:
        more: dict[str, Any] = {"workspace_bytes": 4 << 20}
        self._ends_by(LimitName.WORKSPACE, FILL, "/tmp", **more)  # noqa: S108

    def test_workspace_inodes(self) -> None:
        with self.folder(a="1") as folder:
            more = {**self.on(folder), "workspace_inodes": 200}
            self._ends_by(LimitName.WORKSPACE, FILL_INODES, str(folder), **more)

    def test_what_fits_may_be_written(self) -> None:
        with self.folder(a="1") as folder:
            text = "open('b', 'wb').write(b'x' * (3 << 20))"
            self.python(text, workspace_bytes=8 << 20, **self.on(folder)).exited()

    def test_a_sparse_file_costs_nothing(self) -> None:
        with self.folder() as folder:
            text = "import os; os.truncate(os.open('a', os.O_CREAT | os.O_WRONLY), 1 << 40)"
            ran = self.python(text, **self.on(folder)).exited()
            same([(c.path, c.size_bytes) for c in ran.ending.changes], [("a", 1 << 40)])

    def test_the_meter_hears_of_time_and_ends_the_run(self) -> None:
        """With what a grandchild in a session of its own uses too, and nobody outlives it."""
        text = f"{BUSY} & setsid sh -c '{BUSY} & wait' & echo begun; wait"
        with self.backend() as backend:
            for told in (_wall_us, _cpu_us):
                meter = _Meter(told, 300_000)
                ran = self.shell(text, given=Given(meter=meter), backend=backend)
                _limit(ran, LimitName.BUDGET)
                same(ran.stdout, b"begun\n")
                expect(len(meter.heard) > 1, f"it was asked {len(meter.heard)} times only")
                same(meter.heard, sorted(meter.heard))
                expect(meter.heard[-1] >= 300_000 > meter.heard[-2], f"it heard {meter.heard}")
                ended = told(ran.ending.usage)
                # Not the last look: behind a gap that is an estimate, and never too low.
                expect(ended is not None and ended >= meter.heard[0], "less than it was told")
            self.still_works(backend)

    def test_a_meter_that_lets_it_changes_nothing(self) -> None:
        meter = _Meter(_wall_us, 1 << 60)
        ran = self.shell("sleep 0.5; exit 3", given=Given(meter=meter)).exited(3)
        told = _wall_us(ran.ending.usage)
        expect(told is not None and bool(meter.heard), "it was never asked")
        # Not the last look, which may come when it has just ended and nobody has been told.
        expect(told is not None and told >= meter.heard[0], "it was told of more than was used")

    def test_a_meter_that_can_not_tell_ends_the_run(self) -> None:
        with self.backend() as backend:
            try:
                ran = self.shell(BUSY, given=Given(meter=_Broken()), backend=backend)
            except RecordError:
                pass
            else:
                raise AssertionError(f"the run went on: {ran.ending}")
            self.still_works(backend)

    def test_open_files(self) -> None:
        text = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
        same(self.python(text, open_files=77).exited().lines, ["(77, 77)"])

    def _ends_by(self, limit: LimitName, text: str, *args: str, **more: Any) -> None:
        with self.backend() as backend:
            ran = self.python(text, *args, backend=backend, **more)
            _limit(ran, limit)
            self.still_works(backend)

    def _bomb(self, text: str) -> None:
        """It may go on until its time is over where refusals can't be seen; it never gets out."""
        with self.backend() as backend:
            ran = self.python(text, processes=20, wall_s=10.0, backend=backend)
            same(ran.ending.termination, Termination.LIMIT)
            if holds_processes(ran):
                same(ran.ending.limit, LimitName.PROCESSES)
            _survived(ran, backend)
            self.still_works(backend)


BUSY = "while :; do :; done"


class _Meter:
    """Lets a run use less than so many microseconds of something."""

    def __init__(self, told: Callable[[Usage], int | None], most: int) -> None:
        self._told = told
        self._most = most
        self.heard: list[int] = []

    def look(self, usage: Usage) -> bool:
        told = self._told(usage)
        if told is not None:
            self.heard.append(told)
        return told is None or told < self._most


class _Broken:
    def look(self, usage: Usage) -> bool:
        raise RecordError(f"the ledger can't be written: {usage}")


def _wall_us(usage: Usage) -> int | None:
    return used_of(Resource.WALL, usage)


def _cpu_us(usage: Usage) -> int | None:
    return used_of(Resource.CPU, usage)


def _limit(ran: Ran, limit: LimitName) -> None:
    same((ran.ending.termination, ran.ending.limit), (Termination.LIMIT, limit))


def _survived(ran: Ran, backend: Backend) -> None:
    most = ran.ending.usage.processes
    expect(most is None or most <= 20, f"{backend.name} let {most} processes live at once")
