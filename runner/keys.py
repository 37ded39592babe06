"""Keys of the API: making, listing and revoking them, and telling whose one is."""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from runner import records
from runner.books import ApiKeys
from runner.errors import RequestError
from runner.model.api_key import (
    DIGEST_BYTES,
    ID_ALPHABET,
    ID_CHARACTERS,
    KEY_NAME,
    NEVER_S,
    PREFIX,
    SECRET_ALPHABET,
    SECRET_CHARACTERS,
    ApiKey,
    digest_of,
    id_of,
    identity_name,
    written,
)
from runner.model.identity import Identity, Verb
from runner.model.principal import Principal
from runner.ports import Clock, Store
from runner.schema.quantities import parse_duration

MOST_KEYS = 10_000
"""In force: all are read when one changes, which then takes 50 ms."""
LONGEST_S = 10 * 366 * 86_400.0
"""A key that ends in ten years was meant to be `never`."""
REFRESH_S = 0.25
"""A key that was revoked may be taken for so long; asking costs one step in an index."""
_REFRESH_UNKNOWN_S = 0.02
"""For one that is not known yet: it may have been made just now, or be a stranger's guess."""


class Keys:
    """Those of a state folder, for people who may write there."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def create(self, name: str, identity: Identity, expires: str) -> tuple[ApiKey, str]:
        """A new key for whoever is `identity`; what is kept of it, and its text. Recorded.

        The text is nowhere else, and can't be had again. `expires`: `30d`, a date or a time in ISO
        8601 (UTC where it has no offset), or `never`. RequestError: it can't be made, and why.
        """
        if not KEY_NAME.fullmatch(name):
            raise RequestError(
                f"{name!r} is no name for a key: 1 to 64 letters, digits, '.', '_', '-', such as ci"
            )
        _check_scope(identity)
        now_s = self._clock.now()
        expires_s = parse_expiry(expires, now_s)
        key_id = PREFIX + _random(ID_ALPHABET, ID_CHARACTERS)
        text = written(key_id, _random(SECRET_ALPHABET, SECRET_CHARACTERS))
        named = replace(identity, name=identity_name(key_id))
        key = ApiKey(key_id, name, digest_of(text), named, now_s, expires_s)
        with self._store.transaction() as tx:
            there = [each for each in tx.api_keys() if each.revoked_s is None]
            if any(each.name == name for each in there):
                raise RequestError(
                    f"there is a key {name!r} already: revoke it (`runner keys revoke {name}`), or "
                    "take another name"
                )
            if len(there) >= MOST_KEYS:
                raise RequestError(f"there are {MOST_KEYS} keys: revoke those that nobody uses")
            draft = records.apikey_created(key, told_time(expires_s), _who())
            tx.add_api_key(key, tx.append(draft))
        return key, text

    def all(self) -> Sequence[ApiKey]:
        """All that were made, revoked and ended ones too, oldest first."""
        return self._store.api_keys()

    def in_force(self) -> Sequence[ApiKey]:
        """Those that are taken now."""
        now_s = self._clock.now()
        return [key for key in self._store.api_keys() if key.is_in_force(now_s)]

    def state(self, key: ApiKey) -> str:
        """`in force`, `ended` or `revoked`."""
        if key.revoked_s is not None:
            return "revoked"
        return "in force" if key.is_in_force(self._clock.now()) else "ended"

    def revoke(self, which: str, reason: str = "") -> ApiKey:
        """Take a key no more, by its id or name; which. Recorded.

        A server that runs refuses it within a second. RequestError: there is none to revoke.
        """
        with self._store.transaction() as tx:
            named = [each for each in tx.api_keys() if which in (each.id, each.name)]
            found = [each for each in named if each.revoked_s is None]
            if not found:
                what = "is revoked already" if named else "is no key's id or name"
                raise RequestError(f"{which!r} {what}; `runner keys list` lists those that are")
            key = found[0]
            draft = records.apikey_revoked(key.id, key.name, reason, _who())
            tx.revoke_api_key(key.id, tx.append(draft))
        return key


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a key is not taken: for the log, never for who presented it."""

    why: str
    """`malformed`, `unknown`, `wrong`, `revoked` or `ended`."""
    key_id: str | None = None
    """Of a key that there is."""


class KeyRing:
    """Tells whose a key is, in some microseconds; for all threads of a server."""

    def __init__(self, keys: ApiKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._by_id: Mapping[str, ApiKey] = {}
        self._changed: int | None = None
        self._asked_s = -REFRESH_S

    def identity(self, text: str) -> Identity | Refused:
        """Who has this key, or why nobody is taken to. RecordError, StateError: keys can't be read.

        What is unknown, revoked and ended takes the same steps: time does not tell them apart.
        """
        key_id = id_of(text)
        if key_id is None:
            return Refused("malformed")
        key = self._known(REFRESH_S).get(key_id) or self._known(_REFRESH_UNKNOWN_S).get(key_id)
        kept = bytes(DIGEST_BYTES) if key is None else key.digest
        is_it = hmac.compare_digest(digest_of(text), kept)
        if key is None:
            return Refused("unknown")
        if not is_it:
            return Refused("wrong", key.id)
        if not key.is_in_force(self._clock.now()):
            return Refused("ended" if key.revoked_s is None else "revoked", key.id)
        return key.identity

    def _known(self, at_most_s: float) -> Mapping[str, ApiKey]:
        """All keys, as they were so long ago or later."""
        if self._clock.monotonic() - self._asked_s < at_most_s:
            return self._by_id
        with self._lock:
            now_s = self._clock.monotonic()
            if now_s - self._asked_s >= at_most_s:
                changed = self._keys.api_keys_changed()
                if changed != self._changed:
                    self._by_id = {key.id: key for key in self._keys.api_keys()}
                    self._changed = changed
                self._asked_s = now_s
            return self._by_id


def parse_expiry(text: str, now_s: float) -> float:
    """When a key ends, in seconds since the epoch. RequestError: `text` does not say when."""
    if text == "never":
        return NEVER_S
    try:
        at_s = _moment(text) if text[4:5] == "-" else now_s + float(str(parse_duration(text)))
    except (ValueError, OverflowError):
        raise RequestError(
            f"--expires {text!r}: give a time like 30d or 12h, a date like 2027-01-31, or never"
        ) from None
    if not now_s + 1 <= at_s <= now_s + LONGEST_S:
        raise RequestError(
            f"--expires {text!r} is not between now and ten years from now; `never` does not end"
        )
    return at_s


def told_time(at_s: float) -> str | None:
    """RFC 3339, to the second; None for what never comes."""
    if at_s == NEVER_S:
        return None
    return datetime.fromtimestamp(int(at_s), UTC).isoformat().replace("+00:00", "Z")


def _moment(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _check_scope(identity: Identity) -> None:
    """RequestError: nothing could be done with it; what is left out is never everything."""
    if not identity.verbs:
        raise RequestError(f"say what the key may do: --verb, one or more of {', '.join(Verb)}")
    concerns_runs = identity.verbs - {Verb.ADMIN}
    if concerns_runs and identity.agent is None and not identity.agents:
        raise RequestError(
            "say for whom the key is: --agent NAME for one agent, --agents GLOB for a service that "
            "speaks for many ('*' for all)"
        )
    if Verb.RUN in identity.verbs and not identity.profiles:
        raise RequestError("say what its runs may be under: --profile NAME, or '*' for all")


def _random(alphabet: str, characters: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(characters))


def _who() -> Principal:
    return Principal(uid=os.getuid(), agent="default")
