"""What the parts of the backends' contract suite stand on: a backend, a spec, one run of it."""

from __future__ import annotations

import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from runner.model.limits import UNLIMITED, Limits
from runner.model.outcome import Ending, Termination
from runner.model.profile import CgroupMode, NetworkMode, Syscalls, WorkspaceMode
from runner.model.protection import Protection
from runner.model.spec import SandboxSpec, Workspace
from runner.ports import Backend, ContentSink, Lease, Meter, OutputSink, Streams
from runner.streams import Cancellation, Gate, NullSink

HOME = "/home/agent"
PYTHON = "/usr/bin/python3"
SHELL = "/bin/sh"
MARK = "RUNNER_TEST_MARK"
KEPT_BYTES = 32 << 20
GONE_WITHIN_S = 10.0

LIMITS = Limits(
    wall_s=60.0,
    cpu_time_s=30.0,
    cpus=1.0,
    memory_bytes=256 << 20,
    processes=64,
    output_bytes=16 << 20,
    workspace_bytes=16 << 20,
    workspace_inodes=2000,
    open_files=256,
)
"""Room enough for an honest program; tests of a limit lower that one."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run, over."""

    ending: Ending
    stdout: bytes
    stderr: bytes
    protections: tuple[str, ...]
    degraded: tuple[str, ...]

    def exited(self, code: int = 0) -> Ran:
        """Check that it ended by itself, with this exit code; returns itself."""
        expect(
            self.ending.termination is Termination.EXITED and self.ending.exit_code == code,
            f"should have exited with {code}: {self}",
        )
        return self

    @property
    def lines(self) -> list[str]:
        """Of stdout."""
        return self.stdout.decode().splitlines()


@dataclass(slots=True)
class Given:
    """What a run gets beside its spec."""

    stdin: int | bytes | None = None
    stdout: OutputSink = field(default_factory=NullSink)
    stderr: OutputSink = field(default_factory=NullSink)
    terminal: int | None = None
    contents: ContentSink | None = None
    meter: Meter | None = None


class BackendHarness(ABC):
    """Makes backends and specs, and runs one in the other."""

    @abstractmethod
    def make_backend(self) -> Backend:
        """A backend of the kind under test; the suite closes it."""

    def base_spec(self, **overrides: Any) -> SandboxSpec:
        """Runs /bin/true in an empty home; fields of SandboxSpec, or of Limits, override."""
        limits = {name: overrides.pop(name) for name in list(overrides) if hasattr(LIMITS, name)}
        spec = SandboxSpec(
            argv=("/bin/true",),
            cwd=HOME,
            environment=(("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", HOME)),
            terminal=False,
            files=(),
            workspace=Workspace(WorkspaceMode.NONE, None, HOME),
            read=(),
            image=None,
            network=NetworkMode.NONE,
            cgroup=CgroupMode.SAMPLED,
            limits=replace(LIMITS, **limits),
            syscalls=Syscalls(),
            requires=frozenset(),
        )
        return replace(spec, **overrides)

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """One for a test; closed after it."""
        backend = self.make_backend()
        try:
            yield backend
        finally:
            backend.close()

    def run(
        self,
        *argv: str,
        given: Given | None = None,
        cancel: Cancellation | None = None,
        backend: Backend | None = None,
        mark: bool = True,
        **overrides: Any,
    ) -> Ran:
        """Run it, release it, and check that no process is left that bears this run's mark."""
        if backend is None:
            with self.backend() as own:
                return self.run(
                    *argv, given=given, cancel=cancel, backend=own, mark=mark, **overrides
                )
        spec = self.base_spec(argv=argv, **overrides)
        word = uuid.uuid4().hex
        if mark:
            spec = replace(spec, environment=(*spec.environment, (MARK, word)))
        lease = backend.acquire(spec, f"contract-{word}")
        try:
            return run_lease(lease, spec, given or Given(), cancel)
        finally:
            lease.release()
            expect_no_process_with(word)

    def shell(self, text: str, **more: Any) -> Ran:
        """`run` with `sh -c`."""
        return self.run(SHELL, "-c", text, **more)

    def python(self, text: str, *args: str, **more: Any) -> Ran:
        """`run` with `python3 -c`."""
        return self.run(PYTHON, "-c", text, *args, **more)

    def still_works(self, backend: Backend) -> None:
        """The next run of the same backend is as good as the first."""
        ran = self.shell("echo fine; exit 7", backend=backend).exited(7)
        same(ran.stdout, b"fine\n")

    @contextmanager
    def folder(self, **files: str) -> Iterator[Path]:
        """A new folder with these files in it."""
        with tempfile.TemporaryDirectory(prefix="contract-") as name:
            place = Path(name).resolve()
            for file, text in files.items():
                (place / file).write_text(text)
            yield place

    def on(self, folder: Path, mode: WorkspaceMode = WorkspaceMode.COPY_ON_WRITE) -> dict[str, Any]:
        """Overrides for a spec that works on `folder` in the way of `mode`."""
        source = None if mode is WorkspaceMode.TMPFS else str(folder)
        found: dict[str, Any] = {
            "workspace": Workspace(mode, source, str(folder)),
            "cwd": str(folder),
        }
        if mode is WorkspaceMode.BIND:
            unheld = dict.fromkeys(("workspace_bytes", "workspace_inodes"), UNLIMITED)
            found |= {**unheld, "syscalls": Syscalls(set_id_bits=False)}
        return found


def run_lease(
    lease: Lease, spec: SandboxSpec, given: Given, cancel: Cancellation | None = None
) -> Ran:
    """One run of a lease, its output kept."""
    gate = Gate(spec.limits.output_bytes, KEPT_BYTES)
    with Cancellation() as own:
        streams = Streams(
            given.stdin,
            given.stdout,
            given.stderr,
            gate,
            given.terminal,
            given.contents,
            given.meter,
        )
        ending = lease.run(streams, cancel or own)
    return Ran(
        ending,
        gate.output("stdout").data,
        gate.output("stderr").data,
        lease.protections,
        lease.degraded,
    )


def expect(holds: bool, otherwise: str) -> None:
    """AssertionError unless it holds."""
    if not holds:
        raise AssertionError(otherwise)


def same(actual: object, expected: object) -> None:
    """AssertionError unless both are equal."""
    expect(actual == expected, f"{actual!r:.2000} is not {expected!r:.2000}")


def expect_no_process_with(word: str) -> None:
    """No living process has `word` in its arguments or, where it may be read, its environment."""
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while left := processes_with(word):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"these processes outlived their run: {left}")
        time.sleep(0.05)


def processes_with(word: str) -> list[psutil.Process]:
    """Living processes that bear this mark; this one aside."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == psutil.Process().pid or process.status() == psutil.STATUS_ZOMBIE:
                continue
            named = any(word in argument for argument in process.cmdline())
            if named or word in process.environ().values():
                found.append(process)
        except psutil.Error:
            continue  # gone, or another user's
    return found


def holds_processes(ran: Ran) -> bool:
    """Whether memory and processes were held by the kernel, not by looking now and then."""
    return Protection.CGROUP.value in ran.protections


NO_LIMIT = UNLIMITED
"""For a test that needs a limit out of its way."""

Look = Callable[[bytes], object]
