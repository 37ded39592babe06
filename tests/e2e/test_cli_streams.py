"""The streams of `runner run`: whole, as they come, and whatever stands behind them."""

from __future__ import annotations

import signal
import subprocess

import pytest
from conftest import RUNNER_COMMAND

pytestmark = pytest.mark.usefixtures("native")

EVERY_BYTE = bytes(range(256)) * 1024
COPY = """
import sys
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(data)
sys.stderr.buffer.write(data)
"""


def behind(redirection: str, *words: str, **options) -> subprocess.CompletedProcess[bytes]:
    """`runner run WORDS` as a shell starts it with this redirection."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *RUNNER_COMMAND, "run", *words],
        capture_output=True,
        timeout=120,
        check=False,
        **options,
    )


def test_every_byte_passes_both_ways(runner_home, workspace):
    done = subprocess.run(
        [*RUNNER_COMMAND, "run", "--", "python3", "-c", COPY],
        input=EVERY_BYTE,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == EVERY_BYTE
    assert done.stderr == EVERY_BYTE


def test_output_comes_and_input_goes_while_the_program_runs(runner_home, workspace):
    process = subprocess.Popen(
        [*RUNNER_COMMAND, "run", "-c", "echo one; read a; echo two $a >&2; read b; echo three $b"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    # Each answer is waited for before the next word is said: nothing is held back to the end.
    assert process.stdout.readline() == b"one\n"
    process.stdin.write(b"a\n")
    assert process.stderr.readline() == b"two a\n"
    process.stdin.write(b"b\n")
    assert process.communicate(timeout=60) == (b"three b\n", b"")
    assert process.returncode == 0


def test_a_reader_that_leaves_holds_nothing_up(runner_home, workspace):
    process = subprocess.Popen(
        [*RUNNER_COMMAND, "run", "--limit", "output=1MiB", "--", "yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_a_slow_reader_gets_all_of_it(runner_home, workspace):
    """More than the pipes and the pump hold, read only once runner can't go on without."""
    size = 2 << 20
    done = subprocess.run(
        ["bash", "-c", '"$@" | (sleep 1; wc -c)', "bash",
         *RUNNER_COMMAND, "run", "--", "head", "-c", str(size), "/dev/zero"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str(size)


def test_stdin_from_wherever(runner_home, workspace):
    (workspace / "words.txt").write_bytes(b"from a file\n")
    assert behind("< words.txt", "--", "cat").stdout == b"from a file\n"
    assert behind("< /dev/null", "--", "cat").stdout == b""
    closed = behind("<&-", "-c", "cat; echo rest")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, b"rest\n", b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_outputs_harm_neither_the_run_nor_the_log(run_cli, runner_home, workspace, closed):
    """Else the log would be opened as descriptor 1 or 2, and written to by whoever prints."""
    done = behind(closed, "-c", "echo out; echo err >&2; exit 5")
    assert done.returncode == 5
    assert done.stdout == (b"" if ">&- " in f"{closed} ".replace("2>&-", "") else b"out\n")
    assert b"Traceback" not in done.stderr
    verified = run_cli("audit", "verify")
    assert verified.returncode == 0, verified.stderr
    assert run_cli("audit", "show").stdout.rstrip().endswith("exited 5")


def test_an_output_that_cant_be_written_is_told(run_cli, runner_home, workspace):
    done = behind("> /dev/full", "--", "echo", "lost")
    assert done.returncode == 125
    assert done.stderr.startswith(b"runner: error: the run's stdout can't be passed on: No space")
    assert done.stderr.count(b"\n") == 1
    done = behind("> /dev/full", "--json", "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(b"runner: error: ")
    assert done.stderr.count(b"\n") == 1
    ends = [line for line in run_cli("audit", "show").stdout.splitlines() if "run.ended" in line]
    assert ends[0].endswith("runner_failed")
    assert ends[1].endswith("exited 0")
    assert run_cli("audit", "verify").returncode == 0


def test_the_program_gets_no_descriptor_but_its_three(runner_home, workspace):
    """A descriptor that runner was started with stays outside, and so does all that it opened."""
    done = behind(
        "9< /etc/passwd", "--", "python3", "-c", "import os; print(os.listdir('/proc/self/fd'))"
    )
    assert done.returncode == 0, done.stderr
    # The fourth is the folder that is being listed.
    assert done.stdout == b"['0', '1', '2', '3']\n"
