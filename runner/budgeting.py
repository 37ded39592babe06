"""Looking at budgets and beginning their windows anew, for people."""

from __future__ import annotations

import os
from collections.abc import Callable

from runner import records
from runner.errors import RequestError
from runner.model.budget import Spent, Stated
from runner.model.principal import Principal
from runner.ports import Clock, Store
from runner.spending import standing


class Budgets:
    """Those that the policy layers and a profile state, as the ledger has them."""

    def __init__(self, store: Store, clock: Clock, stated: Callable[[str | None], Stated]) -> None:
        """`stated`: what is stated under a profile (None: the settings' own)."""
        self._store = store
        self._clock = clock
        self._stated = stated

    def standing(self, profile: str | None = None) -> tuple[Spent, ...]:
        """How each counter stands that anything was charged to. StateError: it can't be read."""
        return standing(self._store, self._stated(profile), self._clock.now())

    def reset(
        self, budget_id: str, reason: str, *, scope: str | None = None, profile: str | None = None
    ) -> tuple[str, ...]:
        """Begin a budget's windows anew, of one scope or all; returns whose they were. Recorded.

        What open runs hold stays held. RequestError: nothing was ever charged to it, or no reason
        is given.
        """
        if not reason.strip():
            raise RequestError("a budget is reset for a reason: say which, it is recorded")
        stated = self._stated(profile)
        names = {f"{layer}#{b.id}" for layer, held in stated for b in held if b.id == budget_id}
        with self._store.transaction() as tx:
            found = [
                account
                for account in tx.accounts()
                if account.budget in names and scope in (None, account.scope)
            ]
            scopes = tuple(sorted({account.scope for account in found}))
            if scopes:
                for account in found:
                    tx.forget(account)
                who = Principal(uid=os.getuid(), agent="default")
                tx.append(records.budget_reset(budget_id, scopes, reason, who))
        if not scopes:
            whose = "" if scope is None else f" of {scope!r}"
            raise RequestError(
                f"nothing was charged to a budget {budget_id!r}{whose}; `runner budget show` lists "
                "those that something was charged to"
            )
        return scopes
