"""What every store must do about checkpoints and keys: a part of `store_contract.StoreContract`."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing

from runner.audit.canonical import parse_canonical
from runner.audit.checkpoint import parse_checkpoint
from runner.audit.note import open_note
from runner.errors import RunnerError
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.ports import Store


class CheckpointContract(ABC):
    """Subclass `StoreContract`."""

    @abstractmethod
    def make_store(self) -> Store:
        """Open the log of this test; the first call of a test makes it."""

    def test_a_new_log_names_its_key(self) -> None:
        with closing(self.make_store()) as store:
            _true(_data(next(iter(store.events()))).get("key") == store.key(), "it names another")

    def test_the_key_stays_when_the_log_is_opened_again(self) -> None:
        with closing(self.make_store()) as store:
            key = store.key()
        with closing(self.make_store()) as store:
            _true(store.key() == key, "another key signs")

    def test_a_checkpoint_is_signed_and_over_all_events(self) -> None:
        with closing(self.make_store()) as store:
            for n in range(5):
                _append(store, n)
                note = store.checkpoint()
                open_note(note, [store.key()])
                told, head = parse_checkpoint(note), store.head()
                _true((told.size, told.root.hex()) == (head.size, head.root), "it is not the head")
                _true(told.origin == store.key().partition("+")[0], "its origin is another log")

    def test_a_checkpoint_is_made_once(self) -> None:
        with closing(self.make_store()) as store:
            _append(store, 1)
            note = store.checkpoint()
            _true(store.checkpoint() == note, "another one was made of the same events")
            _true(store.head().size == parse_checkpoint(note).size, "it is an event")

    def test_a_checkpoint_is_never_of_what_was_taken_back(self) -> None:
        with closing(self.make_store()) as store:
            head = store.head()
            try:
                with store.transaction() as transaction:
                    transaction.append(_draft(1))
                    raise _BlockFailedError
            except _BlockFailedError:
                pass
            told = parse_checkpoint(store.checkpoint())
            _true((told.size, told.root.hex()) == (head.size, head.root), "it is of another log")

    def test_a_new_key_follows_the_old_one(self) -> None:
        with closing(self.make_store()) as store:
            old = store.key()
            new = store.rotate_key()
            _true(new != old == _data(list(store.events())[-1]).get("previous"), "it does not")
            _true(store.key() == new, "the old one still signs")
            _true(list(store.events())[-1].kind == EventKind.KEY_ROTATED, "it is not recorded")
            _append(store, 1)
            open_note(store.checkpoint(), [new])
        with closing(self.make_store()) as store:
            _true(store.key() == new, "the old one signs again")

    def test_a_key_is_replaced_where_the_old_one_is_lost(self) -> None:
        with closing(self.make_store()) as store:
            new = store.rotate_key(lost=True)
            _true(list(store.events())[-1].kind == EventKind.KEY_REPLACED, "it is not recorded")
            open_note(store.checkpoint(), [new])
            _true(store.unsigned() is None, "it can't be signed")

    def test_nothing_is_unsent_where_nothing_is_sent(self) -> None:
        with closing(self.make_store()) as store:
            _append(store, 1)
            store.checkpoint()
            _true(list(store.unsent()) == [], "something is")

    def test_a_closed_store_makes_no_checkpoint(self) -> None:
        store = self.make_store()
        store.close()
        for act in (store.checkpoint, store.rotate_key, store.key):
            try:
                act()
            except RunnerError:
                continue
            raise AssertionError("an error was expected and none came")


class _BlockFailedError(Exception):
    """What a test raises inside a transaction."""


def _draft(n: int) -> EventDraft:
    return EventDraft(EventKind.RUN_ENDED, {"n": n}, None, "run-1")


def _append(store: Store, n: int) -> AuditEvent:
    with store.transaction() as transaction:
        return transaction.append(_draft(n))


def _data(event: AuditEvent) -> dict[str, object]:
    body = parse_canonical(event.body)
    found = body.get("data") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def _true(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
