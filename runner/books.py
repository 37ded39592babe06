"""What decisions and servers look up: runs, budgets, loops, kills, approvals, keys; as Protocols.

A store answers as things were when it was asked; an open transaction as they stay until it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runner.model.api_key import ApiKey
from runner.model.approval import Approval
from runner.model.budget import Account, Bucket, Override
from runner.model.kill import Kill, KillScope, OpenRun
from runner.model.loop_guard import Guarded, Looped
from runner.model.principal import Principal
from runner.model.rule import CountOf


class Counter(Protocol):
    """Counts the runs that began at `since_s` or later (seconds since the epoch), denied ones too.

    Those of the principal's agent, or of its parent (the runs of agents that one started count as
    its own), of its session, tenant or uid, or all. Who has no parent has no runs of one.
    """

    def runs_since(self, principal: Principal, of: CountOf, since_s: float) -> int:
        """How many."""

    def began_s(
        self, principal: Principal, of: CountOf, since_s: float, latest: int
    ) -> float | None:
        """When the `latest`-th latest of them began (1: the last one); None: there are fewer."""


class Ledger(Protocol):
    """What was charged to budgets, and what open runs hold of them. RecordError, StateError."""

    def spent(self, account: Account, since: Bucket) -> int:
        """What was charged in this bucket and all later ones of its level."""

    def held(self, account: Account) -> int:
        """What runs that are open hold: taken already, not yet charged."""

    def buckets(self, account: Account, since: Bucket) -> Sequence[tuple[int, int]]:
        """Numbers and amounts of this bucket and all later ones of its level, oldest first."""

    def warned_s(self, account: Account, percent: int) -> float | None:
        """When it was last warned that so much is used; None: never."""

    def override(self, account: Account) -> Override | None:
        """What holds now in the place of the amount that is stated; None: that does."""

    def accounts(self) -> Sequence[Account]:
        """All that anything was ever charged to or is held of, sorted; as far as it is kept."""


class Loops(Protocol):
    """What tries of commands came to, for the loop guard. RecordError, StateError."""

    def fingerprint(self, data: bytes) -> str:
        """A digest that is equal for equal data, and that nobody can guess by without the key."""

    def looped(self, key: str) -> Looped | None:
        """How the command with this fingerprint stands; None: nothing is remembered of it."""

    def guarded(self) -> Sequence[Guarded]:
        """All of whom something is remembered, sorted by whose they are."""


class KillSwitch(Protocol):
    """What operators ended, and who may begin no more. RecordError, StateError."""

    def kills(self) -> Sequence[Kill]:
        """All that hold, the oldest first."""

    def killed(self, principal: Principal) -> Kill | None:
        """What keeps this principal from beginning a run; None: nothing."""

    def open_runs(self, scope: KillScope = KillScope.ALL, name: str = "") -> Sequence[OpenRun]:
        """Runs that have not ended and that a kill of this scope and name ends, oldest first."""


class Approvals(Protocol):
    """What rules asked about, and the answers. RecordError, StateError."""

    def approvals(self, since_s: float = 0.0) -> Sequence[Approval]:
        """Those that expire at `since_s` or later, the oldest first."""

    def approval(self, identity: str) -> Approval | None:
        """By its id."""

    def latest_approval(self, digest: str, now_s: float) -> Approval | None:
        """The one that was asked last, up to that time, about this very thing."""

    def open_approvals(self, who: Principal, now_s: float) -> int:
        """How many questions of this agent, tenant and user wait for an answer."""


class ApiKeys(Protocol):
    """The keys of the API, as digests, for a server. RecordError, StateError: unreadable."""

    def api_keys(self) -> Sequence[ApiKey]:
        """All that there are, revoked and ended ones too, oldest first."""

    def api_keys_changed(self) -> int:
        """A number that is another one whenever a key was made or revoked; costs little."""


class Books(Counter, Ledger, Loops, KillSwitch, Approvals, ApiKeys, Protocol):
    """All that decisions, budgets, the loop guard, kills, approvals and servers look up."""
