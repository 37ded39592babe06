"""What both a store and an open transaction tell of the ledger, the loop guard, kills and keys."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from runner.model.api_key import ApiKey
from runner.model.approval import Approval
from runner.model.budget import Account, Bucket, Override
from runner.model.kill import Kill, KillScope, OpenRun
from runner.model.loop_guard import Guarded, Looped
from runner.model.principal import Principal
from runner.stores import api_keys, approvals, kills, ledger, loops


class SqliteBooks(ABC):
    """The part of `ports.Books` that needs a connection and no more."""

    @abstractmethod
    def _connected(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection to read from. RecordError, StateError: there is none."""

    @abstractmethod
    def _now_s(self) -> float:
        """Seconds since the epoch."""

    @abstractmethod
    def told(self, principal: Principal) -> Principal:
        """Who it is, as events and the ledger name it."""

    @abstractmethod
    def told_text(self, text: str) -> str:
        """A name or a reason, as events and the ledger have it."""

    def told_account(self, account: Account) -> Account:
        """A budget's counter, whose it is as events and the ledger name it."""
        scope = self.told_text(account.scope)
        return account if scope == account.scope else replace(account, scope=scope)

    def spent(self, account: Account, since: Bucket) -> int:
        """What was charged to a budget in this bucket and later ones of its level."""
        with self._connected() as connection:
            return ledger.spent(connection, self.told_account(account), since)

    def held(self, account: Account) -> int:
        """What open runs hold of a budget."""
        with self._connected() as connection:
            return ledger.held(connection, self.told_account(account))

    def buckets(self, account: Account, since: Bucket) -> Sequence[tuple[int, int]]:
        """Numbers and amounts of this bucket and later ones of its level, oldest first."""
        with self._connected() as connection:
            return ledger.buckets(connection, self.told_account(account), since)

    def warned_s(self, account: Account, percent: int) -> float | None:
        """When it was last warned that so much of a budget is used."""
        with self._connected() as connection:
            return ledger.warned_s(connection, self.told_account(account), percent)

    def override(self, account: Account) -> Override | None:
        """What holds now in the place of the amount that is stated."""
        with self._connected() as connection:
            return ledger.override(connection, self.told_account(account), self._now_s())

    def accounts(self) -> Sequence[Account]:
        """All counters of budgets, sorted."""
        with self._connected() as connection:
            return ledger.accounts(connection)

    def looped(self, key: str) -> Looped | None:
        """How a command stands with the loop guard."""
        with self._connected() as connection:
            return loops.looped(connection, key)

    def guarded(self) -> Sequence[Guarded]:
        """All commands that the loop guard remembers."""
        with self._connected() as connection:
            return loops.guarded(connection)

    def approvals(self, since_s: float = 0.0) -> Sequence[Approval]:
        """Questions that expire then or later, the oldest first."""
        with self._connected() as connection:
            return approvals.approvals(connection, since_s)

    def approval(self, identity: str) -> Approval | None:
        """A question by its id."""
        with self._connected() as connection:
            return approvals.approval(connection, identity)

    def latest_approval(self, digest: str, now_s: float) -> Approval | None:
        """The one that was asked last about this very thing."""
        with self._connected() as connection:
            return approvals.latest(connection, digest, now_s)

    def open_approvals(self, who: Principal, now_s: float) -> int:
        """How many questions of this agent and user wait for an answer."""
        with self._connected() as connection:
            return approvals.open_of(connection, self.told(who), now_s)

    def kills(self) -> Sequence[Kill]:
        """All kills that hold, the oldest first."""
        with self._connected() as connection:
            return kills.kills(connection)

    def killed(self, principal: Principal) -> Kill | None:
        """What keeps this principal from beginning a run."""
        with self._connected() as connection:
            return kills.killed(connection, self.told(principal))

    def open_runs(self, scope: KillScope = KillScope.ALL, name: str = "") -> Sequence[OpenRun]:
        """Runs that have not ended and that a kill of this scope and name ends."""
        with self._connected() as connection:
            return kills.hit(connection, scope, self.told_text(name))

    def api_keys(self) -> Sequence[ApiKey]:
        """All keys of the API, oldest first."""
        with self._connected() as connection:
            return api_keys.all_keys(connection)

    def api_keys_changed(self) -> int:
        """Another number whenever one was made or revoked."""
        with self._connected() as connection:
            return api_keys.changed(connection)
