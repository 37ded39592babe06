"""Keys of the API in a log: made, taken, revoked, and what repairs and archives make of them."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.errors import RecordError, RequestError
from runner.keys import REFRESH_S, KeyRing, Keys, Refused
from runner.model.api_key import digest_of, id_of, written
from runner.model.event import EventDraft, EventKind
from runner.model.identity import AGENT_VERBS, ANY, Identity, Verb
from runner.stores import sqlite
from runner.stores.archiving import archive
from runner.stores.repairing import repair
from runner.stores.sqlite import SqliteStore
from runner.testing.fakes import FakeClock

BOT = Identity("", AGENT_VERBS, "bot", (), ("acme",), ("agent",))
OPERATOR = Identity("", frozenset({Verb.APPROVE}), None, ANY, ANY, ())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteStore]:
    with closing(sqlite.create(tmp_path / "state", clock)) as store:
        yield store


def told(store: SqliteStore, kind: EventKind) -> list[dict]:
    found = [json.loads(event.body) for event in store.events() if event.kind == kind]
    return [event["data"] for event in found]


def test_a_key_is_made_taken_and_revoked(store: SqliteStore, clock: FakeClock) -> None:
    keys, ring = Keys(store, clock), KeyRing(store, clock)
    key, text = keys.create("bot", BOT, "2030-01-31")
    assert ring.identity(text) == key.identity
    assert key.identity.name == f"key:{key.id}"
    assert (key.identity.agent, key.identity.tenants) == ("bot", ("acme",))
    assert told(store, EventKind.APIKEY_CREATED) == [
        {"id": key.id, "name": "bot", "expires": "2030-01-31T00:00:00Z",
         "verbs": ["apply", "read", "run"], "agent": "bot", "agents": [], "tenants": ["acme"],
         "profiles": ["agent"]}
    ]  # fmt: skip
    assert keys.revoke("bot", "lost").id == key.id
    assert told(store, EventKind.APIKEY_REVOKED) == [
        {"id": key.id, "name": "bot", "reason": "lost"}
    ]
    clock.advance(REFRESH_S)
    assert ring.identity(text) == Refused("revoked", key.id)
    with pytest.raises(RequestError, match="is revoked already"):
        keys.revoke(key.id)
    with pytest.raises(RequestError, match="is no key's"):
        keys.revoke("other")
    # Its name is free again, and means the new one.
    again, _ = keys.create("bot", BOT, "never")
    assert keys.revoke("bot").id == again.id


def test_a_key_stands_nowhere(store: SqliteStore, clock: FakeClock) -> None:
    key, text = Keys(store, clock).create("bot", BOT, "30d")
    secret = text.split("_")[2]
    store.close()
    files = [path for path in store.home.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert secret.encode() not in path.read_bytes()
    with closing(sqlite3.connect(store.home / "runner.db")) as db:
        assert db.execute("SELECT digest FROM api_keys").fetchone() == (digest_of(text),)
    assert key.digest == digest_of(text)


def test_another_process_revokes(store: SqliteStore, clock: FakeClock) -> None:
    with closing(sqlite.create(store.home, clock)) as server:
        ring = KeyRing(server, clock)
        key, text = Keys(store, clock).create("bot", BOT, "30d")
        assert ring.identity(text) == key.identity  # made a moment ago, and known
        Keys(store, clock).revoke(key.id)
        clock.advance(REFRESH_S)
        assert ring.identity(text) == Refused("revoked", key.id)


def test_a_key_ends(store: SqliteStore, clock: FakeClock) -> None:
    keys, ring = Keys(store, clock), KeyRing(store, clock)
    key, text = keys.create("bot", BOT, "60s")
    clock.advance(59)
    assert ring.identity(text) == key.identity
    assert list(keys.in_force()) == [key]
    clock.advance(2)
    assert ring.identity(text) == Refused("ended", key.id)
    assert list(keys.in_force()) == []
    assert keys.state(key) == "ended"
    assert keys.revoke("bot").id == key.id  # so that its name is free
    assert keys.state(keys.all()[0]) == "revoked"


def test_what_is_no_key_is_refused(store: SqliteStore, clock: FakeClock) -> None:
    key, text = Keys(store, clock).create("bot", BOT, "30d")
    ring = KeyRing(store, clock)
    assert ring.identity("") == Refused("malformed")
    assert ring.identity(text[:-1]) == Refused("malformed")
    assert ring.identity(written("rnk_" + "a" * 12, "A" * 32)) == Refused("unknown")
    assert ring.identity(written(key.id, "A" * 32)) == Refused("wrong", key.id)
    assert ring.identity(text) == key.identity


def test_a_stranger_makes_nobody_read_the_keys(store: SqliteStore, clock: FakeClock) -> None:
    asked = []

    class Counted:
        def api_keys(self):
            asked.append("all")
            return store.api_keys()

        def api_keys_changed(self):
            asked.append("changed")
            return store.api_keys_changed()

    Keys(store, clock).create("bot", BOT, "30d")
    ring = KeyRing(Counted(), clock)
    for n in range(1000):
        ring.identity(written(f"rnk_{'abcdefghij'[n % 10] * 12}", f"{n:032}"))
    assert asked == ["changed", "all"]


@pytest.mark.parametrize(
    ("identity", "name", "expires", "match"),
    [
        (BOT, "a b", "1d", "no name for a key"),
        (BOT, "", "1d", "no name for a key"),
        (BOT, "bot\n", "1d", "no name for a key"),
        (BOT, "x" * 65, "1d", "no name for a key"),
        (BOT, "bot", "1", "--expires"),
        (Identity("", frozenset()), "bot", "1d", "--verb"),
        (Identity("", AGENT_VERBS, None, (), ANY, ANY), "bot", "1d", "--agents GLOB"),
        (Identity("", AGENT_VERBS, "bot", (), ("t",)), "bot", "1d", "--profile NAME"),
    ],
)
def test_a_key_that_could_do_nothing_is_not_made(
    store: SqliteStore, clock: FakeClock, identity, name, expires, match
) -> None:
    size = store.head().size
    if expires == "1":
        expires = "-1d"
    with pytest.raises(RequestError, match=match):
        Keys(store, clock).create(name, identity, expires)
    assert store.head().size == size


def test_a_name_is_taken_once_by_whoever_is_first(store: SqliteStore, clock: FakeClock) -> None:
    made, refused = [], []

    def make() -> None:
        try:
            made.append(Keys(store, clock).create("bot", BOT, "1d"))
        except RequestError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)
    assert "runner keys revoke bot" in refused[0]
    assert len(told(store, EventKind.APIKEY_CREATED)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE api_keys SET scope = '{}'",
        """UPDATE api_keys SET scope = replace(scope, '"agent":"bot"', '"agent":null')
           || ' '""",
        """UPDATE api_keys SET scope = replace(scope, '"run"', '"admin"')""",
        "UPDATE api_keys SET expires_s = 'x'",
        "UPDATE api_keys SET revoked_s = 'x'",
        "UPDATE api_keys SET id = 'rnk_x'",
        "UPDATE api_keys SET digest = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'",
        "UPDATE api_keys SET name = x'00'",
    ],
)
def test_a_damaged_table_is_no_key(store: SqliteStore, clock: FakeClock, damage: str) -> None:
    _, text = Keys(store, clock).create("bot", BOT, "1d")
    with closing(sqlite3.connect(store.home / "runner.db")) as db, db:
        db.execute(damage)
    ring = KeyRing(store, clock)
    if "null" in damage:  # an agent's scope without the agent reaches nothing
        found = ring.identity(text)
        assert isinstance(found, Identity)
        assert not found.reaches("bot", "acme")
        return
    with pytest.raises(RecordError, match="so no key is taken"):
        ring.identity(text)


def test_an_archive_leaves_keys_in_force(
    store: SqliteStore, clock: FakeClock, tmp_path: Path
) -> None:
    keys = Keys(store, clock)
    key, text = keys.create("bot", BOT, "1d")
    for _ in range(5):
        with store.transaction() as tx:
            tx.append(EventDraft(EventKind.REQUEST_REFUSED, {"n": 1}))
    archive(store, tmp_path / "archive", 4, prune_too=True)
    assert told(store, EventKind.APIKEY_CREATED) == []
    assert KeyRing(store, clock).identity(text) == key.identity
    assert store.verify().ok
    keys.revoke("bot")
    clock.advance(REFRESH_S)
    assert KeyRing(store, clock).identity(text) == Refused("revoked", key.id)


def test_a_repair_leaves_no_key(store: SqliteStore, clock: FakeClock) -> None:
    """Its last event, which may be missing, may be the one that revoked a key."""
    keys = Keys(store, clock)
    kept, text = keys.create("kept", BOT, "1d")
    gone, _ = keys.create("gone", OPERATOR, "1d")
    keys.revoke("gone")
    store.close()
    with closing(sqlite3.connect(store.home / "runner.db")) as db, db:
        db.execute("DELETE FROM tree")
    repair(store.home, clock)
    with closing(sqlite.create(store.home, clock)) as repaired:
        assert list(repaired.api_keys()) == []
        assert KeyRing(repaired, clock).identity(text) == Refused("unknown")
        assert [each["id"] for each in told(repaired, EventKind.APIKEY_REVOKED)] == [
            gone.id, kept.id
        ]  # fmt: skip
        assert "repaired" in told(repaired, EventKind.APIKEY_REVOKED)[1]["reason"]
        assert repaired.verify().ok
        again, _ = Keys(repaired, clock).create("kept", BOT, "1d")
        assert again.id != kept.id


def test_ids_are_of_keys(store: SqliteStore, clock: FakeClock) -> None:
    key, text = Keys(store, clock).create("bot", BOT, "1d")
    assert id_of(text) == key.id
    assert (json.loads(next(iter(store.events(start=1))).body))["principal"]["uid"] == os.getuid()
