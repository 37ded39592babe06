"""What every store must do about budgets: a part of `store_contract.StoreContract`."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from contextlib import closing

from runner.errors import RecordError
from runner.model.budget import Account, Bucket, Override, Resource, Sliding
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.ports import Store

ACCOUNT = Account("policy#hourly", "agent:coder", Resource.WALL)
OTHER = Account("policy#hourly", "agent:other", Resource.WALL)
WINDOW = Sliding(3600.0)
FAR = 4_000_000_000.0
"""Seconds since the epoch that no test reaches."""


class BudgetContract(ABC):
    """Subclass `StoreContract`."""

    @abstractmethod
    def make_store(self) -> Store:
        """Open the log of this test; the first call of a test makes it."""

    def test_what_is_charged_is_counted_by_bucket(self) -> None:
        with closing(self.make_store()) as store:
            for number, amount in ((5, 10), (6, 20), (6, 1), (8, 4)):
                _charge(store, ACCOUNT, Bucket(60, number), amount)
            _charge(store, OTHER, Bucket(60, 6), 500)
            _charge(store, ACCOUNT, Bucket(1, 6), 1000)
            for since, expected in ((5, 35), (6, 25), (7, 4), (9, 0)):
                _same(store.spent(ACCOUNT, Bucket(60, since)), expected)
            _same(list(store.buckets(ACCOUNT, Bucket(60, 6))), [(6, 21), (8, 4)])
            _same(list(store.accounts()), [ACCOUNT, OTHER])
        with closing(self.make_store()) as store:
            _same(store.spent(ACCOUNT, Bucket(60, 0)), 35)

    def test_what_was_taken_back_is_not_charged(self) -> None:
        with closing(self.make_store()) as store:
            try:
                with store.transaction() as transaction:
                    transaction.charge(ACCOUNT, [Bucket(60, 1)], 7)
                    transaction.warned(ACCOUNT, 50)
                    transaction.set_override(ACCOUNT, Override(1, FAR))
                    raise _BlockFailedError
            except _BlockFailedError:
                pass
            _same(store.spent(ACCOUNT, Bucket(60, 0)), 0)
            _same((store.warned_s(ACCOUNT, 50), store.override(ACCOUNT)), (None, None))

    def test_less_than_nothing_can_not_be_charged(self) -> None:
        with closing(self.make_store()) as store:
            try:
                _charge(store, ACCOUNT, Bucket(60, 1), -1)
            except RecordError:
                return
            raise AssertionError("a RecordError was expected and none came")

    def test_only_an_open_run_holds(self) -> None:
        with closing(self.make_store()) as store:
            _refused_to_hold(store, "run-1")
            _begin(store, "run-1")
            _hold(store, "run-1", 30)
            _hold(store, "run-1", 20)
            _same(store.held(ACCOUNT), 20)
            _begin(store, "run-2")
            _hold(store, "run-2", 5)
            _same(store.held(ACCOUNT), 25)
            _hold(store, "run-1", 0)
            _same(store.held(ACCOUNT), 5)
            _end(store, "run-2")
            _refused_to_hold(store, "run-2")

    def test_what_a_run_holds_at_its_end_is_charged_whole_once(self) -> None:
        with closing(self.make_store()) as store:
            _begin(store, "run-1")
            _hold(store, "run-1", 30)
            place = Account("policy#crowd", "all", Resource.AT_ONCE)
            with store.transaction() as transaction:
                transaction.hold("run-1", place, None, 1)
            _same(store.held(place), 1)
            _end(store, "run-1")
            _same((store.held(ACCOUNT), store.held(place)), (0, 0))
            _same(_all(store, ACCOUNT, 60), 30)
            _same(_all(store, place, 60), 0)

    def test_the_event_of_a_run_that_died_tells_all_that_it_was_charged(self) -> None:
        with closing(self.make_store()) as store:
            _begin(store, "run-1")
            with store.transaction() as transaction:
                for amount in (7, 0, 4):
                    transaction.charge(ACCOUNT, [Bucket(60, 1)], amount, "run-1")
                transaction.charge(OTHER, [Bucket(60, 1)], 2, "run-1")
            _hold(store, "run-1", 30)
        with closing(self.make_store()) as store:
            _same(store.recover(), ["run-1"])
            (told,) = [e for e in store.events("run-1") if e.kind == EventKind.RUN_RECOVERED]
            charged = json.loads(told.body)["data"]["charged"]
            found = [(each["scope"], each["amount"]) for each in charged]
            _same(found, [("agent:coder", 41), ("agent:other", 2)])
            _same((_all(store, ACCOUNT, 60), _all(store, OTHER, 60)), (41, 2))

    def test_a_reset_leaves_history_and_what_is_held(self) -> None:
        with closing(self.make_store()) as store:
            with store.transaction() as transaction:
                transaction.charge(ACCOUNT, [Bucket(60, 1), Bucket(-1, 0)], 7)
                transaction.warned(ACCOUNT, 50)
            _begin(store, "run-1")
            _hold(store, "run-1", 3)
            with store.transaction() as transaction:
                transaction.forget(ACCOUNT)
            _same((_all(store, ACCOUNT, 60), _all(store, ACCOUNT, -1)), (0, 7))
            _same((store.held(ACCOUNT), store.warned_s(ACCOUNT, 50)), (3, None))

    def test_what_was_warned_of_is_remembered_by_share(self) -> None:
        with closing(self.make_store()) as store:
            with store.transaction() as transaction:
                transaction.warned(ACCOUNT, 50)
            warned_s = store.warned_s(ACCOUNT, 50)
            _true(warned_s is not None and warned_s > 0, f"it was warned at {warned_s}")
            _same((store.warned_s(ACCOUNT, 80), store.warned_s(OTHER, 50)), (None, None))

    def test_an_override_holds_until_its_time(self) -> None:
        with closing(self.make_store()) as store:
            for override in (Override(5, FAR), Override(0, FAR), None):
                with store.transaction() as transaction:
                    transaction.set_override(ACCOUNT, override)
                    _same(transaction.override(ACCOUNT), override)
                _same((store.override(ACCOUNT), store.override(OTHER)), (override, None))
            with store.transaction() as transaction:
                transaction.set_override(ACCOUNT, Override(5, 1.0))
            _same(store.override(ACCOUNT), None)


class _BlockFailedError(Exception):
    """What a test raises inside a transaction."""


def _charge(store: Store, account: Account, bucket: Bucket, amount: int) -> None:
    with store.transaction() as transaction:
        transaction.charge(account, [bucket], amount)


def _hold(store: Store, run_id: str, amount: int) -> None:
    with store.transaction() as transaction:
        transaction.hold(run_id, ACCOUNT, WINDOW, amount)


def _refused_to_hold(store: Store, run_id: str) -> None:
    try:
        _hold(store, run_id, 1)
    except RecordError:
        return
    raise AssertionError("a RecordError was expected and none came")


def _all(store: Store, account: Account, level: int) -> int:
    return sum(amount for _, amount in store.buckets(account, Bucket(level, 0)))


def _begin(store: Store, run_id: str) -> None:
    who = Principal(uid=1000, agent="coder")
    with store.transaction() as transaction:
        transaction.append(EventDraft(EventKind.RUN_DECIDED, {}, who, run_id))
        transaction.open_run(run_id, who, "agent", "native")


def _end(store: Store, run_id: str) -> None:
    with store.transaction() as transaction:
        transaction.append(EventDraft(EventKind.RUN_ENDED, {}, None, run_id))
        transaction.close_run(run_id, Usage())


def _same(found: object, expected: object) -> None:
    _true(found == expected, f"found {found!r}, expected {expected!r}")


def _true(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
