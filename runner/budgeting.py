"""Looking at budgets, setting other amounts for a time and beginning windows anew, for people."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from runner import records
from runner.errors import RequestError
from runner.granting import moment
from runner.metering.forecast import DAYS, Forecast, forecast
from runner.metering.windows import history
from runner.model.budget import (
    BudgetOf,
    Charge,
    Override,
    PerRun,
    Resource,
    Spent,
    Stated,
)
from runner.model.principal import Principal
from runner.ports import Clock, Store
from runner.schema.budgets import parse_amount
from runner.schema.quantities import parse_bounded_duration
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

    def forecasts(self, profile: str | None = None) -> tuple[Forecast, ...]:
        """When each counter that anything was charged to will be used up, by its own history."""
        now_s = self._clock.now()
        since = history(now_s - DAYS * 86_400)
        return tuple(
            forecast(spent, self._store.buckets(spent.account, since), now_s)
            for spent in standing(self._store, self._stated(profile), now_s)
            if spent.resource is not Resource.AT_ONCE and spent.window is not None
        )

    def set(
        self,
        budget_id: str,
        amounts: Mapping[str, str],
        reason: str,
        *,
        lasting: str,
        scope: str | None = None,
        profile: str | None = None,
        by: str | None = None,
    ) -> tuple[Charge, ...]:
        """Let other amounts of a stated budget hold for a time; which, by layer. Recorded.

        `amounts`: by resource, spelled as in a policy: `{"calls": "10", "wall": "2h"}`;
        `lasting`: for how long, `2h`; `scope`: whose, which may be left out of a budget of all;
        `by`: who does it, this process's user else.
        Runs that go on take it with their next slice. RequestError: it can't be, nothing changes.
        """
        parsed = dict(_parsed(amounts))
        lasting_s = _lasting_s(lasting)
        until_s = self._clock.now() + lasting_s
        overrides = {resource: Override(value, until_s) for resource, value in parsed.items()}
        return self._override(tuple(self._named(budget_id, scope, profile)), overrides, reason, by)

    def unset(
        self,
        budget_id: str,
        reason: str,
        *,
        scope: str | None = None,
        profile: str | None = None,
        by: str | None = None,
    ) -> tuple[Charge, ...]:
        """Let what is stated hold again; see `set`."""
        return self._override(tuple(self._named(budget_id, scope, profile)), {}, reason, by)

    def overrides(self, profile: str | None = None) -> tuple[tuple[Spent, Override], ...]:
        """What was set that holds now."""
        return tuple(
            (spent, override)
            for spent in self.standing(profile)
            if (override := self._store.override(spent.account)) is not None
        )

    def _override(
        self,
        charges: tuple[Charge, ...],
        overrides: Mapping[Resource, Override],
        reason: str,
        by: str | None,
    ) -> tuple[Charge, ...]:
        """`overrides`: none: what is stated holds again."""
        if not reason.strip():
            raise RequestError("a budget is set for a reason: say which, it is recorded")
        for charge in charges:
            _check_override(charge, overrides)
        until = next((moment(each.until_s - 1) for each in overrides.values()), None)
        who = Principal(uid=os.getuid(), agent="default")
        with self._store.transaction() as tx:
            for charge in charges:
                for resource, _ in charge.budget.amounts:
                    if resource in overrides or not overrides:
                        tx.set_override(charge.account(resource), overrides.get(resource))
                tx.append(
                    records.budget_set(charge, overrides, until, reason, who, by=by or _operator())
                )
        return charges

    def _named(self, budget_id: str, scope: str | None, profile: str | None) -> Iterator[Charge]:
        stated = self._stated(profile)
        found = [(layer, b) for layer, held in stated for b in held if b.id == budget_id]
        if not found:
            known = sorted({budget.id for _, held in stated for budget in held})
            what = f"those that are: {', '.join(known)}" if known else "none is"
            raise RequestError(f"no budget {budget_id!r} is stated; {what}")
        for layer, budget in found:
            if scope is None and budget.of is not BudgetOf.ALL:
                raise RequestError(
                    f"the budget {budget_id!r} has a counter for each {budget.of.value}: say whose "
                    f"with --of, such as --of {budget.of.value}:NAME"
                )
            what, colon, name = (scope or "all").partition(":")
            named = budget.of is not BudgetOf.ALL
            if what != budget.of.value or (colon and not (name and named)):
                such = f"say {budget.of.value}:NAME" if named else "say all"
                raise RequestError(
                    f"{scope!r} is no counter of {budget_id!r}, which is of {budget.of.value}; "
                    f"{such}, as `runner budget show` has it"
                )
            yield Charge(layer, budget, scope or "all")

    def reset(
        self,
        budget_id: str,
        reason: str,
        *,
        scope: str | None = None,
        profile: str | None = None,
        by: str | None = None,
    ) -> tuple[str, ...]:
        """Begin a budget's windows anew, of one scope or all; returns whose they were. Recorded.

        What open runs hold stays held. RequestError: nothing was ever charged to it, or no reason
        is given.
        """
        if not reason.strip():
            raise RequestError("a budget is reset for a reason: say which, it is recorded")
        stated = self._stated(profile)
        named = [(layer, b) for layer, held in stated for b in held if b.id == budget_id]
        for layer, budget in named:
            if budget.fixed:
                raise _fixed(layer, budget_id)
        layers = {f"{layer}#{b.id}": layer for layer, b in named}
        with self._store.transaction() as tx:
            found = [
                account
                for account in tx.accounts()
                if account.budget in layers and scope in (None, account.scope)
            ]
            scopes = tuple(sorted({account.scope for account in found}))
            named_by = sorted({layers[account.budget] for account in found})
            if scopes:
                for account in found:
                    tx.forget(account)
                who = Principal(uid=os.getuid(), agent="default")
                draft = records.budget_reset(
                    budget_id, named_by, scopes, reason, who, by=by or _operator()
                )
                tx.append(draft)
        if not scopes:
            whose = "" if scope is None else f" of {scope!r}"
            raise RequestError(
                f"nothing was charged to a budget {budget_id!r}{whose}; `runner budget show` lists "
                "those that something was charged to"
            )
        return scopes


def _operator() -> str:
    """As identities are named."""
    return f"uid:{os.getuid()}"


def _lasting_s(lasting: str) -> float:
    try:
        lasting_s = parse_bounded_duration(lasting)
    except ValueError as error:
        raise RequestError(
            f"--for {lasting!r}: {error}; what is to stay belongs in the policy"
        ) from None
    if lasting_s < 1:
        raise RequestError(f"--for {lasting!r} is less than a second")
    return lasting_s


def _parsed(amounts: Mapping[str, str]) -> Iterator[tuple[Resource, int]]:
    if not amounts:
        raise RequestError("say which amount is to hold, such as calls=10 or wall=2h")
    for name, value in amounts.items():
        if name not in set(Resource):
            raise RequestError(f"{name!r} is nothing that is budgeted; {', '.join(Resource)} are")
        resource = Resource(name)
        try:
            yield resource, parse_amount(resource, value)
        except ValueError as error:
            raise RequestError(f"{name}={value}: {error}") from None


def _check_override(charge: Charge, amounts: Iterable[Resource]) -> None:
    budget = charge.budget
    if budget.fixed:
        raise _fixed(charge.layer, budget.id)
    stated = {resource for resource, _ in budget.amounts}
    for resource in amounts:
        if resource not in stated:
            raise RequestError(
                f"the budget {budget.id!r} of {charge.layer!r} does not bound {resource.value}; it "
                f"bounds {', '.join(sorted(each.value for each in stated))}"
            )
        if budget.window is PerRun.RUN and resource is not Resource.AT_ONCE:
            raise RequestError(
                f"the budget {budget.id!r} bounds each run by itself: state another one instead"
            )


def _fixed(layer: str, budget_id: str) -> RequestError:
    return RequestError(f"the budget {budget_id!r} is fixed by {layer!r}: only that can change it")
