"""When checkpoints of the log are made, and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DestinationKind(StrEnum):
    """How a checkpoint gets somewhere else."""

    FILE = "file"
    """Appended to, and on the disk before it counts as sent."""
    COMMAND = "command"
    """Gets it on stdin; exit code 0 says that it has it."""
    URL = "url"
    """Gets it as the body of a POST; a status from 200 to 299 says that it has it."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Somewhere that the log's owner can't write, as far as that can be had."""

    kind: DestinationKind
    words: tuple[str, ...]
    """The command; or one word, the absolute path or the URL."""

    def __str__(self) -> str:
        """As people know it, without what a URL may hold that is secret."""
        if self.kind is not DestinationKind.URL:
            return " ".join(self.words)
        scheme, _, rest = self.words[0].partition("://")
        authority, slash, path = rest.partition("/")
        return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class CheckpointRules:
    """When one is made (besides at the end of each process that wrote), and where it is sent."""

    every_events: int = 256
    """At the latest after so many events. Signing takes 36 µs, so it is little of their cost."""
    every_s: float = 300.0
    """At the next event when the last one is older; a run's start does not wait for it."""
    to: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class Unsent:
    """What a destination did not get."""

    destination: str
    checkpoints: int
    """So many that were made since the last one that it has."""
    since: str | None
    """When sending began to fail, RFC 3339; None: it was not tried yet."""
    why: str | None
    """A clause; None: as above."""
