"""Each part of a run killed by itself: the rest dies with it, and the log says whose end it was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from runner import Runner
from runner.model.outcome import Termination

PARTS = ("supervisor", "launcher", "builder", "init", "program", "child")
"""Each the child of the one before."""
WAIT_S = 60.0
PROGRAM = """\
import os, signal, time
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("begun", flush=True)
time.sleep(3600)
"""


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline_s:
            pytest.fail(f"{what} did not happen within {WAIT_S:.0f} s")
        time.sleep(0.01)


def is_dead(process: psutil.Process) -> bool:
    """Gone, or a zombie: who inherits it may be slow to reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass
class Standing:
    """A run in progress, and its processes by the names of PARTS."""

    command: subprocess.Popen[bytes]
    parts: dict[str, psutil.Process]

    def kill(self, *names: str) -> None:
        for name in names:
            with contextlib.suppress(psutil.NoSuchProcess):  # the one before took it along
                self.parts[name].kill()

    def all_dead(self, *, but: tuple[str, ...] = ()) -> None:
        for name, process in self.parts.items():
            if name not in but:
                wait_until(lambda p=process: is_dead(p), f"the end of the {name}")


@pytest.fixture
def standing(native, runner_home, tmp_path) -> Iterator[Standing]:
    work = tmp_path / "work"
    work.mkdir()
    words = ("run", "-C", work, "--profile", "agent", "--result", tmp_path / "result", "program.py")
    (work / "program.py").write_text(PROGRAM)
    cli = "import sys; from runner.surfaces.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", cli, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"begun\n"
        parts = {}
        process = psutil.Process(command.pid)
        for name in PARTS:
            parts[name] = process
            if name != PARTS[-1]:
                (process,) = process.children()
        try:
            yield Standing(command, parts)
        finally:
            for process in parts.values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def kinds(home: Path) -> list[str]:
    with Runner(home=home) as runner:
        assert runner.store.verify().failure is None
        return [e.kind for e in runner.store.events() if e.run_id is not None]


@pytest.mark.parametrize(
    "victims",
    [
        ("supervisor",),
        ("supervisor", "launcher"),
        ("supervisor", "builder"),
        ("supervisor", "builder", "launcher"),
        ("supervisor", "init", "builder"),
    ],
    ids="+".join,
)
def test_a_dead_supervisor_takes_all_with_it(standing, runner_home, victims):
    standing.kill(*victims)
    standing.command.wait(WAIT_S)
    standing.all_dead()
    recorded = ["run.decided", "run.started"]
    assert kinds(runner_home) == [*recorded, "run.recovered"]
    assert kinds(runner_home) == [*recorded, "run.recovered"]  # closed once, not at each start


@pytest.mark.parametrize("victim", ["launcher", "builder", "init", "program"])
def test_a_supervisor_records_the_death_of_its_sandbox(standing, runner_home, tmp_path, victim):
    standing.kill(victim)
    code = standing.command.wait(WAIT_S)
    standing.all_dead()
    result = json.loads((tmp_path / "result").read_text())
    if victim in ("launcher", "builder"):
        assert code == 125
        assert result["termination"] == Termination.RUNNER_FAILED
    else:
        assert code == 128 + signal.SIGKILL
        assert result["termination"] == Termination.SIGNALED
    assert kinds(runner_home) == ["run.decided", "run.started", "run.ended"]


def test_a_killed_child_is_the_programs_own_affair(standing):
    standing.kill("child")
    wait_until(lambda: is_dead(standing.parts["child"]), "the end of the child")
    assert not is_dead(standing.parts["program"])


def test_a_library_starts_another_launcher(native, runner_home, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    with Runner(home=runner_home) as runner:
        assert runner.run(["true"], cwd=work).ok
        for launcher in psutil.Process().children():
            if "import zygote" in " ".join(launcher.cmdline()):
                launcher.kill()
                wait_until(lambda p=launcher: is_dead(p), "the end of the launcher")
        assert runner.run(["true"], cwd=work).ok


def test_parallel_runs_die_together(native, runner_home, tmp_path):
    """Three runs of one process, each with a launcher in common."""
    code = """
import sys
from concurrent.futures import ThreadPoolExecutor
from runner import Runner
from runner.streams import FdSink
with Runner(home=sys.argv[1]) as runner, ThreadPoolExecutor() as pool:
    for _ in range(3):
        pool.submit(runner.run, ["sh", "-c", "echo begun; sleep 3600"], cwd=sys.argv[2],
                    stdout=FdSink(1))
"""
    work = tmp_path / "work"
    work.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(runner_home), str(work)], stdout=subprocess.PIPE
    ) as command:
        assert command.stdout is not None
        for _ in range(3):
            assert command.stdout.readline() == b"begun\n"
        family = psutil.Process(command.pid).children(recursive=True)
        assert len(family) >= 1 + 3 * 3
        os.kill(command.pid, signal.SIGKILL)
        for process in family:
            wait_until(lambda p=process: is_dead(p), f"the end of {process}")
    found = kinds(runner_home)
    assert sorted(found) == sorted(["run.decided", "run.started", "run.recovered"] * 3)


def test_many_next_starts_close_a_run_once(standing, runner_home):
    """Starts at the same time agree on who closes it."""
    standing.kill("supervisor")
    standing.command.wait(WAIT_S)
    standing.all_dead()
    command = [sys.executable, "-c", "import sys; from runner import Runner; "
               "print(*Runner(home=sys.argv[1]).recovered)", str(runner_home)]  # fmt: skip
    with ThreadPoolExecutor() as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(command, capture_output=True, text=True, check=True),
                range(4),
            )
        )
    closed = [line for one in done for line in one.stdout.split()]
    assert len(closed) == 1
    assert kinds(runner_home).count("run.recovered") == 1


def test_a_launcher_process_that_is_busy_ends_with_its_supervisor():
    """A builder that copies or searches many files does not look at its socket meanwhile."""
    code = """
import socket, sys
from runner.backends.native.launcher.protocol import end_with_peer
control = socket.socket(fileno=int(sys.argv[1]))
end_with_peer(control)
print("busy", flush=True)
while True:
    pass
"""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        theirs,
        subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
        ) as busy,
    ):
        theirs.close()
        try:
            assert busy.stdout is not None
            assert busy.stdout.readline() == b"busy\n"
            ours.send(b"a word is no end")
            with pytest.raises(subprocess.TimeoutExpired):
                busy.wait(0.2)
            ours.close()
            assert busy.wait(WAIT_S) == 0
        finally:
            busy.kill()
