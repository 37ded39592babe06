"""The fakes keep the contracts that real adapters keep, and do what their script says."""

from __future__ import annotations

import threading

import pytest

from runner.errors import BackendError, ProtectionMissingError
from runner.model.limits import LimitName
from runner.model.outcome import Termination
from runner.model.protection import Protection
from runner.streams import Cancellation
from runner.testing.backend_contract import LeaseContract
from runner.testing.backend_harness import Given, run_lease
from runner.testing.fakes import FakeBackend, FakeClock, FakeRun, exited, limited


class TestFakeBackend(LeaseContract):
    def make_backend(self):
        return FakeBackend(missing=[Protection.LANDLOCK])


class _Specs(LeaseContract):
    __test__ = False

    def make_backend(self):
        return FakeBackend()


def _ran(*runs, backend=None, cancel=None, **overrides):
    spec = _Specs().base_spec(**overrides)
    backend = backend or FakeBackend(runs)
    return run_lease(backend.acquire(spec, "r"), spec, Given(), cancel)


def test_runs_come_in_order_and_then_exit_with_0():
    backend = FakeBackend([exited(3), limited(LimitName.WALL)])
    assert _ran(backend=backend).ending.exit_code == 3
    assert _ran(backend=backend).ending.limit is LimitName.WALL
    assert _ran(backend=backend).ending.exit_code == 0
    assert [lease.ran for lease in backend.leases] == [True] * 3


def test_output_passes_the_gate():
    ran = _ran(FakeRun(stdout=b"out", stderr=b"err"))
    assert (ran.stdout, ran.stderr) == (b"out", b"err")
    ran = _ran(FakeRun(stdout=b"x" * 100), output_bytes=10)
    assert (ran.ending.termination, ran.ending.limit) == (Termination.LIMIT, LimitName.OUTPUT)
    assert ran.stdout == b"x" * 10


def test_cancelling():
    with Cancellation() as cancel:
        threading.Timer(0.05, cancel.set).start()
        ran = _ran(FakeRun(until_cancelled=True), cancel=cancel)
    assert ran.ending.termination is Termination.CANCELLED


def test_failures_of_the_backend():
    with pytest.raises(BackendError, match="lost it"):
        _ran(FakeRun(lost="lost it"))
    with pytest.raises(BackendError, match="no engine"):
        _ran(backend=FakeBackend(unavailable=BackendError("no engine")))
    with pytest.raises(ProtectionMissingError):
        _ran(
            backend=FakeBackend(missing=[Protection.SECCOMP]),
            requires=frozenset({Protection.SECCOMP}),
        )


def test_what_is_done_before_a_run_is_seen():
    seen = []
    _ran(FakeRun(before=lambda spec: seen.append(spec.argv)))
    assert seen == [("/bin/true",)]


def test_the_clock_moves_when_told():
    clock = FakeClock(now_s=10.0, monotonic_s=1.0)
    clock.advance(2.5)
    clock.step(-5.0)
    assert (clock.now(), clock.monotonic()) == (7.5, 3.5)
