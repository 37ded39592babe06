"""What every backend must do. A backend exists once it passes this suite.

    class TestMyBackend(BackendContract):
        def make_backend(self) -> Backend:
            return my_backend.create()

pytest finds the `test_` methods of the subclass; nothing here imports pytest. Programs in it are
`/bin/sh` and `/usr/bin/python3` one-liners. `base_spec` may be overridden to give what the
backend needs, e.g. an image.

The rules that it checks, beside those of `runner.ports`:

- A run ends when its main program ends; everything else of it is killed then.
- `processes` ends a run as soon as the kernel was seen to refuse it a fork, `memory` when the
  kernel killed one of its processes for memory, `workspace` when what it may write is full,
  `output` when the gate is exceeded, `cpu_time` and `wall` when they are used up.
- A program that is not there is `exited` with 127 and the failure `program_not_found`.

`LeaseContract` alone is for backends that run nothing, as `runner.testing.fakes.FakeBackend`.
"""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

from runner.errors import BackendError, ProtectionMissingError
from runner.model.protection import Protection
from runner.testing.backend_harness import BackendHarness, Given, expect, run_lease, same
from runner.testing.backend_limits import LimitContract
from runner.testing.backend_modes import ModeContract
from runner.testing.backend_programs import ProgramContract
from runner.testing.backend_walls import WallContract, WorkspaceContract


class LeaseContract(BackendHarness):
    """How backends and leases are handled, whatever runs in them."""

    def test_the_probe_tells_of_every_protection_once(self) -> None:
        with self.backend() as backend:
            found = list(backend.probe())
        same(sorted(one.protection for one in found), sorted(Protection))
        for one in found:
            expect(bool(one.detail), f"{one.protection} says not how, or why not")
            expect(one.in_force or bool(one.remedy), f"{one.protection} has no remedy")

    def test_a_lease_tells_its_protections(self) -> None:
        with self.backend() as backend:
            lease = backend.acquire(self.base_spec(), "contract-protections")
            try:
                same(list(lease.protections), sorted(set(lease.protections)))
                expect(
                    set(lease.protections) <= {one.value for one in Protection},
                    f"unknown words in {lease.protections}",
                )
            finally:
                lease.release()

    def test_a_missing_protection_is_refused_by_name(self) -> None:
        with self.backend() as backend:
            for status in backend.probe():
                spec = self.base_spec(requires=frozenset({status.protection}))
                try:
                    backend.acquire(spec, f"contract-{status.protection.value}").release()
                except ProtectionMissingError as error:
                    expect(not status.in_force, f"{status} is refused though it is in force")
                    same(error.protection, status.protection.value)
                else:
                    expect(status.in_force, f"{status} was granted though it is missing")

    def test_a_lease_runs_once(self) -> None:
        with self.backend() as backend:
            spec = self.base_spec()
            lease = backend.acquire(spec, "contract-once")
            try:
                run_lease(lease, spec, Given()).exited()
                _refused(lambda: run_lease(lease, spec, Given()))
            finally:
                lease.release()

    def test_releasing_twice_is_once(self) -> None:
        with self.backend() as backend:
            lease = backend.acquire(self.base_spec(), "contract-release")
            lease.release()
            lease.release()

    def test_a_released_lease_runs_nothing(self) -> None:
        with self.backend() as backend:
            spec = self.base_spec()
            lease = backend.acquire(spec, "contract-released")
            lease.release()
            _refused(lambda: run_lease(lease, spec, Given()))

    def test_two_leases_at_once(self) -> None:
        with self.backend() as backend:
            spec = self.base_spec()
            first = backend.acquire(spec, "contract-first")
            second = backend.acquire(spec, "contract-second")
            try:
                for lease in (second, first):
                    run_lease(lease, spec, Given()).exited()
            finally:
                first.release()
                second.release()

    def test_closing_twice_ends_what_is_held(self) -> None:
        backend = self.make_backend()
        spec = self.base_spec()
        lease = backend.acquire(spec, "contract-close")
        backend.close()
        backend.close()
        lease.release()
        _refused(lambda: run_lease(lease, spec, Given()))

    def test_sweeping_leaves_the_living(self) -> None:
        with self.backend() as backend:
            spec = self.base_spec()
            lease = backend.acquire(spec, "contract-sweep")
            try:
                expect(not backend.sweep().left, "a sweep left something")
                run_lease(lease, spec, Given()).exited()
            finally:
                expect(lease.release() == (), "a release left something")
            expect(lease.release() == (), "a second release told something")
            expect(not backend.take_swept(), "something was told twice")


class BackendContract(
    ProgramContract, LimitContract, WallContract, WorkspaceContract, ModeContract, LeaseContract
):
    """Subclass it and say how to make a backend."""


def _refused(call: object) -> None:
    try:
        if callable(call):
            call()
    except BackendError:
        return
    raise AssertionError("a lease that was used or released ran something")
