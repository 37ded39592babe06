"""A clock that stands still and a backend that runs nothing: for tests of what stands above."""

from __future__ import annotations

import hashlib
import select
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from runner.errors import BackendError, ProtectionMissingError
from runner.model.limits import LimitName
from runner.model.outcome import Ending, Termination
from runner.model.protection import Protection, ProtectionStatus
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.model.usage import Usage
from runner.ports import CancelToken, OutputSink, Streams

EXITED = Ending(Termination.EXITED, Usage(wall_s=0.25), exit_code=0)
"""What a fake run comes to that was not told otherwise."""


class FakeClock:
    """Time that passes when it is told to; `runner.ports.Clock`."""

    def __init__(self, now_s: float = 1_750_000_000.0, monotonic_s: float = 1000.0) -> None:
        """Seconds since the epoch, and of CLOCK_MONOTONIC."""
        self._now_s = now_s
        self._monotonic_s = monotonic_s

    def monotonic(self) -> float:
        """Seconds of the fake CLOCK_MONOTONIC."""
        return self._monotonic_s

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass on both."""
        self._now_s += seconds
        self._monotonic_s += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does."""
        self._now_s += seconds


class MemoryContents:
    """Keeps contents in memory, by digest; `runner.ports.ContentSink`, for tests."""

    def __init__(self, most_bytes: int = 1 << 20) -> None:
        """`most_bytes`: the largest single content that is kept."""
        self.kept: dict[str, bytes] = {}
        self._most_bytes = most_bytes

    def refusal(self, size_bytes: int) -> str | None:
        """Why a content of this size would not be kept."""
        return "it is too large" if size_bytes > self._most_bytes else None

    def begin(self) -> MemoryContent:
        """The next content."""
        return MemoryContent(self.kept)


class MemoryContent:
    """One content; `runner.ports.ContentFile`."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        """`kept`: where it goes when it is whole."""
        self._kept = kept
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._data += data

    def finish(self) -> tuple[str, str | None]:
        """Digest, and that it is kept."""
        digest = hashlib.sha256(self._data).hexdigest()
        self._kept[digest] = bytes(self._data)
        return digest, None


@dataclass(frozen=True, slots=True)
class FakeRun:
    """What one run of a `FakeBackend` does."""

    ending: Ending = EXITED
    stdout: bytes = b""
    stderr: bytes = b""
    looks: tuple[Usage, ...] = ()
    """What it has used at each look of the meter; one that says no ends it."""
    until_cancelled: bool = False
    """Runs until somebody cancels it, then ends as cancelled."""
    lost: str | None = None
    """The sandbox is lost while it runs: BackendError with this message."""
    before: Callable[[SandboxSpec], object] | None = None
    """Called when the run starts, e.g. to look at what is recorded by then."""
    left: tuple[str, ...] = ()
    """What its release can't remove."""


class FakeLease:
    """`runner.ports.Lease` for one `FakeRun`."""

    def __init__(self, backend: FakeBackend, spec: SandboxSpec, run_id: str, script: FakeRun):
        """Made by `FakeBackend.acquire`."""
        self.spec = spec
        self.run_id = run_id
        self.ran = False
        self.released = False
        self._backend = backend
        self._script = script

    @property
    def protections(self) -> tuple[str, ...]:
        """The backend's, sorted."""
        return self._backend.in_force

    @property
    def degraded(self) -> tuple[str, ...]:
        """As the backend was told."""
        return self._backend.degraded

    def run(self, streams: Streams, cancel: CancelToken) -> Ending:
        """Pass the scripted output through the gate, then end as scripted."""
        if self.ran or self.released:
            raise BackendError("this sandbox was used or released already; acquire a new one")
        self.ran = True
        script = self._script
        if script.before is not None:
            script.before(self.spec)
        for name, sink, data in (
            ("stdout", streams.stdout, script.stdout),
            ("stderr", streams.stderr, script.stderr),
        ):
            _pass_on(sink, streams.gate.admit(name, data) if data else b"")
            if streams.gate.exceeded:
                return Ending(Termination.LIMIT, script.ending.usage, limit=LimitName.OUTPUT)
        for usage in script.looks:
            if streams.meter is not None and not streams.meter.look(usage):
                return Ending(Termination.LIMIT, usage, limit=LimitName.BUDGET)
        if script.lost is not None:
            raise BackendError(script.lost)
        if script.until_cancelled:
            select.select([cancel], [], [])
        if cancel.is_set:
            return Ending(Termination.CANCELLED, script.ending.usage)
        return script.ending

    def release(self) -> tuple[str, ...]:
        """Note it; the first time it tells what it was told to leave."""
        left = () if self.released else self._script.left
        self.released = True
        return left


class FakeBackend:
    """`runner.ports.Backend` in this process: nothing is run, what happens is scripted.

    `runs` are used up in order; after the last, each run exits with 0. `leases` keeps what was
    acquired, for a test to look at.
    """

    def __init__(
        self,
        runs: Iterable[FakeRun] = (),
        *,
        missing: Iterable[Protection] = (),
        degraded: Sequence[str] = (),
        swept: Swept = Swept(),  # noqa: B008  (frozen)
        unavailable: BackendError | None = None,
    ) -> None:
        """`missing` protections are withheld; `unavailable` is raised by every `acquire`."""
        self._runs = list(runs)
        self._missing = frozenset(missing)
        self._swept = swept
        self._unavailable = unavailable
        self.degraded = tuple(degraded)
        self.leases: list[FakeLease] = []
        self.closed = False

    @property
    def name(self) -> str:
        """`fake`."""
        return "fake"

    @property
    def in_force(self) -> tuple[str, ...]:
        """All protections but the missing ones, sorted."""
        return tuple(sorted(one.value for one in Protection if one not in self._missing))

    def probe(self) -> Sequence[ProtectionStatus]:
        """Every protection, in force unless it is missing."""
        return [
            ProtectionStatus(one, False, "withheld by the test", "Take it out of `missing`.")
            if one in self._missing
            else ProtectionStatus(one, True, "pretended")
            for one in Protection
        ]

    def acquire(self, spec: SandboxSpec, run_id: str) -> FakeLease:
        """The next scripted run. ProtectionMissingError if a required one is missing."""
        if self.closed:
            raise BackendError("this backend is closed")
        if self._unavailable is not None:
            raise self._unavailable
        for one in sorted(spec.requires & self._missing):
            raise ProtectionMissingError(one.value, "withheld by the test")
        script = self._runs.pop(0) if self._runs else FakeRun()
        lease = FakeLease(self, spec, run_id, script)
        self.leases.append(lease)
        return lease

    def usages(self, run_ids: Collection[str]) -> Mapping[str, Usage]:
        """None: it has no sandboxes."""
        del run_ids
        return {}

    def kill(self, run_id: str) -> bool:
        """Nothing can be ended from outside."""
        del run_id
        return False

    def sweep(self) -> Swept:
        """What it was told to have found, once."""
        return self.take_swept()

    def take_swept(self) -> Swept:
        """The same."""
        swept, self._swept = self._swept, Swept()
        return swept

    def close(self) -> None:
        """Release every lease; may be called twice."""
        self.closed = True
        for lease in self.leases:
            lease.release()


def exited(code: int, **usage: float) -> FakeRun:
    """A run that ends by itself with this exit code; `usage` as in `model.usage.Usage`."""
    return FakeRun(replace(EXITED, exit_code=code, usage=Usage(**{"wall_s": 0.25, **usage})))  # type: ignore[arg-type]


def limited(limit: LimitName) -> FakeRun:
    """A run that this limit ends."""
    return FakeRun(Ending(Termination.LIMIT, Usage(wall_s=0.25), limit=limit))


def _pass_on(sink: OutputSink, data: bytes) -> None:
    while data:
        fd = sink.fileno()
        if fd is not None:
            select.select([], [fd], [])
        try:
            data = data[sink.write(data) :]
        except BrokenPipeError:
            return
