"""The pump between a program's descriptors and its caller's."""

from __future__ import annotations

import os
import tty

import pytest

from runner.backends.pump import BUFFER_BYTES, Pump
from runner.errors import RunnerError
from runner.model.limits import UNLIMITED
from runner.streams import CallbackSink, FdSink, Gate, NullSink

ENOUGH = 4 * BUFFER_BYTES
BYTES = bytes(range(256)) * (ENOUGH // 256)


class Program:
    """The other ends of a pump's descriptors, as a program has them."""

    def __init__(self) -> None:
        self.stdin, self.stdin_to = os.pipe()
        self.stdout_from, self.stdout = os.pipe()
        self.stderr_from, self.stderr = os.pipe()
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)

    def pump(self, **options: object) -> Pump:
        chosen = {
            "stdin_to": self.stdin_to,
            "stdout_from": self.stdout_from,
            "stderr_from": self.stderr_from,
            "stdin": None,
            "stdout": NullSink(),
            "stderr": NullSink(),
            "gate": Gate(UNLIMITED, ENOUGH),
            **options,
        }
        return Pump(**chosen)

    def leave(self) -> None:
        for name in ("stdin", "stdout", "stderr"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)


@pytest.fixture
def program():
    made = Program()
    yield made
    made.leave()


def turn(pump: Pump, until, rounds: int = 100_000) -> None:
    """Let the pump work until something holds; fails if it never does."""
    left = iter(range(rounds))

    def check() -> bool:
        if next(left, None) is None:
            raise TimeoutError("the pump never got there")
        return until()

    pump.run(until=check, tick=lambda: None, tick_s=0.001)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_both_outputs_pass_whole_and_apart():
    before = descriptors()
    program, out, err = Program(), bytearray(), bytearray()
    gate = Gate(UNLIMITED, ENOUGH)
    pump = program.pump(stdout=CallbackSink(out.extend), stderr=CallbackSink(err.extend), gate=gate)
    written = {"stdout": 0, "stderr": 0}

    def write_some() -> bool:
        for name, count in written.items():
            fd = getattr(program, name)
            if fd >= 0 and count < ENOUGH:
                try:
                    written[name] += os.write(fd, BYTES[count : count + 65536])
                except BlockingIOError:
                    continue
            elif fd >= 0:
                os.close(fd)
                setattr(program, name, -1)
        return pump.drained

    turn(pump, write_some)
    assert bytes(out) == bytes(err) == BYTES
    assert gate.output("stdout").bytes_total == ENOUGH
    pump.close()
    pump.close()
    program.leave()
    assert descriptors() == before


@pytest.mark.parametrize("kind", ["bytes", "file", "pipe"])
def test_stdin_reaches_the_program_whole_and_ends(program, tmp_path, kind):
    read_fd = -1
    stdin: int | bytes = BYTES
    if kind == "file":
        (tmp_path / "in").write_bytes(BYTES)
        stdin = read_fd = os.open(tmp_path / "in", os.O_RDONLY)
    elif kind == "pipe":
        read_fd, write_fd = os.pipe()
        os.write(write_fd, BYTES[:40_000])
        os.close(write_fd)
        stdin = read_fd
    got, ended = bytearray(), []

    def read_some() -> bool:
        try:
            data = os.read(program.stdin, 65536)
        except BlockingIOError:
            return False
        got.extend(data)
        if not data:
            ended.append(True)
        return not data

    pump = program.pump(stdin=stdin)
    turn(pump, read_some)
    pump.close()
    assert bytes(got) == (BYTES[:40_000] if kind == "pipe" else BYTES)
    assert ended
    if read_fd >= 0:
        os.fstat(read_fd)  # the caller's own stays open
        os.close(read_fd)


def test_no_stdin_is_an_end_at_once(program):
    pump = program.pump(stdin=None)
    assert os.read(program.stdin, 1) == b""
    pump.close()


def test_a_program_that_closes_its_stdin_ends_nothing(program):
    os.close(program.stdin)
    program.stdin = -1
    out = bytearray()
    pump = program.pump(stdin=BYTES, stdout=CallbackSink(out.extend))
    os.write(program.stdout, b"still here")
    os.close(program.stdout)
    os.close(program.stderr)
    program.stdout = program.stderr = -1
    turn(pump, lambda: pump.drained)
    pump.close()
    assert bytes(out) == b"still here"


def test_a_slow_reader_stops_the_program_and_never_the_loop(program):
    """What is held is bounded; limits are looked at meanwhile; nothing is lost after."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    ticks: list[int] = []
    written = 0
    pump = program.pump(stdout=FdSink(write_fd))
    stuck = 0

    def write_some() -> bool:
        nonlocal written, stuck
        try:
            written += os.write(program.stdout, BYTES[written : written + 65536])
            stuck = 0
        except BlockingIOError:
            stuck += 1
        return stuck > 50 and len(ticks) > 3

    pump.run(until=write_some, tick=lambda: ticks.append(1), tick_s=0.001)
    assert written < ENOUGH
    os.close(program.stdout)
    os.close(program.stderr)
    program.stdout = program.stderr = -1
    got = bytearray()
    os.set_blocking(read_fd, False)

    def read_some() -> bool:
        try:
            got.extend(os.read(read_fd, 65536))
        except BlockingIOError:
            return False
        return pump.drained and len(got) == written

    turn(pump, read_some)
    assert bytes(got) == BYTES[:written]
    pump.close()
    os.close(read_fd)
    os.close(write_fd)


def test_a_reader_that_left_is_forgotten_and_the_rest_counted(program):
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    gate = Gate(UNLIMITED, ENOUGH)
    pump = program.pump(stdout=FdSink(write_fd), gate=gate)
    for _ in range(3):
        os.write(program.stdout, b"abc")
    turn(pump, lambda: gate.output("stdout").bytes_total >= 9)
    program.leave()
    turn(pump, lambda: pump.drained)
    pump.close()
    os.close(write_fd)
    assert gate.output("stdout").data == b"abcabcabc"


def test_an_output_that_cant_be_written_is_runners_failure(program):
    full = os.open("/dev/full", os.O_WRONLY)
    pump = program.pump(stderr=FdSink(full))
    os.write(program.stderr, b"lost")
    with pytest.raises(RunnerError, match="stderr can't be passed on: No space left"):
        turn(pump, lambda: pump.drained)
    pump.close()
    os.close(full)


def test_the_gate_holds_back_what_is_too_much(program):
    out, gate = bytearray(), Gate(5, ENOUGH)
    pump = program.pump(stdout=CallbackSink(out.extend), gate=gate)
    os.write(program.stdout, b"123456789")
    turn(pump, lambda: gate.exceeded)
    os.write(program.stdout, b"more")
    program.leave()
    turn(pump, lambda: pump.drained)
    pump.close()
    assert bytes(out) == b"12345"


def test_stopping_drops_what_nobody_took(program):
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    while True:
        try:
            os.write(write_fd, bytes(65536))
        except BlockingIOError:
            break
    gate = Gate(UNLIMITED, ENOUGH)
    pump = program.pump(stdout=FdSink(write_fd), gate=gate)
    os.write(program.stdout, b"abc")
    turn(pump, lambda: gate.output("stdout").bytes_total == 3)
    assert not pump.drained
    pump.stop_output()
    assert pump.drained
    pump.close()
    os.close(read_fd)
    os.close(write_fd)


def test_others_are_heard_until_they_are_forgotten(program):
    read_fd, write_fd = os.pipe()
    pump = program.pump()
    heard: list[bytes] = []

    def hear() -> None:
        heard.append(os.read(read_fd, 1))
        if len(heard) == 2:
            pump.forget(read_fd)

    pump.on_readable(read_fd, hear)
    os.write(write_fd, b"abc")
    turn(pump, lambda: len(heard) == 2)
    turns = iter(range(20))
    turn(pump, lambda: next(turns, None) is None)
    assert heard == [b"a", b"b"]
    pump.close()
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.parametrize(
    ("typed", "lines"), [(b"a\nb\n", [b"a\n", b"b\n", b""]), (b"a", [b"a", b""]), (b"", [b""])]
)
def test_a_terminals_input_ends(typed, lines):
    """Such a program reads the end, finished line or not, and stays connected."""
    master, slave = os.openpty()
    settings = tty.tcgetattr(slave)
    settings[3] &= ~tty.ECHO
    tty.tcsetattr(slave, tty.TCSANOW, settings)
    pump = Pump(
        stdin_to=master,
        stdout_from=master,
        stderr_from=None,
        stdin=typed or None,
        stdout=NullSink(),
        stderr=NullSink(),
        gate=Gate(UNLIMITED, 100),
        tty=True,
    )
    os.set_blocking(slave, False)
    got: list[bytes] = []

    def read_some() -> bool:
        try:
            got.append(os.read(slave, 100))
        except BlockingIOError:
            return False
        return got[-1] == b""

    turn(pump, read_some)
    assert got == lines
    os.close(slave)
    turn(pump, lambda: pump.drained)  # EIO: its last holder is gone
    pump.close()
