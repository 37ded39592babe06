"""A backend that remembers the sandbox of a session, so that commands can come into it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

from runner.model.protection import ProtectionStatus
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.model.usage import Usage
from runner.ports import Backend, Lease, SessionLease


class Holding:
    """A backend that remembers the sandbox of the session, so that commands can come into it."""

    def __init__(self, backend: Backend) -> None:
        """`backend`: what builds it."""
        self._backend = backend
        self.lease: SessionLease | None = None

    @property
    def name(self) -> str:
        """The backend's."""
        return self._backend.name

    def probe(self) -> Sequence[ProtectionStatus]:
        """See `ports.Backend`."""
        return self._backend.probe()

    def acquire(self, spec: SandboxSpec, run_id: str) -> Lease:
        """Build it; see `ports.Backend`."""
        lease = self._backend.acquire(spec, run_id)
        self.lease = cast("SessionLease", lease)  # with `spec.hold` it is one
        return lease

    def usages(self, run_ids: Collection[str]) -> Mapping[str, Usage]:
        """See `ports.Backend`."""
        return self._backend.usages(run_ids)

    def kill(self, run_id: str) -> bool:
        """See `ports.Backend`."""
        return self._backend.kill(run_id)

    def sweep(self) -> Swept:
        """See `ports.Backend`."""
        return self._backend.sweep()

    def take_swept(self) -> Swept:
        """See `ports.Backend`."""
        return self._backend.take_swept()

    def close(self) -> None:
        """It is the runner's to close."""
