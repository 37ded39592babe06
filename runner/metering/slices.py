"""How much of a budget a run holds at a time, of what flows; pure.

A run that goes on holds a slice of what is left, and takes the next one before it has used that up.
Small slices make few runs wait for what others hold and don't use; large ones make few writes. So a
slice is a quarter of what is left, at least `LEAST` and at most `MOST`, and never more than what
is left: all that runs hold and have used is within the budget at every moment.
"""

from __future__ import annotations

from runner.metering.usage import cpu_s, microseconds
from runner.model.budget import Resource
from runner.model.usage import Usage

SHARE = 4
LEAST_US = 250_000
"""A few looks of a watching loop (0.05 to 0.25 s); less would be used up before anybody looks."""
MOST_US = 10_000_000
"""A run that uses it in real time writes to the ledger every five seconds."""


def slice_of(left: int) -> int:
    """Of wall or CPU time, in microseconds; 0: there is nothing left."""
    return max(0, min(left, max(LEAST_US, min(MOST_US, left // SHARE))))


def due(used: int, charged: int, held: int) -> bool:
    """Whether to take the next slice: half of this one is used, or all of a small one."""
    return used - charged >= (held if held <= LEAST_US else held // 2)


def used_of(resource: Resource, usage: Usage) -> int | None:
    """What a usage says of a resource, in its unit; None: it was not measured."""
    match resource:
        case Resource.WALL:
            return None if usage.wall_s is None else microseconds(usage.wall_s)
        case Resource.CPU:
            used_s = cpu_s(usage)
            return None if used_s is None else microseconds(used_s)
        case _:
            return None
