"""One sandbox: held, run once, released."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runner.backends.native.belongings import Belongings, Watched
from runner.backends.native.cgroups import Reading
from runner.backends.native.collecting import collected
from runner.backends.native.launcher.listing import MOST_FDS
from runner.backends.native.launcher.protocol import PeerGoneError, receive, send
from runner.backends.native.resident import proportional_bytes
from runner.backends.native.sampling import sample
from runner.backends.native.window import Window
from runner.backends.pump import Pump
from runner.errors import BackendError
from runner.metering.limits import crossed
from runner.metering.sampled import SampledUsage
from runner.metering.usage import cpu_s
from runner.model.limits import LimitName, Unlimited
from runner.model.outcome import Change, Ending, Failure, Termination
from runner.model.spec import SandboxSpec
from runner.model.usage import Usage
from runner.ports import CancelToken, Streams

TICK_S = 0.05
"""How often limits that the kernel does not enforce by itself are looked at."""

LATE_S = 5.0
"""The builder ends a run at its wall limit; if it has not this much later, it is killed."""

FULL_LOOKS = 3
"""Without a cgroup nothing counts refused forks: so many looks in a row at the full number of
processes are taken for a run that wants more."""

UNREAD_S = 1.0
"""How long the output of a run that was ended by a limit may stand unread before it is dropped."""

STOPPED = "stopped"
"""Why a session was ended that somebody wanted no more."""

_UNFORCED: dict[str, Any] = {
    "cancelled": {"termination": Termination.CANCELLED},
    STOPPED: {"termination": Termination.EXITED, "exit_code": 0},
}
"""Ways to be ended that are no limit."""

NOT_A_PROGRAM = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC, errno.EPERM,
                           errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR})  # fmt: skip


class NativeLease:
    """Implements `ports.Lease`."""

    def __init__(
        self,
        *,
        spec: SandboxSpec,
        control: socket.socket,
        builder: Watched,
        init: int,
        stdio: tuple[int, int, int],
        master: int | None,
        belongings: Belongings,
        forget: Callable[[NativeLease], None],
        protections: tuple[str, ...],
        degraded: tuple[str, ...],
        workspace_identity: tuple[int, int] | None,
    ) -> None:
        """`stdio`: our ends of the program's pipes; `master`: its terminal instead, or None.

        `belongings`: what goes with the lease; `forget` is called when it was released.
        `workspace_identity`: device and inode of the folder that the run was given.
        """
        self._spec = spec
        self._workspace_identity = workspace_identity
        self._control = control
        self._builder = builder
        self._init = init
        self._stdio = stdio
        self._master = master
        self.belongings = belongings
        self._cgroup = belongings.cgroup
        self._forget = forget
        self._protections = protections
        self._degraded = degraded
        self._sampled = SampledUsage()
        self._last = Reading()
        self._most_processes: int | None = None
        self._ended: dict[str, Any] | None = None
        self._changes: list[Change] = []
        self._changes_truncated = False
        self._done = False
        self._ticks_after_end = 0
        self._full_looks = 0
        self._killed_for: str | None = None
        self._window = Window(master)
        self._used = False
        self._released = False

    @property
    def protections(self) -> tuple[str, ...]:
        """Names of the protections in force, sorted."""
        return self._protections

    @property
    def degraded(self) -> tuple[str, ...]:
        """What is weaker than the full tier, by name."""
        return self._degraded

    def run(self, streams: Streams, cancel: CancelToken) -> Ending:
        """Run the program to its end; see the port."""
        if self._used or self._released:
            raise BackendError("a sandbox is used once: acquire another lease")
        self._used = True
        pump = self._make_pump(streams)
        try:
            pump.on_readable(self._control.fileno(), lambda: self._hear(pump, streams))
            pump.on_readable(cancel.fileno(), lambda: self._cancelled(pump, cancel))
            started_s = time.monotonic()
            self._window.follow(streams.terminal)
            try:
                send(self._control, {"do": "run", "keep": streams.contents is not None})
            except PeerGoneError:
                self._lost()
            self._begun()
            pump.run(
                until=lambda: self._done and pump.drained,
                tick=lambda: self._tick(pump, streams, started_s),
                tick_s=TICK_S,
            )
        finally:
            pump.close()
        return self._ending(streams)

    def release(self) -> tuple[str, ...]:
        """Kill what is left and remove everything; see the port."""
        if self._released:
            return ()
        self._released = True
        self._control.close()  # the builder takes this as its end and kills init
        if not self._used:
            for fd in {fd for fd in (*self._stdio, self._master) if fd is not None and fd >= 0}:
                os.close(fd)
        left = self.belongings.remove()
        self._forget(self)
        return left

    def _make_pump(self, streams: Streams) -> Pump:
        stdin_to, stdout_from, stderr_from = self._stdio
        if self._master is None:
            return Pump(
                stdin_to=stdin_to,
                stdout_from=stdout_from,
                stderr_from=stderr_from,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                gate=streams.gate,
            )
        for fd in self._stdio:  # the terminal stands for all three, and the pump's end is its own
            os.close(fd)
        return Pump(
            stdin_to=self._master,
            stdout_from=self._master,
            stderr_from=None,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            gate=streams.gate,
            tty=True,
        )

    def _hear(self, pump: Pump, streams: Streams) -> None:
        try:
            message, fds = receive(self._control, MOST_FDS)
        except PeerGoneError:
            pump.forget(self._control.fileno())
            self._lost()
            return
        match message["at"]:
            case "ended":
                self._ended = message
                if self._cgroup is not None:
                    self._look_at(self._cgroup.read())
            case "changes":
                self._changes += collected(message["changes"], fds, streams.contents)
                with contextlib.suppress(PeerGoneError):  # told by the next word that does not come
                    send(self._control, {"do": "next"})
            case "done":
                self._changes_truncated = message["truncated"]
                self._done = True
                pump.forget(self._control.fileno())
            case "failed":
                raise BackendError(f"the sandbox failed while it ran: {message['why']}")

    def _lost(self) -> None:
        raise BackendError(
            "the sandbox's builder was killed from outside, and the run with it; "
            "the kernel's log may tell whether memory ran out on this machine"
        )

    def _cancelled(self, pump: Pump, cancel: CancelToken) -> None:
        pump.forget(cancel.fileno())
        self._kill("cancelled")
        pump.stop_output()

    def _kill(self, why: str) -> None:
        if self._killed_for is None and self._ended is None:
            self._killed_for = why
            with contextlib.suppress(PeerGoneError):
                send(self._control, {"do": "kill", "why": why})

    def _tick(self, pump: Pump, streams: Streams, started_s: float) -> None:
        if self._ended is not None:
            # A run that was ended does not wait for a reader that reads no more; one that ended
            # by itself does, as it would without us.
            self._ticks_after_end += 1
            if self._ended["by"] is not None and self._ticks_after_end * TICK_S > UNREAD_S:
                pump.stop_output()
            return
        if streams.gate.exceeded:
            self._kill(LimitName.OUTPUT)
        if self._cgroup is not None:
            self._look_at(self._cgroup.read())
        else:
            self._sample()
        if limit := self._crossed():
            self._on_crossed(limit)
        if (
            streams.meter is not None
            and self._killed_for is None
            and not streams.meter.look(self._so_far(time.monotonic() - started_s))
        ):
            self._kill(LimitName.BUDGET)
        self._window.follow(streams.terminal)
        wall_s = self._spec.limits.wall_s
        if not isinstance(wall_s, Unlimited) and time.monotonic() > started_s + wall_s + LATE_S:
            self._builder.kill()

    def _begun(self) -> None:
        """The builder has the word to go."""

    def _on_crossed(self, limit: LimitName) -> None:
        self._kill(limit)

    def _look_at(self, reading: Reading) -> None:
        self._last = reading
        seen = [n for n in (reading.processes, reading.processes_peak) if n is not None]
        if seen:
            # One of them is the sandbox's init.
            self._most_processes = max(self._most_processes or 1, max(seen) - 1)

    def _sample(self) -> None:
        import psutil  # noqa: PLC0415  (late: speed; with a cgroup nobody needs it)

        samples = []
        with contextlib.suppress(psutil.Error):
            # Init too, only for the time of those it waited for: their parents had ended before.
            for process in psutil.Process(self._builder.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    samples.append(sample(process, with_memory=process.pid != self._init))
        bound = self._spec.limits.memory_bytes
        if not isinstance(bound, Unlimited) and sum(s.rss_bytes for s in samples) > bound:
            # A hundred forks share most of their pages, which would count a hundred times.
            samples = [
                replace(s, rss_bytes=proportional_bytes(s.pid, s.rss_bytes)) if s.rss_bytes else s
                for s in samples
            ]
        if len(samples) > 1:
            self._sampled.feed(samples)
        most = self._spec.limits.processes
        threads = sum(sample.threads for sample in samples) - 1
        full = not isinstance(most, Unlimited) and threads >= most
        self._full_looks = self._full_looks + 1 if full else 0

    @property
    def _seen(self) -> Usage:
        """What sampling found of the program, without init."""
        usage = self._sampled.usage
        return usage if usage.processes is None else replace(usage, processes=usage.processes - 1)

    def _crossed(self) -> LimitName | None:
        if self._cgroup is None:
            if self._full_looks >= FULL_LOOKS:
                return LimitName.PROCESSES
            return crossed(self._spec.limits, self._seen)
        if self._last.out_of_memory_kills:
            return LimitName.MEMORY
        if self._last.forks_refused:
            return LimitName.PROCESSES
        return crossed(self._spec.limits, Usage(cpu_user_s=self._last.cpu_s, cpu_system_s=0.0))

    def _so_far(self, wall_s: float) -> Usage:
        """What was found at the last look; the end's numbers are finer."""
        counted_s = self._last.cpu_s if self._cgroup is not None else cpu_s(self._seen)
        known = counted_s is not None
        return Usage(wall_s=wall_s, cpu_user_s=counted_s, cpu_system_s=0.0 if known else None)

    def _ending(self, streams: Streams) -> Ending:
        ended = self._ended
        if ended is None:
            raise BackendError("the sandbox ended without a word")
        usage = self._usage(ended)
        ending = Ending(
            Termination.UNKNOWN,
            usage,
            changes=tuple(self._changes),
            changes_truncated=self._changes_truncated,
            workspace_identity=self._workspace_identity,
        )
        if ended["exec_errno"] is not None:
            return not_executed(ending, self._spec, ended["exec_errno"])
        by = ended["by"]
        if by in _UNFORCED:
            return replace(ending, **_UNFORCED[by])
        limit = LimitName(by) if by in set(LimitName) else None
        status = ended["status"]
        if limit is None and (status is None or status != 0 or ended["scratch_full"]):
            limit = self._limit_behind(ended, usage, streams)
        if limit is None and streams.gate.exceeded:
            limit = LimitName.OUTPUT
        if limit is not None:
            return replace(ending, termination=Termination.LIMIT, limit=limit)
        if status is None:
            return replace(ending, termination=Termination.SIGNALED, signal=int(signal.SIGKILL))
        if os.WIFSIGNALED(status):
            return replace(ending, termination=Termination.SIGNALED, signal=os.WTERMSIG(status))
        return replace(
            ending, termination=Termination.EXITED, exit_code=os.waitstatus_to_exitcode(status)
        )

    def _limit_behind(
        self, ended: dict[str, Any], usage: Usage, streams: Streams
    ) -> LimitName | None:
        """The limit that made a program fail by itself, before anybody looked."""
        if ended["scratch_full"]:
            return LimitName.WORKSPACE
        if streams.gate.exceeded:
            return LimitName.OUTPUT
        return self._crossed() or crossed(
            self._spec.limits,
            Usage(cpu_user_s=usage.cpu_user_s, cpu_system_s=usage.cpu_system_s),
        )

    def _usage(self, ended: dict[str, Any]) -> Usage:
        seen = self._seen
        memory, counted_s = self._last.memory_peak_bytes, self._last.cpu_s
        if self._cgroup is None:
            sizes = [seen.memory_peak_bytes, ended["largest_rss_bytes"]]
            memory = max((size for size in sizes if size is not None), default=None)
            counted_s = cpu_s(seen)
        # A child that nobody waits for is in no parent's account (wait(2)), but was counted; for
        # what part of it the kernel worked is not told.
        user_s, system_s = ended["cpu_user_s"], ended["cpu_system_s"]
        user_s += max(0.0, (counted_s or 0.0) - user_s - system_s)
        return Usage(
            wall_s=ended["wall_s"],
            cpu_user_s=user_s,
            cpu_system_s=system_s,
            memory_peak_bytes=memory,
            processes=self._most_processes if self._cgroup is not None else seen.processes,
        )


def not_executed(ending: Ending, spec: SandboxSpec, code: int) -> Ending:
    """How a run ended whose program could not be executed: `code` is the errno."""
    program = spec.argv[0]
    if code in (errno.ENOENT, errno.ENOTDIR):
        why = "is not there; nothing outside of the profile's root, 'read' and workspace is"
        if "/" in program:
            why = "is not in the sandbox, or the interpreter that its first line names is not"
    else:
        why = f"can't be executed: {os.strerror(code)}"
    failure = Failure("program_not_found", f"the program {program!r} {why}")
    if code not in NOT_A_PROGRAM:
        failure = Failure("program_not_started", f"the program {program!r} {why}")
    return replace(ending, termination=Termination.EXITED, exit_code=127, failure=failure)
