"""Which key signs a log: what its events say of keys, and whether one follows the other.

A log names its first key in `log.created` (one that is older than keys, in `key.created`). In
`key.rotated` the next one is named in a statement that both sign; `key.replaced` has no signature
of the key before, because that one was lost, so whoever reads has to be told that it is right.

A key is known by its vkey, as in C2SP signed-note: name, hash and public key. Its name is the
checkpoints' origin, made from the log's id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from runner.audit.canonical import parse_canonical
from runner.audit.note import NoteError, open_note
from runner.model.event import EventKind

KEY_KINDS = frozenset(
    {
        EventKind.LOG_CREATED.value,
        EventKind.KEY_CREATED.value,
        EventKind.KEY_ROTATED.value,
        EventKind.KEY_REPLACED.value,
    }
)
"""Kinds of events that say something of keys."""

_LOG_ID = re.compile(r"[0-9a-f]{32}")


def log_name(log_id: str) -> str:
    """The key's name and the checkpoints' origin: a URL without a scheme, as C2SP wants it."""
    return f"runner.log/{log_id}"


def rotation_text(seq: int, old: str, new: str) -> str:
    """What is signed when event `seq` lets the key `new` follow `old`; no checkpoint's text."""
    return f"runner key rotation\n{old.partition('+')[0]}\n{seq}\n{old}\n{new}\n"


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key, and the event that names it; it signs what is made behind that event."""

    seq: int
    vkey: str


class KeyChainError(Exception):
    """An event about a key does not hold; the message is a clause."""


class KeyChain:
    """The keys of a log, as its events name them, in order."""

    def __init__(self, trusted: str | None = None, archived: tuple[NamedKey, ...] = ()) -> None:
        """`trusted`: a vkey that somebody vouches for. `archived`: named by events not read."""
        self.trusted = trusted
        self.name: str | None = None
        """That of the log's keys; None until an event tells it."""
        self.keys: list[NamedKey] = []
        self.reached = trusted is None
        """Whether the trusted key was named: what follows must lead on from it."""
        for key in archived:
            self._add(key)

    def take(self, seq: int, kind: str, body: bytes) -> None:
        """An event of `KEY_KINDS`, whose bytes are whole. KeyChainError: it does not hold."""
        data = _object(parse_canonical(body)).get("data")
        told = _object(data)
        key = told.get("key")
        if kind == EventKind.LOG_CREATED:
            log_id = told.get("log_id")
            if isinstance(log_id, str) and _LOG_ID.fullmatch(log_id):
                self.name = log_name(log_id)
            if "key" not in told:
                return  # a log that is older than keys
        if not isinstance(key, str):
            raise KeyChainError("it names no key")
        if self.name is not None and key.partition("+")[0] != self.name:
            raise KeyChainError(f"the key that it names, {key}, is not of this log, {self.name}")
        if kind in (EventKind.LOG_CREATED, EventKind.KEY_CREATED):
            # After a repair of a log whose first events, which named the key, are archived.
            if self.keys and self.reached and key != self.trusted:
                raise KeyChainError(
                    f"it names a first key, but the log had one: if you know that {key} is the "
                    "log's key, say so with --key"
                )
        else:
            self._check_follows(seq, kind, key, told)
        self._add(NamedKey(seq, key))

    def at(self, size: int) -> str | None:
        """The vkey that signs a checkpoint over so many events; None: the log names none."""
        return next((key.vkey for key in reversed(self.keys) if key.seq < size), None)

    def _add(self, key: NamedKey) -> None:
        self.keys.append(key)
        self.name = self.name or key.vkey.partition("+")[0]
        self.reached = self.reached or key.vkey == self.trusted

    def _check_follows(self, seq: int, kind: str, key: str, told: dict[str, Any]) -> None:
        if not self.keys:
            raise KeyChainError("it names a key that follows another, but the log had none")
        old = self.keys[-1].vkey
        if told.get("previous") != old:
            raise KeyChainError(f"it says that its key follows another one than {old}")
        signers = [key] if kind == EventKind.KEY_REPLACED else [old, key]
        statement = told.get("statement")
        try:
            if not isinstance(statement, str):
                raise KeyChainError("it has no signed statement")
            signed = [open_note(statement, [each]) for each in signers]
        except NoteError as error:
            raise KeyChainError(f"its statement does not hold: {error}") from None
        if any(text != rotation_text(seq, old, key) for text in signed):
            raise KeyChainError("its statement is about something else")
        if kind == EventKind.KEY_REPLACED and self.reached and key != self.trusted:
            raise KeyChainError(
                "the log's key was replaced without the old one's signature, because it was lost, "
                f"or by somebody who never had it: if you know that {key} is the log's key, say "
                "so with --key"
            )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
