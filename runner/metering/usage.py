"""Arithmetic over what runs cost. What was not measured is None, and never becomes 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from runner.model.usage import Usage

NOTHING = Usage()
"""A usage of which nothing was measured; adding it changes nothing."""

# Levels, not amounts: of two runs the higher one counts, not their sum.
_PEAKS = frozenset({"memory_peak_bytes", "processes"})


def add(first: Usage, second: Usage) -> Usage:
    """What both cost together: amounts are summed, of peaks the higher one counts.

    A field that only one of them measured is that one's, so the result is at least what was
    used; None where neither did.
    """
    both: dict[str, Any] = {
        f.name: _joined(f.name, getattr(first, f.name), getattr(second, f.name))
        for f in fields(Usage)
    }
    return Usage(**both)


def total(usages: Iterable[Usage]) -> Usage:
    """What all of them cost together; see `add`."""
    together = NOTHING
    for usage in usages:
        together = add(together, usage)
    return together


def cpu_s(usage: Usage) -> float | None:
    """Seconds of CPU, user and system together; None when neither was measured."""
    return _joined("cpu", usage.cpu_user_s, usage.cpu_system_s)


def microseconds(seconds: float | None) -> int:
    """Whole microseconds to charge for `seconds`, rounded up; 0 for what was not measured.

    ValueError: a negative number, or one that is not finite.
    """
    if seconds is None:
        return 0
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds} seconds can't be charged")
    # A double of seconds is a little off the microsecond that was meant: 0.1 s is 100000 and
    # not 100001, so what is less than a nanosecond over does not count.
    return math.ceil(round(seconds * 1e6, 3))


def _joined(name: str, a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b) if name in _PEAKS else a + b
