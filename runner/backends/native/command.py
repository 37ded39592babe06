"""One command of a session: a process in a sandbox that stays, with streams and limits of its own.

It is known by its mount namespace, which no program can leave: whoever became the parent of its
processes, they are found and ended. What it leaves running when it ends by itself is the session's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from runner.backends.native import plan
from runner.backends.native.belongings import Watched, namespace_of, state_of
from runner.backends.native.cgroups import Cgroup
from runner.backends.native.launcher.inside import GO
from runner.backends.native.launcher.protocol import (
    Message,
    PeerGoneError,
    receive,
    write_plan,
)
from runner.backends.native.lease import TICK_S, UNREAD_S, not_executed
from runner.backends.native.sampling import sample
from runner.backends.native.window import Window
from runner.backends.pump import Pump
from runner.errors import BackendError
from runner.metering.limits import crossed
from runner.metering.sampled import SampledUsage
from runner.metering.usage import cpu_s
from runner.model.limits import LimitName, Unlimited
from runner.model.outcome import Ending, Termination
from runner.model.session import FileTask
from runner.model.spec import SandboxSpec
from runner.model.usage import Usage
from runner.ports import CancelToken, Streams

if TYPE_CHECKING:
    from runner.backends.native.session import NativeSession

BUILD_TIMEOUT_S = 30.0
SAMPLE_EVERY_S = 0.2
"""How often its processes are looked at: that means looking through those of the sandbox."""
QUIET_S = 0.3
"""What runs on may hold its streams: once it has ended, they are read until nothing has come for
so long."""
KILL_S = 5.0
"""What can't be ended within this takes the session with it."""


class CommandBuild:
    """The conversation with a session's builder until a command is ready to run."""

    def __init__(
        self,
        session: NativeSession,
        spec: SandboxSpec,
        run_id: str,
        cgroup: Cgroup | None,
        outer_id: int | None,
    ) -> None:
        """Nothing is asked for yet; the rest as the session has it."""
        self._session = session
        self._spec = spec
        self._run_id = run_id
        self._cgroup = cgroup
        self._outer_id = outer_id
        self._ours: dict[str, int] = {}
        self._channel: socket.socket | None = None
        self._main: Watched | None = None

    def command(self, task: FileTask | None) -> NativeCommand:
        """Have it forked and its walls built. BackendError."""
        try:
            return self._built(task)
        except BaseException:
            if self._main is not None:
                self._main.close()
                self._session.mains.discard(self._main.pid)
            for fd in self._ours.values():
                os.close(fd)
            if self._channel is not None:
                self._channel.close()
            raise

    def _built(self, task: FileTask | None) -> NativeCommand:
        with self._session.forking:
            channel = self._channel = self._posted(task)
            channel.settimeout(BUILD_TIMEOUT_S)
            process = self._main = Watched(self._hear("forked")["pid"], "command")
            self._session.mains.add(process.pid)
        if self._cgroup is not None:
            self._cgroup.add(process.pid)
        os.write(self._ours["enter"], GO)
        os.close(self._ours.pop("enter"))
        self._hear_entered()
        master = None
        if self._spec.terminal:
            message, fds = self._receive()
            if message["at"] != "terminal" or len(fds) != 1:
                raise BackendError("the sandbox gave no terminal")
            master = self._ours["master"] = fds[0]
        self._await_ready()
        channel.settimeout(None)
        command = NativeCommand(
            self._session,
            self._spec,
            channel=channel,
            process=process,
            ours=dict(self._ours),
            master=master,
        )
        self._ours = {}
        return command

    def _posted(self, task: FileTask | None) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        given = [theirs.fileno(), write_plan(*self._plan(task))]
        try:
            for name, outward in (
                ("stdin", True), ("stdout", False), ("stderr", False),
                ("enter", True), ("go", True), ("report", False),
            ):  # fmt: skip
                read, write = os.pipe2(os.O_CLOEXEC)
                self._ours[name], their = (write, read) if outward else (read, write)
                given.append(their)
                if self._outer_id is not None and name in {"stdin", "stdout", "stderr"}:
                    # So that the program may open them again by /dev/stdout and the like.
                    os.fchown(their, self._outer_id, self._outer_id)
            wall_s = self._spec.limits.wall_s
            self._session.post(None if isinstance(wall_s, Unlimited) else wall_s, tuple(given))
        finally:
            theirs.close()
            for fd in given[1:]:
                os.close(fd)
        return ours

    def _plan(self, task: FileTask | None) -> tuple[Message, list[bytes]]:
        spec = self._spec
        blobs: list[bytes] = []
        files: list[Message] = []
        for file in spec.files:
            files.append({"path": file.path, "blob": len(blobs), "executable": file.executable})
            blobs.append(file.content)
        header = {
            "argv": [] if task is not None else list(spec.argv),
            "env": dict(spec.environment),
            "cwd": spec.cwd,
            "terminal": spec.terminal,
            "files": files,
            "rlimits": plan.rlimits(spec.limits, has_cgroup=self._cgroup is not None),
            "file": None if task is None else asdict(task),
        }
        return header, blobs

    def _await_ready(self) -> None:
        text = b""
        while not text.endswith(b"\n"):
            part = os.read(self._ours["report"], 65536)
            if not part:
                raise BackendError("the command's process died while it was made ready")
            text += part
        said = json.loads(text.splitlines()[0])
        if "failed" in said:
            raise BackendError(f"{said['failed']}: {said['why']}")

    def _hear_entered(self) -> None:
        """It is in its mount namespace, which is ours to hold as long as it is told by that."""
        message, fds = self._receive()
        self._check(message, "entered")
        if len(fds) != 1:
            raise BackendError("the builder gave no namespace")
        self._ours["namespace"] = fds[0]

    def _hear(self, expected: str) -> Message:
        message, _ = self._receive()
        self._check(message, expected)
        return message

    def _check(self, message: Message, expected: str) -> None:
        if message["at"] == "failed":
            raise BackendError(f"the session can't take a command: {message['why']}")
        if message["at"] != expected:
            raise BackendError(f"the builder said {message['at']!r} instead of {expected!r}")

    def _receive(self) -> tuple[Message, list[int]]:
        if self._channel is None:  # pragma: no cover
            raise BackendError("no connection to the builder")
        try:
            return receive(self._channel, most_fds=1)
        except TimeoutError as error:
            raise BackendError(f"no command was begun within {BUILD_TIMEOUT_S:.0f} s") from error
        except PeerGoneError as error:
            raise BackendError("the session has ended; begin a new one") from error


class NativeCommand:
    """Implements `ports.Lease`."""

    def __init__(
        self,
        session: NativeSession,
        spec: SandboxSpec,
        *,
        channel: socket.socket,
        process: Watched,
        ours: dict[str, int],
        master: int | None,
    ) -> None:
        """`ours`: our ends of its pipes, and its mount namespace."""
        self._session = session
        self._spec = spec
        self._channel = channel
        self._process = process
        self._namespace = os.fstat(ours["namespace"]).st_ino
        self._ours = ours
        self._master = master
        self._sampled = SampledUsage()
        self._sampled_s = 0.0
        self._ended: Message | None = None
        self._exec_errno: int | None = None
        self._killed_for: str | None = None
        self._kill_by_s = 0.0
        self._blamed: LimitName | None = None
        self._started_s = self._ended_s = 0.0
        self._window = Window(master)
        self._used = False
        self._released = False

    @property
    def protections(self) -> tuple[str, ...]:
        """The session's."""
        return self._session.protections

    @property
    def degraded(self) -> tuple[str, ...]:
        """The session's, too."""
        return self._session.degraded

    @property
    def cpu_s(self) -> float:
        """CPU time that it has used so far, at the last look."""
        return cpu_s(self._usage()) or 0.0

    def blame(self, limit: LimitName) -> None:
        """A limit over the session was crossed while it runs: it is ended by that."""
        self._blamed = limit

    def run(self, streams: Streams, cancel: CancelToken) -> Ending:
        """Run it to its end; see the port. What it started and left goes on."""
        if self._used or self._released:
            raise BackendError("a command is run once: acquire another lease")
        self._used = True
        pump = self._make_pump(streams)
        report = self._ours.pop("report")
        try:
            pump.on_readable(self._channel.fileno(), lambda: self._hear(pump))
            pump.on_readable(report, lambda: self._read_report(pump, report))
            pump.on_readable(cancel.fileno(), lambda: self._cancelled(pump, cancel))
            self._started_s = time.monotonic()
            with contextlib.suppress(BrokenPipeError):  # killed meanwhile, which the end tells
                os.write(self._ours["go"], GO)
            os.close(self._ours.pop("go"))
            self._window.follow(streams.terminal)
            pump.run(
                until=lambda: self._over(pump),
                tick=lambda: self._tick(pump, streams),
                tick_s=TICK_S,
            )
        finally:
            pump.close()
            os.close(report)
            if self._ended is None:
                self._end_all()
        return self._ending(streams)

    def release(self) -> tuple[str, ...]:
        """Let go of it; one that has not run, or not to its end, is ended. See the port."""
        if self._released:
            return ()
        self._released = True
        if self._ended is None:
            self._end_all()
        if not self._used and self._master is not None:
            os.close(self._master)
        for name, fd in self._ours.items():
            if name != "master" and not (self._used and name in {"stdin", "stdout", "stderr"}):
                os.close(fd)
        self._channel.close()
        self._process.close()
        self._session.mains.discard(self._process.pid)
        self._session.forget(self, self.cpu_s)
        return ()

    def _make_pump(self, streams: Streams) -> Pump:
        if self._master is not None:
            for name in ("stdin", "stdout", "stderr"):
                os.close(self._ours.pop(name))
        return Pump(
            stdin_to=self._ours["stdin"] if self._master is None else self._master,
            stdout_from=self._ours["stdout"] if self._master is None else self._master,
            stderr_from=self._ours["stderr"] if self._master is None else None,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            gate=streams.gate,
            tty=self._master is not None,
        )

    def _hear(self, pump: Pump) -> None:
        pump.forget(self._channel.fileno())
        try:
            message, _ = receive(self._channel)
        except PeerGoneError:
            message = {"at": "lost"}
        self._ended = message
        self._ended_s = time.monotonic()
        if self._failed:
            self._session.look()  # what the kernel refused it may not be seen yet

    def _read_report(self, pump: Pump, report: int) -> None:
        """End of file: it was executed. A line: it could not be."""
        pump.forget(report)
        if text := os.read(report, 65536):
            self._exec_errno = json.loads(text.splitlines()[0]).get("exec")

    def _cancelled(self, pump: Pump, cancel: CancelToken) -> None:
        pump.forget(cancel.fileno())
        self._kill("cancelled")
        pump.stop_output()

    def _kill(self, why: str) -> None:
        if self._killed_for is None:
            self._killed_for = why
            self._kill_by_s = time.monotonic() + KILL_S
            self._kill_members()

    def _over(self, pump: Pump) -> bool:
        """Whether it has ended, all of it where it was killed, and its output is passed on."""
        if self._ended is None or (self._killed_for is not None and self._alive()):
            return False
        if self._blamed is not None and self._killed_for is None and self._failed:
            self._kill(self._blamed)  # it failed by itself, of what was refused to it
            return False
        return pump.drained

    @property
    def _failed(self) -> bool:
        return self._ended is not None and self._ended.get("status") != 0

    def _tick(self, pump: Pump, streams: Streams) -> None:
        now_s = time.monotonic()
        if self._killed_for is not None and self._session.ended_by is None:
            self._kill_members()
            if now_s > self._kill_by_s and (self._ended is None or self._alive()):
                self._session.end(self._killed_for)
        if self._ended is not None:
            if self._killed_for is not None:
                if now_s - self._ended_s > UNREAD_S:
                    pump.stop_output()
            elif now_s - max(self._ended_s, pump.moved_s) > QUIET_S:
                pump.end_reading()
            return
        if streams.gate.exceeded:
            self._kill(LimitName.OUTPUT)
        if now_s - self._sampled_s >= SAMPLE_EVERY_S:
            self._sampled_s = now_s
            self._sample()
        if self._blamed is not None:
            self._kill(self._blamed)
        cpu_bound = self._spec.limits.cpu_time_s
        if not isinstance(cpu_bound, Unlimited) and self.cpu_s > cpu_bound:
            self._kill(LimitName.CPU_TIME)
        wall_bound = self._spec.limits.wall_s
        if not isinstance(wall_bound, Unlimited) and now_s > self._started_s + wall_bound:
            self._kill(LimitName.WALL)
        if (
            streams.meter is not None
            and self._killed_for is None
            and not streams.meter.look(replace(self._usage(), wall_s=now_s - self._started_s))
        ):
            self._kill(LimitName.BUDGET)
        self._window.follow(streams.terminal)

    def _members(self) -> Iterator[int]:
        """Its processes. One whose namespace can't be told is taken for one of them.

        But for the first process of another command: what has not executed anything yet, and what
        reads and writes files never does, can't be looked at by an ordinary user.
        """
        with self._session.forking:  # or one could be there that nobody knows of yet
            others = self._session.mains - {self._process.pid}
            found = [pid for pid in self._session.members() if self._is_own(pid, others)]
        return iter(found)

    def _is_own(self, pid: int, others: Collection[int]) -> bool:
        try:
            return namespace_of(pid) == self._namespace
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError:
            return pid not in others

    def _alive(self) -> bool:
        return any(state_of(pid) not in {"Z", "X", ""} for pid in self._members())

    def _kill_members(self) -> None:
        for pid in self._members():
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid)
                try:
                    # With the descriptor in hand its number can't be another's any more.
                    if namespace_of(pid) == self._namespace:
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                except PermissionError:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                finally:
                    os.close(fd)

    def _end_all(self) -> None:
        """It is not wanted any more. What can't be ended within a time takes the session along."""
        with contextlib.suppress(OSError):
            self._process.kill()
        deadline_s = time.monotonic() + KILL_S
        while self._session.ended_by is None and self._alive():
            if time.monotonic() > deadline_s:
                self._session.end("cancelled")
                return
            self._kill_members()
            time.sleep(0.005)

    def _sample(self) -> None:
        import psutil  # noqa: PLC0415  (late: speed)

        samples = []
        for pid in self._members():
            with contextlib.suppress(psutil.Error):
                samples.append(sample(psutil.Process(pid)))
        if samples:
            self._sampled.feed(samples)

    def _usage(self) -> Usage:
        seen = self._sampled.usage
        if self._ended is None or self._ended["at"] != "ended":
            return seen
        user_s, system_s = self._ended["cpu_user_s"], self._ended["cpu_system_s"]
        user_s += max(0.0, (cpu_s(seen) or 0.0) - user_s - system_s)
        return replace(
            seen, wall_s=self._ended_s - self._started_s, cpu_user_s=user_s, cpu_system_s=system_s
        )

    def _ending(self, streams: Streams) -> Ending:
        ending = Ending(Termination.UNKNOWN, self._usage())
        if self._exec_errno is not None:
            return not_executed(ending, self._spec, self._exec_errno)
        told = self._ended is not None and self._ended["at"] == "ended"
        why = self._killed_for or (self._ended_with if told else self._session.ended_by)
        if why is None and not told:
            raise BackendError("the session's sandbox was ended from outside, and its runs with it")
        if why is None:
            why = self._limit_behind(streams)
        if why is None:
            return self._by_itself(ending)
        if why in set(LimitName):
            return replace(ending, termination=Termination.LIMIT, limit=LimitName(why))
        return replace(ending, termination=Termination.CANCELLED)

    @property
    def _ended_with(self) -> str | None:
        """Why the session was ended that this was killed with; None: it was not."""
        if self._ended is None or self._ended["status"] != signal.SIGKILL:
            return None
        by: str | None = self._ended["by"]
        return by

    def _limit_behind(self, streams: Streams) -> str | None:
        """The limit that made it fail by itself, before anybody looked."""
        if self._failed:
            if self._ended is not None and self._ended["scratch_full"]:
                return LimitName.WORKSPACE
            usage = self._usage()
            spent = Usage(cpu_user_s=usage.cpu_user_s, cpu_system_s=usage.cpu_system_s)
            if limit := crossed(self._spec.limits, spent):
                return limit
        return LimitName.OUTPUT if streams.gate.exceeded else None

    def _by_itself(self, ending: Ending) -> Ending:
        status: int = self._ended["status"] if self._ended is not None else 0
        if os.WIFSIGNALED(status):
            return replace(ending, termination=Termination.SIGNALED, signal=os.WTERMSIG(status))
        code = os.waitstatus_to_exitcode(status)
        return replace(ending, termination=Termination.EXITED, exit_code=code)
