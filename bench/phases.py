"""Where a run's time goes: a supervisor whose store and backend are timed at their ports."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runner import Runner
from runner.caller import Caller
from runner.clock import SystemClock
from runner.intake import build_request
from runner.model.outcome import Ending
from runner.model.protection import ProtectionStatus
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.ports import Backend, CancelToken, Lease, Store, Streams, Transaction
from runner.streams import Cancellation, NullSink
from runner.supervisor import Supervisor

NAMES = {
    "policy": "load the profile, tighten it, gather the rules",
    "decide": "read the program, decide, compile the sandbox",
    "record decided": "intent and decision made durable",
    "build": "the sandbox, up to the word to go",
    "record started": "what is in force made durable",
    "run": "the program, from the word to go until its namespace is gone",
    "collect": "last output, counters, the list of changes",
    "release": "processes gone, control group removed",
    "record ended": "outcome made durable",
    "rest": "all else in the supervisor",
}


class Watch:
    """Adds up seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began_s


class TimedStore:
    """Passes transactions on; the n-th of a run gets the n-th name."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self._store = store
        self._watch = watch
        self._names = iter([name for name in NAMES if name.startswith("record")])
        self.first_s: float | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self.first_s = self.first_s or time.perf_counter()
        with self._watch.phase(next(self._names)), self._store.transaction() as step:
            yield step

    def keep_output(self, run_id: str, stream: str, data: bytes) -> None:
        self._store.keep_output(run_id, stream, data)


class TimedBackend:
    """Passes everything on; `acquire` and the lease's steps are phases."""

    def __init__(self, backend: Backend, watch: Watch) -> None:
        self._backend = backend
        self._watch = watch
        self.name = backend.name

    def acquire(self, spec: SandboxSpec, run_id: str) -> TimedLease:
        with self._watch.phase("build"):
            return TimedLease(self._backend.acquire(spec, run_id), self._watch)

    def probe(self) -> Sequence[ProtectionStatus]:
        return self._backend.probe()

    def sweep(self) -> Swept:
        return self._backend.sweep()

    def take_swept(self) -> Swept:
        return self._backend.take_swept()

    def close(self) -> None:
        self._backend.close()


class TimedLease:
    """Splits `run` by the wall time that the builder measured."""

    def __init__(self, lease: Lease, watch: Watch) -> None:
        self._lease = lease
        self._watch = watch
        self.protections = lease.protections
        self.degraded = lease.degraded

    def run(self, streams: Streams, cancel: CancelToken) -> Ending:
        with self._watch.phase("collect"):
            ending = self._lease.run(streams, cancel)
        self._watch.seconds["run"] += ending.usage.wall_s or 0.0
        self._watch.seconds["collect"] -= ending.usage.wall_s or 0.0
        return ending

    def release(self) -> tuple[str, ...]:
        with self._watch.phase("release"):
            return self._lease.release()


def one(runner: Runner, argv: Sequence[str], folder: str) -> dict[str, float]:
    """Milliseconds by phase of one run through `runner`'s own store and backend."""
    watch = Watch()
    store = TimedStore(runner.store, watch)
    backend = TimedBackend(runner.backend(), watch)
    keep_bytes = runner.settings.keep_output_bytes.value
    began_s = time.perf_counter()
    request = build_request(argv=argv, cwd=folder)
    with watch.phase("policy"):
        policy = runner.policy(request, backend.name)
    decide_s = time.perf_counter()
    with Cancellation() as cancel:
        Supervisor(store, SystemClock(), keep_bytes).run(
            request,
            policy,
            backend=backend,
            caller=Caller(None, NullSink(), NullSink()),
            cancel=cancel,
        )
    watch.seconds["decide"] = (store.first_s or decide_s) - decide_s
    total_s = time.perf_counter() - began_s
    watch.seconds["rest"] = total_s - sum(watch.seconds.values())
    return {name: watch.seconds[name] * 1e3 for name in NAMES}
