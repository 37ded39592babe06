"""What every store must do for the keys of the API; a part of `store_contract`."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing

from runner.errors import RecordError
from runner.model.api_key import NEVER_S, ApiKey, identity_name
from runner.model.event import EventDraft, EventKind
from runner.model.identity import AGENT_VERBS, ANY, Identity, Verb
from runner.ports import Store


class ApiKeyContract(ABC):
    """Subclass `StoreContract`."""

    @abstractmethod
    def make_store(self) -> Store:
        """Open the log of this test; the first call of a test makes it."""

    def test_a_key_is_there_as_it_was_made(self) -> None:
        key = _key("a" * 12, "bot")
        all_of_it = Identity(
            identity_name(f"rnk_{'b' * 12}"), frozenset(Verb), None, ANY, ("", "\u00e4*"), ("x",)
        )
        other = ApiKey(f"rnk_{'b' * 12}", "op", bytes(32), all_of_it, time.time() + 1, NEVER_S)
        with closing(self.make_store()) as first, closing(self.make_store()) as second:
            _same(list(first.api_keys()), [])
            before = second.api_keys_changed()
            for each in (key, other):
                with first.transaction() as tx:
                    tx.add_api_key(each, tx.append(EventDraft(EventKind.APIKEY_CREATED, {})))
                    _same(list(tx.api_keys())[-1], each)
            _same(list(second.api_keys()), [key, other])
            _differs(second.api_keys_changed(), before)

    def test_a_revoked_key_stays_revoked(self) -> None:
        key = _key("a" * 12, "bot")
        with closing(self.make_store()) as store:
            _add(store, key)
            before = store.api_keys_changed()
            with store.transaction() as tx:
                tx.revoke_api_key(key.id, tx.append(EventDraft(EventKind.APIKEY_REVOKED, {})))
            _differs(store.api_keys_changed(), before)
            _same([each.revoked_s is None for each in store.api_keys()], [False])
            with _refused(), store.transaction() as tx:
                tx.revoke_api_key(key.id, tx.append(EventDraft(EventKind.APIKEY_REVOKED, {})))
            _add(store, _key("b" * 12, "bot"))  # its name is free again

    def test_two_keys_in_force_have_neither_id_nor_name_in_common(self) -> None:
        with closing(self.make_store()) as store:
            _add(store, _key("a" * 12, "bot"))
            size = store.head().size
            for same in (_key("a" * 12, "other"), _key("b" * 12, "bot")):
                with _refused():
                    _add(store, same)
            _same(store.head().size, size)
            _same(len(store.api_keys()), 1)

    def test_a_key_of_a_transaction_that_fails_is_none(self) -> None:
        with closing(self.make_store()) as store:
            with contextlib.suppress(ZeroDivisionError), store.transaction() as tx:
                event = tx.append(EventDraft(EventKind.APIKEY_CREATED, {}))
                tx.add_api_key(_key("a" * 12, "bot"), event)
                raise ZeroDivisionError
            _same(list(store.api_keys()), [])


def _key(characters: str, name: str) -> ApiKey:
    key_id = f"rnk_{characters}"
    whose = Identity(identity_name(key_id), AGENT_VERBS, "bot", (), ("acme",), ("agent",))
    now_s = time.time()
    return ApiKey(key_id, name, bytes(range(32)), whose, now_s, now_s + 60.5)


def _add(store: Store, key: ApiKey) -> None:
    with store.transaction() as tx:
        tx.add_api_key(key, tx.append(EventDraft(EventKind.APIKEY_CREATED, {})))


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except RecordError:
        return
    raise AssertionError("what can't be was taken")


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} where {expected!r} was expected")


def _differs(found: object, before: object) -> None:
    if found == before:
        raise AssertionError(f"still {found!r}")
