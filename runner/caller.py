"""Whoever wants a run: its streams, and how long it waits for an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.model.approval import Approval
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
    asked: Callable[[Approval], object] | None = None
    """Told, before it is waited, what is asked."""
    observer: Observer | None = None
    """Told of the run while it goes on."""
    run_id: str | None = None
    """Of `recording.new_run_id`, where it was promised before the run begins; None: it gets one."""
