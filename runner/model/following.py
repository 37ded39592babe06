"""What happens in a run, as whoever follows it is told: `stream` yields these in order."""

from __future__ import annotations

from dataclasses import dataclass

from runner.model.decision import Decision
from runner.model.outcome import Outcome
from runner.model.usage import Usage


@dataclass(frozen=True, slots=True)
class WaitsForAnswer:
    """A rule asks, and the run waits; before it begins, perhaps more than once."""

    approval_id: str
    reason: str
    rules: tuple[str, ...]
    expires: str
    """RFC 3339, UTC: without an answer it is a denial then."""


@dataclass(frozen=True, slots=True)
class Began:
    """It is decided and recorded; of a denied one the outcome is next."""

    run_id: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of its output, as it came."""

    stream: str
    """`stdout` or `stderr`."""
    offset_bytes: int
    """Of this stream, before it."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Used:
    """What it has used so far, now and then."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Missed:
    """Events, output among them, that came while a connection was cut and are not to be had.

    What was kept of the output is in the outcome all the same.
    """


@dataclass(frozen=True, slots=True)
class Over:
    """The last one."""

    outcome: Outcome


RunEvent = WaitsForAnswer | Began | Written | Used | Missed | Over
