"""What every store must do for the loop guard; a part of `store_contract`."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import closing

from runner.errors import RecordError
from runner.model.loop_guard import Guarded, Looped
from runner.ports import Store

_MOST_OF_ONE = 1000


class LoopContract(ABC):
    """Subclass `StoreContract`."""

    @abstractmethod
    def make_store(self) -> Store:
        """Open the log of this test; the first call of a test makes it."""

    def test_a_command_that_was_never_tried_has_nothing(self) -> None:
        with closing(self.make_store()) as store:
            _same(store.looped("0" * 32), None)
            _same(list(store.guarded()), [])

    def test_how_a_command_stands_is_there_for_all_openings(self) -> None:
        now_s = time.time()
        looped = Looped("refused", (now_s - 2.5, now_s), 3, now_s, now_s + 80.25)
        with closing(self.make_store()) as first, closing(self.make_store()) as second:
            _remember(first, "a", looped)
            _same(second.looped("a"), looped)
            _same(list(second.guarded()), [Guarded("a", "coder", 7, looped)])
            newer = Looped("failing:ff", (now_s,))
            with second.transaction() as tx:
                _same(tx.looped("a"), looped)
                tx.remember_loop(Guarded("a", "coder", 7, newer), now_s + 600)
                _same(tx.looped("a"), newer)
                _same(first.looped("a"), looped)
            _same(first.looped("a"), newer)
            with first.transaction() as tx:
                tx.forget_loop("a")
                tx.forget_loop("b")
            _same(second.looped("a"), None)

    def test_a_transaction_that_fails_remembers_nothing(self) -> None:
        with closing(self.make_store()) as store:
            try:
                with store.transaction() as tx:
                    tx.remember_loop(
                        Guarded("a", "coder", 7, Looped("refused", (1.0,))), time.time() + 9
                    )
                    raise _FailedError
            except _FailedError:
                pass
            _same(store.looped("a"), None)
            try:
                tx.looped("a")
            except RecordError:
                return
            raise AssertionError("a transaction that has ended was asked, and answered")

    def test_fingerprints_are_equal_for_equal_data_in_one_log(self) -> None:
        with closing(self.make_store()) as first, closing(self.make_store()) as second:
            told = first.fingerprint(b"rm -rf /")
            _same(second.fingerprint(b"rm -rf /"), told)
            with second.transaction() as tx:
                _same(tx.fingerprint(b"rm -rf /"), told)
            _true(first.fingerprint(b"rm -rf /x") != told, "other data has the same fingerprint")
            _true(len(told) >= 20, "a fingerprint has 80 bits or more")

    def test_what_does_not_count_any_more_goes(self) -> None:
        now_s = time.time()
        with closing(self.make_store()) as store:
            _remember(store, "old", Looped("refused", (now_s - 99,)), now_s - 1)
            _remember(store, "new", Looped("refused", (now_s,)), now_s + 600)
            _same([each.id for each in store.guarded()], ["new"])

    def test_nobody_has_more_than_so_many(self) -> None:
        now_s = time.time()
        with closing(self.make_store()) as store:
            looped = Looped("refused", (now_s,))
            _remember(store, "of another", looped, now_s + 1, "other")
            with store.transaction() as tx:
                for n in range(_MOST_OF_ONE + 5):
                    # The first ones are remembered longest: those are what pauses.
                    key = f"{n:05}"
                    tx.remember_loop(Guarded(key, "coder", 7, looped), now_s + 9000 - n)
            found = {each.id for each in store.guarded()}
            _same(len(found), _MOST_OF_ONE + 1)
            _true({"of another", "00000", f"{_MOST_OF_ONE + 4:05}"} <= found, "the wrong ones went")


class _FailedError(Exception):
    """What a test raises inside a transaction."""


def _remember(
    store: Store, key: str, looped: Looped, until_s: float | None = None, whose: str = "coder"
) -> None:
    with store.transaction() as tx:
        until_s = time.time() + 600 if until_s is None else until_s
        tx.remember_loop(Guarded(key, whose, 7, looped), until_s)


def _same(found: object, expected: object) -> None:
    _true(found == expected, f"found {found!r}, expected {expected!r}")


def _true(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
