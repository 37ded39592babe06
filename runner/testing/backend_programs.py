"""The part of the contract about a program's life: words in, bytes out, how it ended."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import termios
import threading

from runner.errors import BackendError
from runner.model.outcome import Termination
from runner.model.spec import RUN_FOLDER, InjectedFile
from runner.streams import CallbackSink, Cancellation, FdSink
from runner.testing.backend_harness import (
    MARK,
    PYTHON,
    BackendHarness,
    Given,
    expect,
    expect_no_process_with,
    processes_with,
    same,
)

_RAW = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"


class ProgramContract(BackendHarness):
    """Programs run as they were asked for, and what came of them is told truly."""

    def test_exit_codes_are_the_programs_own(self) -> None:
        with self.backend() as backend:
            for code in (0, 3, 139, 255):
                self.shell(f"exit {code}", backend=backend).exited(code)

    def test_a_signal_is_told_as_such(self) -> None:
        with self.backend() as backend:
            for name, number in (("SEGV", 11), ("KILL", 9)):
                ran = self.shell(f"kill -{name} $$", backend=backend)
                same((ran.ending.termination, ran.ending.signal), (Termination.SIGNALED, number))
                same(ran.ending.exit_code, None)

    def test_a_pipe_without_a_reader_ends_the_writer(self) -> None:
        # SIGPIPE is as a program expects it, not ignored as in Python.
        ran = self.shell("(yes; echo $? >&2) | head -n 1", mark=False).exited()
        same(ran.stdout, b"y\n")
        same(ran.stderr.strip(), b"141")

    def test_argv_is_passed_byte_for_byte(self) -> None:
        words = ["two words", "a'b\"c", "line\nbreak", "", "ünï", "$HOME `id` *", "\udcff\udc80"]
        argv = (PYTHON, "-c", _RAW, "/proc/self/cmdline", *words)
        ran = self.run(*argv).exited()
        same(ran.stdout, b"".join(os.fsencode(word) + b"\0" for word in argv))

    def test_the_environment_is_exactly_what_was_given(self) -> None:
        given = (("PATH", "/usr/bin:/bin"), ("A", ""), ("B", "x=y\nz"), ("C", "\udcfe"))
        ran = self.python(_RAW, "/proc/self/environ", environment=given, mark=False).exited()
        expected = sorted(os.fsencode(f"{name}={value}") for name, value in given)
        same(sorted(ran.stdout.rstrip(b"\0").split(b"\0")), expected)

    def test_it_starts_in_the_folder_asked_for(self) -> None:
        same(self.python("import os; print(os.getcwd())", cwd="/usr").exited().lines, ["/usr"])

    def test_stdin_comes_from_bytes(self) -> None:
        data = bytes(range(256)) * 4096
        text = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
        ran = self.python(text, given=Given(stdin=data)).exited()
        same(ran.lines, [hashlib.sha256(data).hexdigest()])

    def test_stdin_comes_from_a_descriptor(self) -> None:
        reader, writer = os.pipe()
        try:
            feeder = threading.Thread(target=_feed, args=(writer, b"x" * 300_000))
            feeder.start()
            ran = self.shell("wc -c", given=Given(stdin=reader)).exited()
            feeder.join()
        finally:
            os.close(reader)
        same(int(ran.stdout), 300_000)

    def test_no_stdin_is_at_its_end(self) -> None:
        same(self.shell("wc -c").exited().stdout.strip(), b"0")

    def test_input_that_nobody_reads_holds_nothing_up(self) -> None:
        self.shell("exit 4", given=Given(stdin=b"x" * 2_000_000)).exited(4)

    def test_output_is_binary_safe_and_apart(self) -> None:
        text = (
            "import sys; data = bytes(range(256)) * 20000\n"
            "sys.stdout.buffer.write(data); sys.stderr.buffer.write(data[::-1][:100000])"
        )
        data = bytes(range(256)) * 20000
        ran = self.python(text).exited()
        expect(ran.stdout == data, f"{len(ran.stdout)} bytes came on stdout, not the same ones")
        expect(ran.stderr == data[::-1][:100000], "what came on stderr is not what was written")

    def test_output_goes_on_while_it_runs(self) -> None:
        reader, writer = os.pipe()
        answers, answer = os.pipe()
        try:
            talker = threading.Thread(target=_answer, args=(reader, answer))
            talker.start()
            text = 'echo ask; read word; echo "got $word"'
            given = Given(stdin=answers, stdout=FdSink(writer))
            ran = self.shell(text, given=given).exited()
            talker.join()
        finally:
            for fd in (reader, writer, answers):
                os.close(fd)
        same(ran.lines, ["ask", "got it"])

    def test_a_program_that_is_not_there(self) -> None:
        with self.backend() as backend:
            for name in ("no-such-program", "/no/such/program"):
                ran = self.run(name, backend=backend).exited(127)
                failure = ran.ending.failure
                expect(failure is not None, "nothing tells why")
                if failure is not None:
                    same(failure.code, "program_not_found")
                    expect(name in failure.message, f"{failure.message!r} does not name it")
            self.still_works(backend)

    def test_exit_127_by_itself_is_no_failure(self) -> None:
        same(self.shell("exit 127").exited(127).ending.failure, None)

    def test_a_daemon_dies_with_the_run(self) -> None:
        text = (
            "import os, sys, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0: time.sleep(1000)\n"
            "    os._exit(0)\n"
            "os.wait()"
        )
        with self.backend() as backend:
            self.python(text, backend=backend).exited()
            self.still_works(backend)

    def test_a_child_that_holds_stdout_does_not_hold_the_run(self) -> None:
        same(self.shell("sleep 1000 & echo done").exited().stdout, b"done\n")

    def test_cancelling_ends_it(self) -> None:
        text = "import signal, time; signal.signal(15, signal.SIG_IGN)\nprint(1, flush=True)\n"
        with self.backend() as backend:
            with Cancellation() as cancel:
                given = Given(stdout=CallbackSink(lambda _: cancel.set()))
                ran = self.python(
                    text + "time.sleep(1000)", given=given, cancel=cancel, backend=backend
                )
            same(ran.ending.termination, Termination.CANCELLED)
            self.still_works(backend)

    def test_cancelled_before_it_began(self) -> None:
        with Cancellation() as cancel:
            cancel.set()
            ran = self.shell("sleep 1000", cancel=cancel)
        same(ran.ending.termination, Termination.CANCELLED)

    def test_another_process_sees_it_and_ends_it(self) -> None:
        """By another object of the backend's: what matters is that it did not make the sandbox."""
        seen: list[object] = []
        text = f"import os, time; print(os.environ[{MARK!r}], flush=True); time.sleep(1000)"
        with self.backend() as backend, self.backend() as other:

            def look(data: bytes) -> None:
                run_id = f"contract-{data.decode().strip()}"
                usages = other.usages([run_id, "contract-of-nobody"])
                seen.append([*usages] == [run_id])
                seen.append(usages[run_id].wall_s is not None)
                seen.append((usages[run_id].memory_peak_bytes or 0) > 100_000)
                seen.append(not other.kill("contract-of-nobody"))
                seen.append(other.kill(run_id))

            try:
                ran = self.python(text, given=Given(stdout=CallbackSink(look)), backend=backend)
            except BackendError:
                pass  # its sandbox was lost, as far as it knows
            else:
                same((ran.ending.termination, ran.ending.signal), (Termination.SIGNALED, 9))
            same(seen, [True] * 5)
            self.still_works(backend)

    def test_usage_is_measured(self) -> None:
        text = "x = bytearray(40 << 20)\nfor i in range(2_000_000): x[i % 997 * 40000] = 1\n"
        usage = self.python(text).exited().ending.usage
        expect((usage.wall_s or 0) > 0, f"no wall time in {usage}")
        expect((usage.cpu_user_s or 0) > 0, f"no CPU time in {usage}")
        same((usage.tokens, usage.cost_usd, usage.requests), (None, None, None))
        for value in (usage.memory_peak_bytes, usage.processes):
            expect(value is None or value > 0, f"0 for what was not measured in {usage}")

    def test_a_terminal(self) -> None:
        ours, theirs = os.openpty()
        try:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
            text = "import os; print([os.isatty(n) for n in range(3)], os.get_terminal_size())"
            ran = self.python(text, given=Given(terminal=theirs), terminal=True).exited()
        finally:
            os.close(ours)
            os.close(theirs)
        same(ran.stdout, b"[True, True, True] os.terminal_size(columns=101, lines=33)\r\n")

    def test_injected_files_have_exactly_their_bytes(self) -> None:
        script = InjectedFile(f"{RUN_FOLDER}/a.sh", b'#!/bin/sh\necho ran "$@"\n', executable=True)
        data = InjectedFile(f"{RUN_FOLDER}/data", bytes(range(256)))
        text = f"cat {data.path}; {script.path} x; echo no > {data.path} || rm -f {data.path}"
        ran = self.shell(f"{text}; cat {data.path}", files=(script, data))
        same(ran.stdout, data.content + b"ran x\n" + data.content)

    def test_the_program_is_not_root_outside(self) -> None:
        seen: list[int] = []
        with Cancellation() as cancel:

            def look(data: bytes) -> None:
                for process in processes_with(data.decode().strip()):
                    seen.extend(process.uids())
                cancel.set()

            word = f"look-{os.urandom(8).hex()}"
            text = f"import time, sys; print({word!r}, flush=True); time.sleep(1000)"
            self.run(PYTHON, "-c", text, given=Given(stdout=CallbackSink(look)), cancel=cancel)
        expect(bool(seen), "the program was not found among the processes")
        expect(0 not in seen, "the program is root outside of the sandbox")
        expect_no_process_with(word)


def _feed(fd: int, data: bytes) -> None:
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _answer(reader: int, answer: int) -> None:
    os.read(reader, 100)
    os.write(answer, b"it\n")
    os.close(answer)
