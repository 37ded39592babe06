"""The seams: what the supervisor needs from the outside, as Protocols.

Adapters implement these and nothing in the core names an adapter. A backend or a store exists
once it passes its contract suite in `runner.testing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from runner.books import Books
from runner.model.action import Action
from runner.model.api_key import ApiKey
from runner.model.approval import Approval
from runner.model.budget import Account, Bucket, Override, Window
from runner.model.checkpoints import Unsent
from runner.model.decision import Decision
from runner.model.event import AuditEvent, EventDraft
from runner.model.keeping import KeepBounds
from runner.model.kill import Kill, KillScope
from runner.model.loop_guard import Guarded
from runner.model.outcome import Ending
from runner.model.principal import Principal
from runner.model.protection import ProtectionStatus
from runner.model.rule import CountOf
from runner.model.session import FileTask, SessionProcess
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept
from runner.model.usage import Usage


class Clock(Protocol):
    """Time, so that tests can set it."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""


class DecisionPoint(Protocol):
    """Answers whether an action may happen. Pure: no I/O, same answer for the same action."""

    @property
    def digest(self) -> str:
        """`sha256:` and hex over every rule that is asked."""

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """Whose earlier runs, within how many seconds, an action's `facts` must tell."""

    @property
    def follows_links(self) -> bool:
        """Whether links that paths go through, which an action's `facts` tell, can matter."""

    def decide(self, action: Action) -> Decision:
        """Never raises on any action; what can't be evaluated is a deny that says so."""


class CancelToken(Protocol):
    """Tells a run in progress to end; may be set from another thread or a signal handler."""

    def fileno(self) -> int:
        """Becomes readable when set, and stays so."""

    @property
    def is_set(self) -> bool:
        """Whether somebody asked for the end."""


class OutputSink(Protocol):
    """Where one stream of a run goes on to."""

    def fileno(self) -> int | None:
        """A descriptor to wait on before `write`, or None when `write` never blocks."""

    def write(self, data: bytes) -> int:
        """Take at least one byte of `data` and return how many. BrokenPipeError: nobody reads."""


class OutputGate(Protocol):
    """Between a run's output and the world: counts, hashes, keeps; closes at the limit."""

    def admit(self, stream: str, data: bytes) -> bytes:
        """Bytes of `data` that may pass on (`stdout` or `stderr`); fewer: the limit is reached."""

    @property
    def exceeded(self) -> bool:
        """Whether the output limit was crossed."""


class ContentFile(Protocol):
    """The content of one changed file, on its way to where it is kept."""

    def write(self, data: bytes) -> None:
        """Take the next bytes; what can't be written is told by `finish`."""

    def finish(self) -> tuple[str, str | None]:
        """SHA-256 of all that came, hex, and why it is not kept (a clause), or None: it is."""


class ContentSink(Protocol):
    """Where the contents of what a run changed are kept. Never raises for want of room."""

    def refusal(self, size_bytes: int) -> str | None:
        """Why a content of this size would not be kept (a clause), or None: there is room."""

    def begin(self) -> ContentFile:
        """The next content; one at a time."""


class ChangeKeeper(ContentSink, Protocol):
    """Takes in what one run changed."""

    kept_bytes: int
    """Of all contents so far."""

    def finish(self, manifest: bytes) -> str | None:
        """Make all of it durable; why it could not be (a clause), and then nothing is kept."""

    def abandon(self) -> None:
        """Keep nothing of this run; may be called twice."""


class HeldChanges(Protocol):
    """What is kept of one run, held by nobody else."""

    def manifest(self) -> bytes:
        """The list, as `ChangeKeeper.finish` was given it."""

    def done(self) -> frozenset[int]:
        """Numbers of the changes in the list that were applied already."""

    def open(self, sha256: str) -> int:
        """A descriptor to read the content from; StateError: it is not there or not the same."""

    def settle(self, done: frozenset[int], needed: frozenset[str]) -> None:
        """Note what was applied, durably; remove all contents but the `needed` ones."""

    def remove(self) -> None:
        """All of it."""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run of which changes are kept."""

    run_id: str
    kept_s: float
    """Seconds since the epoch."""
    size_bytes: int
    whole: bool
    """False: its supervisor died while it kept them."""


class ChangeArchive(Protocol):
    """Where the contents of what runs changed are kept until they are applied or discarded."""

    def keeper(self, run_id: str) -> ChangeKeeper | None:
        """For one run that begins; None: contents are not kept."""

    def held(self, run_id: str) -> AbstractContextManager[HeldChanges | None]:
        """What is kept of a run, for a block; StateError: somebody else holds it."""

    def runs(self) -> Sequence[KeptRun]:
        """What is kept, oldest first."""

    def discard(self, run_id: str) -> bool:
        """Remove what is kept of a run; False: somebody holds it, or it is gone."""

    def sweep_is_due(self, every_s: float) -> bool:
        """Whether nobody swept for so long; notes that somebody does now."""


class Meter(Protocol):
    """Hears what a run has used so far, and says whether it may go on."""

    def look(self, usage: Usage) -> bool:
        """False: a budget is used up; end the run with `LimitName.BUDGET`.

        A lease calls it a few times a second, from the thread that watches the run, with what it
        has measured until then (a field that it does not measure is None). It costs little but now
        and then, when it has the ledger write. RecordError: the ledger can't; the run has to end.
        """


class Observer(Protocol):
    """Told of one run while it goes on, by the thread that carries it. Returns soon, never raises.

    What it is told is recorded already; it has no say.
    """

    def asked(self, approval: Approval) -> None:
        """It waits for the answer to this; told before `decided`, perhaps more than once."""

    def decided(self, run_id: str, decision: Decision) -> None:
        """The run stands in the log; of a denied one this is all that comes."""

    def used(self, usage: Usage) -> None:
        """What it has used so far, a few times a second; see `Meter.look`."""


@dataclass(frozen=True, slots=True)
class Streams:
    """A run's connections to whoever asked for it."""

    stdin: int | bytes | None
    """A descriptor to read from, the bytes themselves, or None for an empty input."""
    stdout: OutputSink
    stderr: OutputSink
    gate: OutputGate
    terminal: int | None = None
    """Descriptor of the caller's terminal when the run has one; its size is followed."""
    contents: ContentSink | None = None
    """Where the contents of what the run changed go; None: only the list is made."""
    meter: Meter | None = None
    """Asked while the run goes on; None: no budget concerns it."""


class Lease(Protocol):
    """A sandbox held: built, nothing of the program has run yet. Used once."""

    @property
    def protections(self) -> tuple[str, ...]:
        """Names of the protections in force (`model.protection`), sorted."""

    @property
    def degraded(self) -> tuple[str, ...]:
        """What is weaker than the full tier, by name; empty when nothing is."""

    def run(self, streams: Streams, cancel: CancelToken) -> Ending:
        """Run the program to its end within the spec's limits; the whole tree is dead after.

        Exactly once. Never raises for what the program did; BackendError: the sandbox was lost.
        """

    def release(self) -> tuple[str, ...]:
        """Kill what is left and remove everything it had on the machine.

        Returns a line for each thing that could not be removed: why, and what to do. The backend
        keeps those for its next sweep. Called again, it does nothing and returns nothing.
        """


class SessionLease(Lease, Protocol):
    """A sandbox that stays: what a backend gives for a spec with `hold`.

    `run` goes on until it is ended: by its limits of lifetime and idleness, by `stop`, or by the
    token. Meanwhile the rest may be called, from any thread.
    """

    @property
    def commands(self) -> Backend:
        """Where the session's runs are built: their leases are processes of this sandbox.

        Such a lease's protections are the session's. What its program leaves behind when it ends by
        itself goes on; where it is ended, all of it is. Limits over the sandbox as a whole
        (`memory`, `processes`) end the commands that run when they are crossed.
        """

    @property
    def idle_s(self) -> float:
        """For how long no command has run; 0: one runs."""

    def stop(self) -> None:
        """Nobody wants it any more: `run` ends as exited with 0."""

    def work(self, task: FileTask) -> Lease:
        """Something with its files, to be run like a command, in the sandbox's own view of them.

        Content goes over stdin and stdout; exit code 0: done. On stderr is a JSON object: what is
        to be told, or `errno` and `why`. BackendError: the session has ended.
        """

    def processes(self) -> Sequence[SessionProcess]:
        """What runs in it, all commands together."""

    def end_process(self, number: int, signal: int) -> bool:
        """Send a signal to one of those; False: there is none of that number."""


class Backend(Protocol):
    """Builds sandboxes."""

    @property
    def name(self) -> str:
        """`native`, `docker`, …"""

    def probe(self) -> Sequence[ProtectionStatus]:
        """Try every protection on this machine, one by one; nothing is guessed."""

    def acquire(self, spec: SandboxSpec, run_id: str) -> Lease:
        """Build a sandbox; ProtectionMissingError if a required one is withheld.

        With `spec.hold` a `SessionLease`; BackendError where there are no sessions.
        """

    def usages(self, run_ids: Collection[str]) -> Mapping[str, Usage]:
        """What runs have used so far that any process of this user holds on this machine.

        Of those that have no sandbox here now, nothing; `wall_s` is how long the sandbox stands.
        """

    def kill(self, run_id: str) -> bool:
        """End such a run's sandbox from outside, whatever its supervisor does; False: it has none.

        The supervisor finds the sandbox lost. BackendError: it can't be done.
        """

    def sweep(self) -> Swept:
        """Remove what dead supervisors left, and what this one could not remove before.

        Tells what `take_swept` would, too. BackendUnavailableError: it can't work here at all.
        """

    def take_swept(self) -> Swept:
        """What was cleaned up without anybody asking since this was last called.

        At a start, after a build that failed, at the close. What a release could not remove, it
        told itself.
        """

    def close(self) -> None:
        """End everything this backend started; may be called twice."""


@dataclass(frozen=True, slots=True)
class Head:
    """The state of the log."""

    size: int
    """Number of events."""
    last_hash: str
    """Leaf hash of the last event, hex; 64 zeros for an empty log."""
    root: str
    """RFC 9162 Merkle tree root over all leaf hashes, hex."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What somebody used so far, as the ledger has it."""

    scope: str
    """`agent` or `uid`."""
    key: str
    calls: int
    wall_s: float


class Transaction(Books, Protocol):
    """Events and ledger entries that become durable together, or not at all.

    Only one at a time is open, over all threads and processes of a store: what it counts holds
    until it ends, with what this one and those before it did, and nobody else's.
    """

    def append(self, draft: EventDraft) -> AuditEvent:
        """Give the event its place in the log.

        To the `data` of one that ends a run (`run.ended`, `run.recovered`) the store adds `events`:
        how many events the run has, this one included.
        """

    def open_run(self, run_id: str, principal: Principal, profile: str, backend: str) -> None:
        """Note that this supervisor holds a run; charges the call to the agent, parent and uid."""

    def charge(
        self,
        account: Account,
        buckets: Sequence[Bucket],
        amount: int,
        run_id: str | None = None,
    ) -> None:
        """Add to a budget's counter, 0 or more, in each of these buckets.

        `run_id`: the open run that used it, of what flows: if that dies, the event that closes it
        tells what it was charged in all.
        """

    def hold(self, run_id: str, account: Account, window: Window | None, amount: int) -> None:
        """Set what an open run holds of a budget; 0: nothing any more.

        `window`: where it is charged if it is still held when the run is closed; None: nowhere.
        """

    def warned(self, account: Account, percent: int) -> None:
        """Note that it was warned now that so much is used."""

    def set_override(self, account: Account, override: Override | None) -> None:
        """Let this hold in the place of what is stated; None: what is stated."""

    def forget(self, account: Account) -> None:
        """Begin its windows anew; history stays, and what open runs hold."""

    def remember_loop(self, guarded: Guarded, forgotten_s: float) -> None:
        """Set how a command stands, and when that does not count any more.

        Nobody has more than a thousand: those that would be forgotten first go.
        """

    def forget_loop(self, key: str) -> None:
        """Begin a command anew."""

    def keep_approval(self, approval: Approval) -> None:
        """Write it, in the place of what stood there under its id."""

    def forget_approvals(self, before_s: float) -> None:
        """Drop those that expired before that."""

    def set_kill(self, kill: Kill) -> None:
        """Let it hold, in the place of one of the same scope and name."""

    def lift_kill(self, scope: KillScope, name: str) -> bool:
        """Let it hold no more; False: there is none."""

    def add_api_key(self, key: ApiKey, event: AuditEvent) -> None:
        """Keep a new key, which this event tells of. RecordError: its id or name is taken."""

    def revoke_api_key(self, key_id: str, event: AuditEvent) -> None:
        """It is not taken from now on, which this event tells. RecordError: none is in force."""

    def close_run(self, run_id: str, usage: Usage) -> None:
        """The run is over; charges what it used. A kill of it is over as well.

        What it still holds of budgets is charged whole: nobody knows better.
        """


class Store(Books, Protocol):
    """Audit log and ledger of one state folder, shared by several processes.

    What it counts may be out of date when it is used; what a transaction counts is not.
    """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """One durable, all-or-nothing step. RecordError if it can't be made durable."""

    def killed_runs(self) -> Mapping[str, Kill]:
        """Runs that have not ended and have to, by their ids, each with what ends it."""

    def recover(self) -> list[str]:
        """Close, as `unknown`, the runs whose supervisor is dead; returns their ids."""

    def events(self, run_id: str | None = None, start: int = 0) -> Iterator[AuditEvent]:
        """Events in order from sequence number `start`, of one run or all."""

    def head(self) -> Head:
        """Size, last hash and tree root."""

    def totals(self) -> Sequence[Totals]:
        """Calls and wall time per agent and per uid."""

    def keep_output(self, run_id: str, stream: str, data: bytes) -> None:
        """Append to what is kept of a run's `stdout`, `stderr` or `program` (its text)."""

    def kept_output(self, run_id: str, stream: str) -> bytes | None:
        """What was kept, or None when there is nothing by that name."""

    def discard_outdated(
        self, bounds: KeepBounds, *, not_within_s: float = 0.0, most: int | None = None
    ) -> Swept:
        """Drop kept output that is too old or too much, the oldest first; never an open run's.

        And counters of budgets that no window counts and no forecast looks at any more.

        At most `most` runs' (None: all that have to go), each recorded as `output.discarded`
        before it goes. Nothing is done if that was looked at less than `not_within_s` seconds ago.
        """

    def checkpoint(self) -> str:
        """The newest checkpoint, a C2SP signed note over all events; made now if there was none.

        Besides, a store makes one after so many events, after so much time, and when it is closed.
        RecordError: it can't be signed. Then no run can be opened either.
        """

    def key(self) -> str:
        """The vkey (C2SP signed-note) that signs checkpoints now."""

    def rotate_key(self, *, lost: bool = False) -> str:
        """Let a new key sign from here on; returns its vkey. RecordError: nothing has changed.

        `lost`: the private key is not there any more, so it can't sign that another follows it.
        """

    def unsigned(self) -> str | None:
        """Why checkpoints can't be signed, as a sentence; None: they can, as far as is known."""

    def unsent(self) -> Sequence[Unsent]:
        """What the destinations of checkpoints do not have; nothing of those that have all."""

    def close(self) -> None:
        """Let go of the files; may be called twice."""
