"""A sandbox that stays, and the commands of a session that come into it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.backends.native.command import CommandBuild, NativeCommand
from runner.backends.native.launcher.protocol import PeerGoneError, send
from runner.backends.native.lease import STOPPED, NativeLease
from runner.backends.pump import Pump
from runner.errors import BackendError
from runner.metering.usage import cpu_s
from runner.model.limits import UNLIMITED, LimitName
from runner.model.protection import ProtectionStatus
from runner.model.session import FileTask, SessionProcess
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.model.usage import Usage
from runner.ports import Lease, Streams

if TYPE_CHECKING:
    import psutil

ARGV_CHARACTERS = 4096
"""Of a process's arguments, that are told."""
OPEN_WITHIN_S = 30.0
"""A command is waited with for so long until `run` has begun."""


class NativeSession(NativeLease):
    """Implements `ports.SessionLease`."""

    def __init__(self, *, outer_id: int | None, **lease: Any) -> None:
        """`outer_id`: the user outside that the sandbox's has, as root; None: the caller's own.

        `lease`: as `NativeLease` has it.
        """
        super().__init__(**lease)
        self._outer_id = outer_id
        self._guard = threading.Lock()
        self._running: set[NativeCommand] = set()
        self._charged_s = 0.0
        """CPU time of commands that have ended."""
        self._pardoned = (0, 0)
        """Processes that memory ended and forks that were refused, as far as told to somebody."""
        self._busy_s = time.monotonic()
        self._is_open = threading.Event()
        self.forking = threading.Lock()
        """Held while a command is forked, until it stands in `mains`."""
        self.mains: set[int] = set()
        """First processes of commands that have not been let go of."""

    @property
    def idle_s(self) -> float:
        """For how long no command has run; 0: one runs."""
        with self._guard:
            return 0.0 if self._running else time.monotonic() - self._busy_s

    @property
    def commands(self) -> Within:
        """Where runs of this session are built."""
        return Within(self)

    def stop(self) -> None:
        """End it; see the port."""
        self._kill(STOPPED)

    def work(self, task: FileTask) -> Lease:
        """Something with the sandbox's files; see the port."""
        spec = replace(self._spec, environment=(), files=(), hold=None)
        return self.build(spec, "", task)

    def processes(self) -> Sequence[SessionProcess]:
        """What runs in it; see the port."""
        return tuple(found for process in self._all() if (found := _told(process)) is not None)

    def end_process(self, number: int, signal: int) -> bool:
        """Send a signal to one process; see the port."""
        import psutil  # noqa: PLC0415  (late: speed)

        for process in self._all():
            if _number(process.pid) == number:
                try:
                    process.send_signal(signal)  # looks that it is the same one still
                except psutil.NoSuchProcess:
                    return False
                except psutil.AccessDenied as error:
                    raise BackendError(f"process {number} can't be sent a signal") from error
                return True
        return False

    def build(self, spec: SandboxSpec, run_id: str, task: FileTask | None = None) -> NativeCommand:
        """A command, ready to run. BackendError: the session has ended, or it can't be built."""
        if task is None and _walls(spec) != _walls(self._spec):
            raise BackendError(
                "the profile, or what stands above it, is another than when the session began, "
                "and its sandbox is as it was; begin a new session"
            )
        if not self._is_open.wait(OPEN_WITHIN_S) or self._ended is not None:
            raise BackendError("the session has ended; begin a new one")
        build = CommandBuild(self, spec, run_id, self._cgroup, self._outer_id)
        command = build.command(task)
        with self._guard:
            self._running.add(command)
        return command

    def post(self, wall_s: float | None, fds: tuple[int, ...]) -> None:
        """Hand a command to the builder. BackendError: it is gone."""
        try:
            send(self._control, {"do": "command", "wall_s": wall_s}, fds)
        except (PeerGoneError, OSError) as error:
            raise BackendError("the session has ended; begin a new one") from error

    def forget(self, command: NativeCommand, used_s: float) -> None:
        """It has ended, and used so much CPU time."""
        with self._guard:
            if command in self._running:
                self._running.discard(command)
                self._charged_s += used_s
                self._busy_s = time.monotonic()

    def members(self) -> Iterator[int]:
        """Processes of the sandbox, but for init."""
        if self._cgroup is not None:
            yield from (pid for pid in self._cgroup.members() if pid not in {0, self._init})
        else:
            yield from (process.pid for process in self._all())

    def look(self) -> None:
        """See now what the kernel has refused or ended, and whose fault it is."""
        if self._cgroup is not None and self._ended is None:
            self._look_at(self._cgroup.read())
            if (limit := self._crossed()) is not None:
                self._on_crossed(limit)

    def end(self, why: str) -> None:
        """End all of it: it can't be held to its limits any more."""
        self._kill(why)

    @property
    def ended_by(self) -> str | None:
        """Why it was ended, as far as that is known; None: it goes on."""
        if self._killed_for is not None:
            return self._killed_for
        return None if self._ended is None else str(self._ended["by"])

    def _begun(self) -> None:
        self._is_open.set()

    def _tick(self, pump: Pump, streams: Streams, started_s: float) -> None:
        hold = self._spec.hold
        if hold is not None and self.idle_s > hold.idle_s:
            self._kill(LimitName.IDLE)
        super()._tick(pump, streams, started_s)

    def _crossed(self) -> LimitName | None:
        if self._cgroup is None:
            return super()._crossed()
        ended, refused = self._pardoned
        if self._last.out_of_memory_kills > ended:
            return LimitName.MEMORY
        return LimitName.PROCESSES if self._last.forks_refused > refused else None

    def _on_crossed(self, limit: LimitName) -> None:
        """Those that run then are ended by it; what they left behind may go on."""
        with self._guard:
            running = list(self._running)
        for command in running:
            command.blame(limit)
        if self._cgroup is None and not running:
            self._kill(limit)
        self._pardoned = (self._last.out_of_memory_kills, self._last.forks_refused)

    def _so_far(self, wall_s: float) -> Usage:
        """What no command is charged with: what those that have ended left behind them."""
        return self._own(super()._so_far(wall_s))

    def _usage(self, ended: dict[str, Any]) -> Usage:
        return self._own(super()._usage(ended))

    def _own(self, usage: Usage) -> Usage:
        counted_s = cpu_s(usage)
        if counted_s is None:
            return usage
        with self._guard:
            charged_s = self._charged_s + sum(command.cpu_s for command in self._running)
        return replace(usage, cpu_user_s=max(0.0, counted_s - charged_s), cpu_system_s=0.0)

    def _all(self) -> Iterator[psutil.Process]:
        import psutil  # noqa: PLC0415  (late: speed)

        try:
            found = psutil.Process(self._builder.pid).children(recursive=True)
        except psutil.Error:
            return
        yield from (process for process in found if process.pid != self._init)


class Within:
    """Implements `ports.Backend` for the commands of one session."""

    def __init__(self, session: NativeSession) -> None:
        """They are built in its sandbox."""
        self._session = session

    @property
    def name(self) -> str:
        """`native`."""
        return "native"

    def probe(self) -> Sequence[ProtectionStatus]:
        """Nothing is tried: the sandbox stands."""
        return ()

    def acquire(self, spec: SandboxSpec, run_id: str) -> Lease:
        """A command's process; see the port."""
        return self._session.build(spec, run_id)

    def usages(self, run_ids: Collection[str]) -> Mapping[str, Usage]:
        """Not told of single commands."""
        del run_ids
        return {}

    def kill(self, run_id: str) -> bool:
        """Single commands are ended by their supervisor."""
        del run_id
        return False

    def sweep(self) -> Swept:
        """Nothing is left outside of the session's sandbox."""
        return Swept()

    def take_swept(self) -> Swept:
        """Nothing either."""
        return Swept()

    def close(self) -> None:
        """The session goes by itself."""


def _walls(spec: SandboxSpec) -> SandboxSpec:
    """What a sandbox has as a whole, whatever runs in it."""
    limits = replace(
        spec.limits,
        wall_s=UNLIMITED,
        cpu_time_s=UNLIMITED,
        output_bytes=UNLIMITED,
        open_files=UNLIMITED,
    )
    return replace(
        spec, argv=(), environment=(), terminal=False, files=(), hold=None, limits=limits
    )


def _told(process: psutil.Process) -> SessionProcess | None:
    """None: it has ended."""
    import psutil  # noqa: PLC0415  (late: speed)

    try:
        with process.oneshot():
            number = _number(process.pid)
            times = process.cpu_times()
            if number is None:
                return None
            return SessionProcess(
                number=number,
                name=process.name(),
                argv=_cut(process.cmdline()),
                cpu_s=times.user + times.system,
                memory_bytes=process.memory_info().rss,
                started_s=process.create_time(),
            )
    except psutil.Error:
        return None


def _cut(words: Sequence[str]) -> tuple[str, ...]:
    """The first of them: a process says of itself what it likes, megabytes too (execve(2))."""
    left = ARGV_CHARACTERS
    kept = []
    for word in words:
        if left <= 0:
            break
        kept.append(word[:left])
        left -= len(word) + 1
    return tuple(kept)


def _number(pid: int) -> int | None:
    """A process's own number in the sandbox (proc_pid_status(5), NSpid); None: it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return None
