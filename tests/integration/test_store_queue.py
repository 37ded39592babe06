"""The queue of writers between processes: in order, whoever is killed, stopped or in a hurry."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from runner.errors import RecordError
from runner.stores import queue
from runner.stores.queue import WriterQueue

_ENOUGH_S = 60.0
_CHILD = """
import os, sys
from pathlib import Path
from runner.stores import queue
path, told, name, stuck_s = sys.argv[1:]
queue.STUCK_S = float(stuck_s)
writer = queue.WriterQueue(Path(path), 60)
writer.enter()
fd = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(fd, name.encode())
writer.leave()
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


def _lined_up(path: Path) -> int:
    """How many places were taken so far."""
    told = path.read_bytes()
    return int(struct.unpack("<Q", told)[0]) if told else 0


@contextmanager
def _counter_locked(path: Path) -> Iterator[bool]:
    """Lock the counter, as who takes a number does; False: somebody has locked it."""
    with path.open("r+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0))
        except BlockingIOError:
            yield False
        else:
            yield True


def _counter_free(path: Path) -> bool:
    with _counter_locked(path) as locked:
        return locked


def _until(reached: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _ENOUGH_S
    while not reached():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.lock"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Starts a writer that tells its name when it has its turn; returns once it is in the queue."""
    started: list[subprocess.Popen[bytes]] = []

    def one(name: str, stuck_s: float = _ENOUGH_S) -> subprocess.Popen[bytes]:
        before = _lined_up(path)
        words = [sys.executable, "-c", _CHILD, path, path.with_name("told"), name, str(stuck_s)]
        started.append(subprocess.Popen(words, env={"PYTHONPATH": os.pathsep.join(sys.path)}))
        _until(lambda: _lined_up(path) > before and _counter_free(path))
        return started[-1]

    yield one
    for each in started:
        each.kill()
        each.wait()


def _told(path: Path) -> str:
    told = path.with_name("told")
    return told.read_text() if told.exists() else ""


def test_who_came_first_writes_first(path: Path, start: Start) -> None:
    with closing(WriterQueue(path, _ENOUGH_S)) as mine:
        mine.enter()
        children = [start(name) for name in "abcd"]
        assert _told(path) == ""
        mine.leave()
        assert [each.wait(_ENOUGH_S) for each in children] == [0] * 4
    assert _told(path) == "abcd"


def test_who_comes_back_is_behind_those_who_wait(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "SLICE_S", 0.0)
    monkeypatch.setattr(queue, "STUCK_S", _ENOUGH_S)
    with closing(WriterQueue(path, _ENOUGH_S)) as mine:
        mine.enter()
        start("a")
        start("b")
        mine.leave()
        mine.enter()
        assert _told(path) == "ab"


def test_within_its_slice_a_writer_comes_back_at_once(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "SLICE_S", _ENOUGH_S)
    with closing(WriterQueue(path, _ENOUGH_S)) as mine:
        mine.enter()
        mine.leave()
        mine.enter()
        assert _lined_up(path) == 1


def test_who_was_killed_in_the_queue_holds_up_nobody(path: Path, start: Start) -> None:
    with closing(WriterQueue(path, _ENOUGH_S)) as mine:
        mine.enter()
        killed, behind = start("a"), start("b")
        killed.kill()
        killed.wait()
        mine.leave()
        assert behind.wait(_ENOUGH_S) == 0
    assert _told(path) == "b"


def test_who_was_killed_behind_its_turn_holds_up_nobody(path: Path, start: Start) -> None:
    """Its place is free as soon as it is gone, and who is behind it does not go before the turn."""
    with closing(WriterQueue(path, _ENOUGH_S)) as mine:
        mine.enter()
        killed, behind = start("a"), start("b")
        killed.kill()
        killed.wait()
        with pytest.raises(subprocess.TimeoutExpired):
            behind.wait(0.3)
        assert _told(path) == ""
        mine.leave()
        assert behind.wait(_ENOUGH_S) == 0


def test_who_was_stopped_in_the_queue_is_passed_over(path: Path, start: Start) -> None:
    with closing(WriterQueue(path, _ENOUGH_S)) as mine:
        mine.enter()
        stopped, behind = start("a"), start("b", 0.1)
        stopped.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
        mine.leave()
        assert behind.wait(_ENOUGH_S) == 0
        assert _told(path) == "b"
        assert start("c", 0.1).wait(_ENOUGH_S) == 0
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(_ENOUGH_S) == 0
    assert _told(path) == "bca"


def test_who_waits_beside_the_line_writes_nothing(path: Path, start: Start) -> None:
    with closing(WriterQueue(path, _ENOUGH_S)) as mine, closing(WriterQueue(path, 0.2)) as other:
        other.enter(in_line=False)
        assert path.read_bytes() == b""
        with pytest.raises(RecordError, match="has held"):
            WriterQueue(path, 0.2).enter(in_line=False)
        other.leave()
        mine.enter()
        assert _lined_up(path) == 1


@pytest.mark.parametrize("stuck_s", [0.05, _ENOUGH_S])
def test_a_turn_that_does_not_come_is_an_error_and_the_next_try_works(
    path: Path, monkeypatch: pytest.MonkeyPatch, stuck_s: float
) -> None:
    monkeypatch.setattr(queue, "STUCK_S", stuck_s)
    with closing(WriterQueue(path, 0.2)) as mine, closing(WriterQueue(path, 0.2)) as other:
        mine.enter()
        with pytest.raises(RecordError, match=r"has held .*queue\.lock for 0\.2 s"):
            other.enter()
        mine.leave()
        other.enter()
        with pytest.raises(RecordError, match="has held"):
            mine.enter()


def test_who_was_stopped_with_the_counter_holds_up_nobody(path: Path) -> None:
    path.touch()
    with closing(WriterQueue(path, 0.2)) as mine, closing(WriterQueue(path, 0.2)) as other:
        with _counter_locked(path) as locked:
            assert locked
            mine.enter()
            with pytest.raises(RecordError, match="has held"):
                other.enter()
            mine.leave()
        other.enter()


@pytest.mark.parametrize("counter", [b"", b"abc", b"\xff" * 8, b"\0" * 100])
def test_the_counter_may_be_damaged(path: Path, counter: bytes) -> None:
    path.write_bytes(counter)
    with closing(WriterQueue(path, 0.2)) as mine, closing(WriterQueue(path, 0.2)) as other:
        mine.enter()
        with pytest.raises(RecordError, match="has held"):
            other.enter()
        mine.leave()
        other.enter()
