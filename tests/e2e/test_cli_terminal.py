"""`runner run -t`: a terminal of its own for the program, which follows the caller's."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios

import pytest
from conftest import RUNNER_COMMAND

pytestmark = pytest.mark.usefixtures("native")


class Terminal:
    """A person's terminal with `runner run -t` as its foreground job."""

    def __init__(self, *words: str) -> None:
        self.fd, slave = os.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *RUNNER_COMMAND, "run", "-t", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def read(self) -> None:
        ready, _, _ = select.select([self.fd], [], [], 60)
        if not ready:
            raise TimeoutError(f"nothing came after {self.seen!r}")
        self.seen += os.read(self.fd, 65536)

    def expect(self, text: bytes) -> None:
        while text not in self.seen:
            self.read()
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        code = self.process.wait(timeout=60)
        while select.select([self.fd], [], [], 0)[0]:
            self.read()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)
        os.close(self.slave)


@pytest.fixture
def terminal(runner_home, workspace):
    opened: list[Terminal] = []

    def start(*words: str) -> Terminal:
        opened.append(Terminal(*words))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_the_program_has_a_terminal_that_follows_the_callers(terminal):
    tty = terminal(
        "-c", "test -t 0 && test -t 1 && test -t 2 && tty && echo yes; "
        "while read x; do stty size; done; exit 9",
    )  # fmt: skip
    tty.expect(b"/dev/pts/")
    tty.expect(b"yes\r\n")
    tty.type(b"\n")
    tty.expect(b"30 100")
    tty.resize(41, 123)
    while b"41 123" not in tty.seen:
        tty.type(b"\n")
        tty.read()
    tty.type(b"\x04")  # Ctrl-D: the end of the program's input
    assert tty.end() == 9
    # The caller's terminal is as it was.
    assert termios.tcgetattr(tty.slave) == tty.before


def test_ctrl_c_is_the_programs(terminal):
    tty = terminal(
        "--", "python3", "-c",
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)",
    )  # fmt: skip
    tty.expect(b"ready")
    tty.type(b"\x03")
    assert tty.end() == 7


def test_without_it_there_is_none(run_cli, workspace):
    done = run_cli("run", "-c", "test -t 0 || test -t 1 || test -t 2 || echo none")
    assert done.stdout == "none\n"


def test_a_terminal_without_a_person(run_cli, workspace):
    """Its input ends where what was piped in ends, finished line or not."""
    done = run_cli("run", "-t", "-c", "stty -echo; test -t 0 && cat && echo end", input="a\nb")
    assert done.returncode == 0
    assert done.stdout.replace("\r", "").endswith("a\nbend\n")
