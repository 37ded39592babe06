"""Whoever wants a run: what they say, its streams, and how long it waits for an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from runner.model.limits import LimitOverrides
from runner.ports import Observer, OutputSink


class Proposed(TypedDict, total=False):
    """What is to be run beside `argv`, by whom and under what: see `Runner.run`."""

    shell: str | None
    script: str | os.PathLike[str] | None
    code: str | bytes | None
    language: str | None
    args: Sequence[str]
    profile: str | None
    agent: str | None
    parent: str | None
    session: str | None
    tenant: str | None
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    limits: Mapping[str, object] | LimitOverrides | None
    labels: Mapping[str, str] | None


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
