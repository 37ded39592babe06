"""Commands of a session beside each other: none is touched by another's end, and none leaves
anything in the keeper or, cut off while it wrote, in the workspace.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import Runner
from runner.errors import RunnerError
from runner.model.outcome import Termination
from runner.sessions.client import Session
from runner.streams import Cancellation

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture
def session(runner: Runner, work: Path) -> Iterator[Session]:
    with runner.sessions.start(cwd=work, lifetime="10m") as begun:
        yield begun


def keeper_of(home: Path) -> int:
    for _ in range(100):  # a descriptor that is closed meanwhile makes it look like none
        if (found := _keeper_of(home)) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("nobody keeps it")


def _keeper_of(home: Path) -> int | None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
                held = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
            except OSError:
                continue
            if b"runner.surfaces.keeping" in words and any(f"{home}/" in each for each in held):
                return int(entry.name)
    return None


def test_the_end_of_one_command_is_nothing_to_others(session):
    """The kernel gives the number of a mount namespace that is gone to the next one."""
    wrong: list[object] = []
    over = threading.Event()

    def ended() -> None:
        while not over.is_set():
            with Cancellation() as cancel:
                timer = threading.Timer(0.1, cancel.set)
                timer.start()
                outcome = session.run(["sleep", "1000"], cancel=cancel)
                timer.join()
            if outcome.termination is not Termination.CANCELLED:
                wrong.append(outcome)

    threads = [threading.Thread(target=ended) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            try:
                outcome = session.run(["true"])
                if outcome.exit_code != 0:
                    wrong.append(outcome)
                session.write("f", b"x" * 100_000)
                session.read("f")
            except RunnerError as error:
                wrong.append(error)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_keeper_holds_nothing_of_commands_that_have_ended(session, tmp_path):
    keeper = keeper_of(tmp_path / "home")

    def held() -> int:
        return len(os.listdir(f"/proc/{keeper}/fd"))

    session.run(["true"])
    before = held()
    for _ in range(10):
        session.run(["true"])
        session.write("f", b"x")
        session.processes()
    # Of the last one it may be about to let go.
    assert held() <= before + 6


def test_what_a_process_says_of_itself_is_cut(session):
    word = "x" * 100_000
    session.run(shell=f"(exec -a {word[:9000]} sleep 1000) & sleep 1000 & true")
    lengths = sorted(len(" ".join(each.argv)) for each in session.processes())
    assert lengths[-1] == 4096
    assert lengths[0] == len("sleep 1000")


WRITES = """
import os, sys
from runner.model.session import FileDeed, FileTask
from runner.sessions.client import Session

class Source:
    def read(self, size):
        sys.stdout.write("x")
        sys.stdout.flush()
        return b"x" * 100_000

session = Session(__import__("pathlib").Path(sys.argv[1]), sys.argv[2])
session.do(FileTask(FileDeed.WRITE, "f", size_bytes=1 << 40), source=Source())
"""


def test_who_is_killed_while_it_writes_leaves_what_stood_there(session, tmp_path):
    session.write("f", "old")
    for _ in range(5):
        words = [sys.executable, "-c", WRITES, str(tmp_path / "home"), session.id]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        process.stdout.read(4)
        process.kill()
        process.wait()
        process.stdout.close()
        # The next one waits for nothing that the last one did, so look until it is over.
        while session.processes():
            pass
        assert session.read("f") == b"old"
        assert session.run(["ls", "-A"]).stdout.data == b"f\n"
