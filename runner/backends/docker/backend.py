"""The docker backend: `runner.ports.Backend` on a Docker engine."""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import psutil

from runner.backends.bpf import program_for
from runner.backends.docker.bound import look
from runner.backends.docker.engine import Engine
from runner.backends.docker.found import statuses
from runner.backends.docker.lease import FILES_PREFIX, DockerLease, remove_folder
from runner.backends.docker.plan import LABEL_OWNER, LABEL_RUN, Bound, unnamed
from runner.errors import BackendError, ProtectionMissingError
from runner.model.limits import UNLIMITED, Limits
from runner.model.profile import CgroupMode, Isolation, NetworkMode, Syscalls, WorkspaceMode
from runner.model.protection import Protection, ProtectionStatus
from runner.model.spec import SandboxSpec, Workspace
from runner.model.swept import Swept
from runner.model.usage import Usage
from runner.syscalls import refusals

_ENDED_STATES = frozenset({"created", "exited", "dead"})


class DockerBackend:
    """Builds sandboxes as containers; threads may share it."""

    def __init__(self, cache: Path | None, base_url: str | None, image: str) -> None:
        """See `create`. BackendUnavailableError: no SDK or no engine."""
        self.files_place = cache or Path(tempfile.gettempdir())
        self._base_url = base_url
        self._image = image
        self._lock = threading.Lock()
        self._leases: set[_Held] = set()
        self._left: list[_Held] = []
        self._swept = Swept()
        self._info = self._asked()

    @property
    def name(self) -> str:
        """`docker`."""
        return "docker"

    def probe(self) -> Sequence[ProtectionStatus]:
        """Build a container and look around in it."""
        try:
            lease = self.acquire(_probe_spec(), f"probe-{uuid.uuid4().hex[:12]}")
        except BackendError as error:
            return [
                ProtectionStatus(one, False, f"no container can be built: {error}", _REMEDY)
                for one in Protection
            ]
        try:
            return statuses(lease.found, self._info)
        finally:
            self._tell(Swept(left=lease.release()))

    def acquire(self, spec: SandboxSpec, run_id: str) -> DockerLease:
        """Build a container whose init is ready, with the workspace's copy in it."""
        if spec.hold is not None:
            raise BackendError("the docker backend holds no sessions; use --backend native")
        if spec.network is not NetworkMode.NONE:
            raise BackendError(
                f"the docker backend can't give a run the network {spec.network.value!r}; "
                "use a profile with `network: none`"
            )
        if spec.isolation is not Isolation.FULL:
            raise BackendError(
                f"isolation: {spec.isolation.value} is the native backend's alone; a container is "
                "isolated by namespaces: use a profile with isolation: full"
            )
        bound = None
        if spec.workspace.is_bound:
            if not self._filter(spec.syscalls):
                raise ProtectionMissingError(
                    Protection.SECCOMP,
                    "the engine is of another architecture, so set-ID bits in a folder that is "
                    "bound can't be refused as a whole",
                )
            bound = look(spec.workspace.target, self._info)
        engine = Engine(self._base_url)
        try:
            image = engine.image_id(spec.image or self._image)
            own = self._filter(spec.syscalls)
            lease = _Held(
                self, engine, spec, run_id=run_id, image=image, bound=bound, program_filter=own
            )
        except BaseException:
            engine.close()
            raise
        try:
            self._judge(lease, spec)
        except BaseException:
            self._tell(Swept(left=lease.release()))
            raise
        with self._lock:
            self._leases.add(lease)
        return lease

    def usages(self, run_ids: Collection[str]) -> Mapping[str, Usage]:
        """What the engine counted of runs, whoever holds them; see the port."""
        engine = Engine(self._base_url)
        try:
            found = {}
            for container in engine.containers(LABEL_RUN):
                run_id = container["Labels"][LABEL_RUN]
                if run_id in run_ids and container["State"] == "running":
                    found[run_id] = engine.usage(container["Id"], container["Created"])
            return found
        finally:
            engine.close()

    def kill(self, run_id: str) -> bool:
        """Kill a run's container; see the port."""
        engine = Engine(self._base_url)
        try:
            return any(
                engine.kill(container["Id"])
                for container in engine.containers(LABEL_RUN)
                if container["Labels"][LABEL_RUN] == run_id
            )
        finally:
            engine.close()

    def sweep(self) -> Swept:
        """Remove containers that never started or have ended, and files, of dead supervisors.

        A running one needs no sweeping: it ends with its supervisor's connection. And what
        releases of this process had to leave.
        """
        swept = self.take_swept() + self._sweep_containers()
        for folder in sorted(self.files_place.glob(f"{FILES_PREFIX}*")):
            owner = folder.name.removeprefix(FILES_PREFIX).rpartition("-")[0]
            if folder.lstat().st_uid == os.geteuid() and not _alive(owner):
                why = remove_folder(folder)
                swept += _swept(f"files of a run in {folder}", why)
        with self._lock:
            kept, self._left = self._left, []
        for lease in kept:
            left = lease.remove()
            swept += Swept(left=left) if left else Swept((f"what run {lease.run_id} had left",))
            self.released(lease, left, told=True)
        return swept

    def _sweep_containers(self) -> Swept:
        swept = Swept()
        engine = Engine(self._base_url)
        try:
            for container in engine.containers(LABEL_RUN):
                owner = container["Labels"].get(LABEL_OWNER, "")
                if container["State"] not in _ENDED_STATES or _alive(owner):
                    continue
                why = None
                try:
                    engine.remove(container["Id"])
                except BackendError as error:
                    why = f"{error}; look at `docker ps -a`, then run `runner clean`"
                swept += _swept(f"container of run {container['Labels'][LABEL_RUN]}", why)
        finally:
            engine.close()
        return swept

    def take_swept(self) -> Swept:
        """What builds that failed, and the close, left; see the port."""
        with self._lock:
            swept, self._swept = self._swept, Swept()
        return swept

    def close(self) -> None:
        """Release every lease that is still held; may be called twice."""
        with self._lock:
            held = list(self._leases)
        for lease in held:
            self._tell(Swept(left=lease.release()))

    def released(self, lease: _Held, left: tuple[str, ...], *, told: bool) -> None:
        """A lease was released; what it had to leave is kept. `told`: its caller hears of it."""
        with self._lock:
            self._leases.discard(lease)
            if left:
                self._left.append(lease)
        if left and not told:
            self._tell(Swept(left=left))
        if not left:
            lease.close_engine()

    def _tell(self, swept: Swept) -> None:
        with self._lock:
            self._swept += swept

    def _asked(self) -> dict[str, object]:
        engine = Engine(self._base_url)
        try:
            return engine.info()
        finally:
            engine.close()

    def _filter(self, changes: Syscalls) -> bytes:
        """The program's own seccomp filter; empty for an engine of another architecture."""
        if self._info.get("Architecture") != os.uname().machine:
            return b""
        return _compiled(changes)

    def _judge(self, lease: DockerLease, spec: SandboxSpec) -> None:
        found = {status.protection: status for status in statuses(lease.found, self._info)}
        required = set(spec.requires)
        if spec.cgroup is CgroupMode.REQUIRED:
            required.add(Protection.CGROUP)
        for protection in sorted(required):
            if not found[protection].in_force:
                raise ProtectionMissingError(protection.value, found[protection].detail)
        if lease.found.landlock_abi < spec.landlock_minimum:
            raise ProtectionMissingError(
                Protection.LANDLOCK,
                f"the kernel has ABI {lease.found.landlock_abi}, the profile asks for "
                f"{spec.landlock_minimum}",
            )
        in_force = tuple(sorted(one.value for one in found if found[one].in_force))
        weaker = [one.value for one in found if not found[one].in_force]
        if not self._filter(spec.syscalls):
            weaker += [f"seccomp:{name}" for name in unnamed(spec)]
        lease.judge(in_force, tuple(sorted(weaker)))


class _Held(DockerLease):
    """A lease that its backend knows of, with an engine connection of its own."""

    def __init__(
        self,
        backend: DockerBackend,
        engine: Engine,
        spec: SandboxSpec,
        *,
        run_id: str,
        image: str,
        bound: Bound | None,
        program_filter: bytes,
    ) -> None:
        self._backend = backend
        super().__init__(
            engine,
            spec,
            run_id=run_id,
            owner=owner_now(),
            image=image,
            bound=bound,
            program_filter=program_filter,
            files_place=backend.files_place,
        )

    def release(self) -> tuple[str, ...]:
        """As DockerLease, then the backend forgets it."""
        if self._released:
            return ()
        left = super().release()
        self._backend.released(self, left, told=self.built)
        return left

    def close_engine(self) -> None:
        """Nothing is left to be removed."""
        self._engine.close()


def _swept(what: str, why: str | None) -> Swept:
    """It was removed, or it is left for this reason."""
    return Swept((what,)) if why is None else Swept(left=(why,))


def owner_now() -> str:
    """This process, so that another can tell whether it lives: boot, pid namespace, pid, start."""
    me = psutil.Process()
    return f"{_place()}-{me.pid}-{int(me.create_time() * 100)}"


def _alive(owner: str) -> bool:
    """Whether that process lives; what belongs to another machine or namespace counts as alive."""
    place, _, rest = owner.partition("-")
    pid, _, start = rest.partition("-")
    if place != _place() or not pid.isdigit() or not start.isdigit():
        return True
    try:
        return abs(int(psutil.Process(int(pid)).create_time() * 100) - int(start)) <= 1
    except psutil.NoSuchProcess:
        return False


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip().replace("-", "")
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{boot[:16]}.{namespace}"


@cache
def _compiled(changes: Syscalls) -> bytes:
    return program_for(refusals(changes))


_REMEDY = "Start a Docker engine, build the images with `scripts/build-images`, and try again."


def _probe_spec() -> SandboxSpec:
    return SandboxSpec(
        argv=("/bin/true",),
        cwd="/",
        environment=(),
        terminal=False,
        files=(),
        workspace=Workspace(WorkspaceMode.NONE, None, "/home/agent"),
        read=(),
        image=None,
        network=NetworkMode.NONE,
        cgroup=CgroupMode.SAMPLED,
        limits=Limits(
            wall_s=30.0,
            cpu_time_s=UNLIMITED,
            cpus=1.0,
            memory_bytes=64 << 20,
            processes=16,
            output_bytes=1 << 16,
            workspace_bytes=1 << 20,
            workspace_inodes=64,
            open_files=64,
        ),
        syscalls=Syscalls(),
        requires=frozenset(),
    )
