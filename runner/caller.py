"""Whoever wants a run: its streams, and how long it waits for an answer."""

from __future__ import annotations

from dataclasses import dataclass

from runner.ports import Observer, OutputSink


@dataclass(frozen=True, slots=True)
class Caller:
    """One run's caller."""

    stdin: int | bytes | None
    stdout: OutputSink
    stderr: OutputSink
    terminal: int | None = None
    ask_wait_s: float = 0.0
    """Seconds for all answers together; without one it is a denial."""
    observer: Observer | None = None
    """Told of it meanwhile."""
    run_id: str | None = None
    """Of `recording.new_run_id`, where it was promised before the run begins; None: it gets one."""
    identity: str | None = None
    """Who calls a server, as identities are named (`key:ID`); recorded. None: nobody does."""
