"""One container held for one run.

Theory of operation. A run has one container and the container has two users. Pid 1 is runner's
own init (`inside/`), sent in over the attached stdin; it is root of the container with seven
capabilities and no way to gain more. It lays down a *copy* of the workspace in a tmpfs, so that
the host's folder is not in the container at all, starts the program as a user without any
capability, watches the cgroup's counters, and is the program's parent: it knows the true wait
status, which the engine's exit code (128+n for both a signal and an exit) does not tell. When the
program ends, it kills all that is left (`kill(-1)` from pid 1 reaches every process of the
namespace at once), and only then reads the workspace: nothing that could change it is alive, and
the program could never reach init (another user, no capabilities, no ptrace).

Limits hold without the supervisor: memory, processes and CPUs are the kernel's, wall and CPU time
and disk are init's. And nothing outlives the supervisor: the container is created with
`StdinOnce`, so when the attached connection closes, for whatever reason, the engine closes init's
stdin; init ends, with it the pid namespace, and the engine removes the container.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from runner.backends.docker import boot, packing, result
from runner.backends.docker.channel import Channel, LostError
from runner.backends.docker.conversation import Conversation
from runner.backends.docker.engine import Engine
from runner.backends.docker.fetching import fetched
from runner.backends.docker.found import Found
from runner.backends.docker.inside.wire import Kind, decode_json, encode, encode_json
from runner.backends.docker.plan import Bound, Plan
from runner.backends.docker.plan import plan as make_plan
from runner.errors import BackendError
from runner.model.limits import LimitName, Unlimited
from runner.model.outcome import Ending, Termination
from runner.model.spec import SandboxSpec
from runner.model.usage import Usage
from runner.ports import CancelToken, Streams

SETUP_TIMEOUT_S = 60.0
"""For each step of init's before the program; longer when it has much to lay down."""
FILES_PREFIX = "runner-docker-"


class DockerLease:
    """A container whose init is ready; `runner.ports.Lease`."""

    def __init__(
        self,
        engine: Engine,
        spec: SandboxSpec,
        *,
        run_id: str,
        owner: str,
        image: str,
        bound: Bound | None,
        program_filter: bytes,
        files_place: Path,
    ) -> None:
        """Build it; see `plan.plan` for the words, `create` for `files_place`.

        BackendError: the engine or init could not.
        """
        self._engine = engine
        self._spec = spec
        self._container: str | None = None
        self._channel: Channel | None = None
        self._bound = bound
        self._files_place = files_place
        self._files: Path | None = None
        self._workspace_identity: tuple[int, int] | None = None
        self._used = False
        self._released = False
        self.run_id = run_id
        self._since_s = time.time()
        self.built = False
        """Whether there is a caller who hears what a release leaves."""
        try:
            self.found = self._build(run_id, owner, image, program_filter)
        except BaseException:
            self.release()
            raise
        self.built = True
        self._protections: tuple[str, ...] = ()
        self._degraded: tuple[str, ...] = ()

    @property
    def protections(self) -> tuple[str, ...]:
        """Names of the protections in force, as init found them."""
        return self._protections

    @property
    def degraded(self) -> tuple[str, ...]:
        """What is weaker than the full tier."""
        return self._degraded

    def judge(self, protections: tuple[str, ...], degraded: tuple[str, ...]) -> None:
        """Set by the backend once it has compared what was found with what is required."""
        self._protections, self._degraded = protections, degraded

    def run(self, streams: Streams, cancel: CancelToken) -> Ending:
        """Run the program to its end; see `runner.ports.Lease.run`."""
        if self._used or self._channel is None:
            raise BackendError("this sandbox was used or released already; acquire a new one")
        self._used = True
        wall_s, cpus = self._spec.limits.wall_s, self._spec.limits.cpus
        start_s = time.monotonic()
        conversation = Conversation(
            self._channel,
            streams,
            cancel,
            float("inf") if isinstance(wall_s, Unlimited) else wall_s,
            (os.cpu_count() or 1) if isinstance(cpus, Unlimited) else cpus,
        )
        try:
            heard = conversation.hold()
        except LostError:
            if conversation.heard.ended is None:
                return self._lost(time.monotonic() - start_s)
            # How it ended is known; the list of changes is cut, and of no content is anything kept.
            return result.ending(conversation.heard, self._spec.argv[0])
        ending = result.ending(heard, self._spec.argv[0])
        if streams.contents is None:
            return ending
        try:
            changes = fetched(self._channel, heard.changes, streams.contents, SETUP_TIMEOUT_S)
        except LostError:
            return ending
        return replace(ending, changes=changes, workspace_identity=self._workspace_identity)

    def release(self) -> tuple[str, ...]:
        """Kill and remove everything; see `runner.ports.Lease.release`."""
        if self._released:
            return ()
        self._released = True
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        return self.remove()

    def remove(self) -> tuple[str, ...]:
        """What is still there goes; a line for what does not. May be called again."""
        left = []
        if self._container is not None:
            try:
                self._engine.remove(self._container)
                self._container = None
            except BackendError as error:
                left.append(f"{error}; when the engine works again, run `runner clean`")
        if self._files is not None:
            if (why := remove_folder(self._files)) is None:
                self._files = None
            else:
                left.append(why)
        return tuple(f"run {self.run_id}: {why}" for why in left)

    def _build(self, run_id: str, owner: str, image: str, program_filter: bytes) -> Found:
        workspace = self._spec.workspace
        source = None if workspace.is_bound else workspace.source
        self._workspace_identity = packing.identity(source) if source is not None else None
        entries = packing.entries(source) if source is not None else ()
        self._files_place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = Path(
            tempfile.mkdtemp(prefix=f"{FILES_PREFIX}{owner}-", dir=self._files_place)
        )
        plan = make_plan(
            self._spec,
            run_id=run_id,
            owner=owner,
            image=image,
            copied=packing.measured(entries),
            bound=self._bound,
            files_folder=str(self._files),
            program_filter=program_filter,
        )
        self._hand_over(plan)
        self._container = self._engine.create(plan.create, f"runner-{run_id}")
        self._channel = channel = self._engine.attach(self._container)
        self._engine.start(self._container)
        channel.send((boot.sources(), encode_json(Kind.CONFIG, plan.config)), SETUP_TIMEOUT_S)
        if source is not None:
            channel.send(packing.frames(source, entries), SETUP_TIMEOUT_S)
        channel.send((encode(Kind.START),), SETUP_TIMEOUT_S)
        return Found.of(decode_json(channel.expect(Kind.READY, SETUP_TIMEOUT_S)))

    def _hand_over(self, plan: Plan) -> None:
        """Files that are mounted one by one stand in a folder that only this user can enter."""
        if self._files is None:
            return
        for index, file in enumerate(plan.mounted):
            path = self._files / str(index)
            path.write_bytes(file.content)
            path.chmod(0o555 if file.executable else 0o444)

    def _lost(self, wall_s: float) -> Ending:
        """Init did not live to tell: the kernel took it for memory, or it is a fault."""
        container = self._container
        if container is not None and self._engine.ran_out_of_memory(container, self._since_s):
            return Ending(
                Termination.LIMIT,
                Usage(wall_s=wall_s),
                limit=LimitName.MEMORY,
                changes_truncated=True,
            )
        raise LostError("the sandbox's container was lost while the program ran")


def remove_folder(folder: Path) -> str | None:
    """Remove it with everything in it; None, or why it is still there."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return (
            f"the folder {folder} could not be removed: {error.strerror} at {error.filename}; "
            "mend that and run `runner clean`"
        )
    return None
