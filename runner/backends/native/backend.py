"""The native backend: acquires leases from its launcher."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from runner.backends.native import cgroups, filters, outside, plan, scratch
from runner.backends.native.belongings import Belongings
from runner.backends.native.launcher.protocol import (
    Message,
    PeerGoneError,
    receive,
    send,
    write_plan,
)
from runner.backends.native.lease import NativeLease
from runner.backends.native.orphans import sweep_processes
from runner.backends.native.plan_process import plan_process
from runner.backends.native.session import NativeSession
from runner.backends.native.zygote import Zygote, can_be_delegated
from runner.errors import BackendError, ProtectionMissingError
from runner.model.profile import CgroupMode, Isolation
from runner.model.protection import (
    ALWAYS_IN_PROCESS_TIER,
    LANDLOCK_OF_PROCESS_TIER,
    NAMESPACES,
    NOT_IN_PROCESS_TIER,
    Protection,
    ProtectionStatus,
)
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.model.usage import Usage
from runner.syscall_process_tier import process_tier_refusals
from runner.syscalls import refusals

BUILD_TIMEOUT_S = 120.0
"""A build copies the workspace at the worst; beyond this something is stuck."""

START_SWEEP_S = 0.2
"""A start waits no longer for a dead supervisor's busy group: it is told, and `clean` tries on."""

OUTER_BASE = 0x52554E00
"""As root each run gets a user of its own from here ("RUN"), far from what systems hand out."""
OUTER_COUNT = 0x10000


class NativeBackend:
    """Implements `ports.Backend`."""

    def __init__(self, cache: Path) -> None:
        """`cache`: a folder that only this user may write. Nothing is started yet."""
        self._cache = cache
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._hierarchy: cgroups.Hierarchy | None = None
        self._no_hierarchy = ""
        self._leases: set[NativeLease] = set()
        self._swept = Swept()
        self._left: list[Belongings] = []

    @property
    def name(self) -> str:
        """`native`."""
        return "native"

    def acquire(self, spec: SandboxSpec, run_id: str) -> NativeLease:
        """Build a sandbox; see the port."""
        if spec.image is not None:
            raise BackendError(
                f"the native backend runs on the host's /usr and knows no image {spec.image!r}; "
                "remove 'image' from the profile or use --backend docker"
            )
        zygote, hierarchy = self._ready()
        if hierarchy is None and (
            spec.cgroup is CgroupMode.REQUIRED or Protection.CGROUP in spec.requires
        ):
            raise ProtectionMissingError(Protection.CGROUP, self._no_hierarchy)
        if spec.hold is not None and spec.isolation is Isolation.PROCESS:
            raise BackendError(
                "a session needs isolation: full, which keeps its processes together; use another "
                "profile"
            )
        refused = refusals(spec.syscalls)
        folder = None
        if spec.isolation is Isolation.PROCESS:
            spec = _for_process_tier(spec)
            refused = process_tier_refusals(refused, own_user=os.geteuid() == 0)
            folder = scratch.place(self._cache)
        build = _Build(spec, run_id, zygote, hierarchy, folder)
        try:
            lease = build.lease(filters.compiled(refused, self._cache), self._forget)
        except BaseException:
            build.abandon()
            self._keep(build.belongings, told=False)
            raise
        with self._lock:
            self._leases.add(lease)
        return lease

    def probe(self) -> Sequence[ProtectionStatus]:
        """Try every protection on this machine; see the port."""
        from runner.backends.native.probe import probe  # noqa: PLC0415  (only `doctor` needs it)

        _, hierarchy = self._ready()
        return probe(hierarchy.detail if hierarchy else None, self._no_hierarchy, self._cache)

    def usages(self, run_ids: Collection[str]) -> Mapping[str, Usage]:
        """What runs have used, whoever holds them; see the port."""
        found = {run_id: outside.usage(run) for run_id, run in outside.find(run_ids).items()}
        return {run_id: usage for run_id, usage in found.items() if usage is not None}

    def kill(self, run_id: str) -> bool:
        """End a run from outside; see the port."""
        return outside.kill(run_id)

    def sweep(self) -> Swept:
        """Groups, processes and folders of dead supervisors, and what releases had to leave."""
        _, hierarchy = self._ready()
        swept = self.take_swept() + sweep_processes()
        if hierarchy is not None:
            swept += hierarchy.sweep()
        swept += scratch.sweep(scratch.place(self._cache))
        with self._lock:
            kept, self._left = self._left, []
        for belongings in kept:
            if left := belongings.remove():
                swept += Swept(left=left)
                with self._lock:
                    self._left.append(belongings)
            else:
                swept += Swept(removed=(f"what run {belongings.run_id} had left",))
        return swept

    def take_swept(self) -> Swept:
        """What the start removed and failed builds left; see the port."""
        with self._lock:
            swept, self._swept = self._swept, Swept()
        return swept

    def close(self) -> None:
        """Release every lease and end the launcher."""
        with self._lock:
            leases = list(self._leases)
        for lease in leases:
            left = lease.release()
            with self._lock:
                self._swept += Swept(left=left)
        with self._lock:
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    def _forget(self, lease: NativeLease) -> None:
        """It was released."""
        with self._lock:
            self._leases.discard(lease)
        self._keep(lease.belongings, told=True)

    def _keep(self, belongings: Belongings, *, told: bool) -> None:
        """Remember what could not be removed, if there is any."""
        if belongings.left:
            with self._lock:
                self._left.append(belongings)
                if not told:
                    self._swept += Swept(left=belongings.left)

    def _ready(self) -> tuple[Zygote, cgroups.Hierarchy | None]:
        """The launcher, started if need be, and where groups can be made."""
        with self._lock:
            if self._zygote is not None and not self._zygote.alive:
                self._zygote.close()
                self._zygote = None
            if self._zygote is None:
                self._zygote, self._hierarchy, self._no_hierarchy = _start()
                if self._hierarchy is not None:
                    # The launcher takes its time to start: this costs none.
                    self._swept += self._hierarchy.sweep(START_SWEEP_S)
                self._swept += scratch.sweep(scratch.place(self._cache))
            return self._zygote, self._hierarchy


def _start() -> tuple[Zygote, cgroups.Hierarchy | None, str]:
    unified = cgroups.unified_has_controllers()
    rootful = os.geteuid() == 0
    if unified and not rootful and can_be_delegated():
        zygote = Zygote(delegated=True)
        try:
            zygote.await_started()
            return zygote, cgroups.find_unified_delegated(zygote.pid), ""
        except (BackendError, cgroups.NoHierarchyError) as error:
            why = str(error)
            if not zygote.alive:
                zygote.close()
                zygote = Zygote(delegated=False)
            return zygote, None, why
    zygote = Zygote(delegated=False)
    try:
        if unified and rootful:
            return zygote, cgroups.find_unified_as_root(), ""
        if unified:
            return (
                zygote,
                None,
                (
                    "the user has no systemd user manager that could delegate a control group "
                    "(log in with a session, or `loginctl enable-linger`)"
                ),
            )
        return zygote, cgroups.find_legacy(), ""
    except cgroups.NoHierarchyError as error:
        return zygote, None, str(error)


def outer_id(run_id: str, uid_map: str) -> int:
    """The host's user for one run as root: its own where the mapping of `uid_map` has room.

    `uid_map` is the text of /proc/self/uid_map (user_namespaces(7)). Never 0.
    """
    first, count = 0, 0
    for line in uid_map.splitlines():
        inside, _, length = (int(word) for word in line.split())
        if length > count:
            first, count = inside, length
    spread = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big")
    if first <= OUTER_BASE and first + count >= OUTER_BASE + OUTER_COUNT:
        return OUTER_BASE + spread % OUTER_COUNT
    room = min(OUTER_COUNT // 2, count // 2)
    if room < 1:
        raise ProtectionMissingError(
            Protection.USER_NAMESPACE, "this root has no second user to give to a sandbox"
        )
    return first + count - 1 - spread % room


class _Build:
    """The conversation with one builder until its sandbox stands."""

    def __init__(
        self,
        spec: SandboxSpec,
        run_id: str,
        zygote: Zygote,
        hierarchy: cgroups.Hierarchy | None,
        scratch_place: Path | None,
    ) -> None:
        self._spec = spec
        self._scratch_place = scratch_place
        self._run_id = run_id
        self._zygote = zygote
        self._hierarchy = hierarchy
        self._rootful = os.geteuid() == 0
        self._control: socket.socket | None = None
        self._ours: list[int] = []
        self.belongings = Belongings(run_id)

    def lease(self, seccomp: bytes, forget: Callable[[NativeLease], None]) -> NativeLease:
        spec = self._spec
        cgroup: cgroups.Cgroup | None = None
        if self._hierarchy is not None:
            try:
                cgroup = self.belongings.cgroup = self._hierarchy.create(
                    self._run_id, spec.limits, as_one=spec.hold is None
                )
            except OSError as error:
                raise BackendError(f"a control group could not be made: {error}") from error
        host = plan.Host(
            rootful=self._rootful,
            outer_id=(
                outer_id(self._run_id, Path("/proc/self/uid_map").read_text())
                if self._rootful
                else os.geteuid()
            ),
            has_cgroup=cgroup is not None,
            workspace_identity=_identity(spec),
        )
        if self._scratch_place is None:
            header, blobs = plan.plan(spec, seccomp, host)
        else:
            folder = self.belongings.folder = scratch.make(self._scratch_place, self._run_id)
            header, blobs = plan_process(spec, seccomp, host, str(folder))
        header["label"] = outside.label(self._run_id)
        builder = self._spawn(header, blobs, host)
        watched = self.belongings.add(builder, "builder")
        control = self._control
        if control is None:  # pragma: no cover
            raise BackendError("no connection to the builder")
        if self._scratch_place is None:
            self._hear("userns")
            _write_maps(builder, host)
            send(control, {"do": "continue"})
        message, _ = self._hear("init")
        init: int = message["pid"]
        self.belongings.add(init, "init")
        if cgroup is not None:
            cgroup.add(init)
        send(control, {"do": "continue"})
        message, fds = self._hear("built")
        control.settimeout(None)
        protections, degraded = self._tier(message["protections"])
        kind: Callable[..., NativeLease] = NativeLease
        if spec.hold is not None:
            kind = partial(NativeSession, outer_id=host.outer_id if host.rootful else None)
        return kind(
            spec=spec,
            control=control,
            builder=watched,
            init=init,
            stdio=(self._ours[0], self._ours[1], self._ours[2]),
            master=fds[0] if fds else None,
            belongings=self.belongings,
            forget=forget,
            protections=protections,
            degraded=degraded,
            workspace_identity=host.workspace_identity,
        )

    def abandon(self) -> None:
        """Take back everything after a failure."""
        for fd in self._ours:
            os.close(fd)
        if self._control is not None:
            self._control.close()
        self.belongings.remove()

    def _spawn(self, header: dict[str, Any], blobs: list[bytes], host: plan.Host) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(BUILD_TIMEOUT_S)
        self._control = ours
        plan_fd = write_plan(header, blobs)
        stdin_r, stdin_w = os.pipe2(os.O_CLOEXEC)
        stdout_r, stdout_w = os.pipe2(os.O_CLOEXEC)
        stderr_r, stderr_w = os.pipe2(os.O_CLOEXEC)
        self._ours = [stdin_w, stdout_r, stderr_r]
        if host.rootful:
            # So that the program may open them again by /dev/stdout and the like.
            for fd in (stdin_r, stdout_w, stderr_w):
                os.fchown(fd, host.outer_id, host.outer_id)
        try:
            return self._zygote.spawn(theirs, plan_fd, (stdin_r, stdout_w, stderr_w))
        finally:
            theirs.close()
            for fd in (plan_fd, stdin_r, stdout_w, stderr_w):
                os.close(fd)

    def _hear(self, expected: str) -> tuple[Message, list[int]]:
        if self._control is None:  # pragma: no cover
            raise BackendError("no connection to the builder")
        try:
            message, fds = receive(self._control, most_fds=1)
        except TimeoutError as error:
            raise BackendError(
                f"the sandbox was not built within {BUILD_TIMEOUT_S:.0f} s"
            ) from error
        except PeerGoneError as error:
            raise BackendError("the sandbox's builder died while it built") from error
        if message["at"] == "failed":
            protection, why = message["protection"], message["why"]
            if protection in set(Protection):
                raise ProtectionMissingError(protection, why)
            raise BackendError(f"the sandbox could not be built: {why}")
        if message["at"] != expected:
            raise BackendError(f"the builder said {message['at']!r} instead of {expected!r}")
        return message, fds

    def _tier(self, applied: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        # What has no step of its own in the inner processes was a step of the builder's, which
        # fails as a whole.
        outer = NAMESPACES if self._spec.isolation is Isolation.FULL else frozenset()
        in_force = {str(name) for name in outer} | set(applied)
        if self.belongings.cgroup is not None:
            in_force.add(Protection.CGROUP)
        missing = {str(name) for name in Protection} - in_force
        return tuple(sorted(in_force)), tuple(sorted(missing))


def _for_process_tier(spec: SandboxSpec) -> SandboxSpec:
    """With all that the tier stands on required. ProtectionMissingError: what it can't give is."""
    for protection in sorted(spec.requires & NOT_IN_PROCESS_TIER):
        raise ProtectionMissingError(protection, "isolation: process has none")
    return replace(
        spec,
        requires=spec.requires | ALWAYS_IN_PROCESS_TIER,
        landlock_minimum=max(spec.landlock_minimum, LANDLOCK_OF_PROCESS_TIER),
    )


def _identity(spec: SandboxSpec) -> tuple[int, int] | None:
    if spec.workspace.source is None:
        return None
    try:
        found = os.stat(spec.workspace.source)  # noqa: PTH116
    except OSError as error:
        raise BackendError(f"the workspace can't be opened: {error}") from error
    return found.st_dev, found.st_ino


def _write_maps(builder: int, host: plan.Host) -> None:
    """user_namespaces(7): from outside, because as root only the outside has the right to."""
    process = Path(f"/proc/{builder}")
    gid = host.outer_id if host.rootful else os.getegid()
    try:
        if not host.rootful:
            (process / "setgroups").write_text("deny")
        (process / "uid_map").write_text(f"{plan.INNER_ID} {host.outer_id} 1")
        (process / "gid_map").write_text(f"{plan.INNER_ID} {gid} 1")
    except OSError as error:
        raise ProtectionMissingError(
            Protection.USER_NAMESPACE, f"its user mapping can't be written ({error})"
        ) from error
