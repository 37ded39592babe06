"""The table of the API's keys, on an open connection: digests, never keys.

What is read is held to be damaged unless it is what was written: a row that can't be read is no
key, and none of the others is taken either until somebody has looked. sqlite3.Error passes through.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import orjson

from runner.audit.canonical import canonical
from runner.errors import RecordError
from runner.model.api_key import DIGEST_BYTES, KEY_ID, KEY_NAME, NEVER_S, ApiKey, identity_name
from runner.model.identity import Identity, Verb

_LIST_NAMES = ("agents", "tenants", "profiles")


def scope_data(identity: Identity) -> dict[str, object]:
    """What whoever has the key may do, in JSON's values; events have it so as well."""
    return {
        "verbs": sorted(identity.verbs),
        "agent": identity.agent,
        **{name: list(getattr(identity, name)) for name in _LIST_NAMES},
    }


def add(connection: sqlite3.Connection, key: ApiKey, changed: int) -> None:
    """Keep a new key. RecordError: there is one by that id, or one in force by that name."""
    try:
        connection.execute(
            "INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key.id,
                key.name,
                key.digest,
                canonical(scope_data(key.identity)).decode(),
                key.created_s,
                key.expires_s,
                key.revoked_s,
                changed,
            ),
        )
    except sqlite3.IntegrityError:
        raise RecordError(f"there is a key {key.id} or {key.name!r} already") from None


def revoke(connection: sqlite3.Connection, key_id: str, now_s: float, changed: int) -> None:
    """It is not taken from now on. RecordError: no such key is in force."""
    done = connection.execute(
        "UPDATE api_keys SET revoked_s = ?, changed = ? WHERE id = ? AND revoked_s IS NULL",
        (now_s, changed, key_id),
    )
    if done.rowcount != 1:
        raise RecordError(f"no key {key_id} is there to revoke")


def forget(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    """Drop rows."""
    connection.executemany("DELETE FROM api_keys WHERE id = ?", [(each,) for each in keys])


def all_keys(connection: sqlite3.Connection) -> Sequence[ApiKey]:
    """All that there are, revoked ones too, oldest first. RecordError: one can't be read."""
    rows = connection.execute(
        "SELECT id, name, digest, scope, created_s, expires_s, revoked_s FROM api_keys "
        "ORDER BY created_s, id"
    )
    return [_key(*row) for row in rows]


def changed(connection: sqlite3.Connection) -> int:
    """A number that is another one whenever a key was made or revoked; -1: there is none."""
    (latest,) = connection.execute("SELECT max(changed) FROM api_keys").fetchone()
    return -1 if latest is None else int(latest)


def _key(  # noqa: PLR0917  (a row's columns)
    key_id: object,
    name: object,
    digest: object,
    scope: object,
    created_s: object,
    expires_s: object,
    revoked_s: object,
) -> ApiKey:
    try:
        if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
            raise ValueError(key_id)
        if not isinstance(name, str) or not KEY_NAME.fullmatch(name):
            raise ValueError(name)
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise ValueError(digest)
        if not isinstance(scope, str):
            raise ValueError(scope)
        return ApiKey(
            key_id,
            name,
            digest,
            replace(identity_of(orjson.loads(scope)), name=identity_name(key_id)),
            _seconds(created_s),
            NEVER_S if expires_s == NEVER_S else _seconds(expires_s),
            None if revoked_s is None else _seconds(revoked_s),
        )
    except (KeyError, TypeError, ValueError):
        raise RecordError(
            "the table of the API's keys is damaged, so no key is taken; `runner audit repair` "
            "begins it anew where the log is damaged as well"
        ) from None


def identity_of(scope: object) -> Identity:
    """Who a scope makes of its caller, without a name. ValueError, KeyError, TypeError: none."""
    if not isinstance(scope, dict) or set(scope) != {"verbs", "agent", *_LIST_NAMES}:
        raise ValueError(scope)
    agents, tenants, profiles = (_texts(scope[name]) for name in _LIST_NAMES)
    agent = scope["agent"]
    if not isinstance(agent, str | None):
        raise TypeError(agent)
    verbs = frozenset(map(Verb, _texts(scope["verbs"])))
    return Identity("", verbs, agent, agents, tenants, profiles)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(value)
    return tuple(value)


def _seconds(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(value)
    return float(value)  # type: ignore[arg-type]
