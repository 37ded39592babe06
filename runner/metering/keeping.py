"""Which of the runs' keepings have to go; pure."""

from __future__ import annotations

from collections.abc import Iterable

from runner.model.keeping import Kept
from runner.model.limits import Unlimited

DAY_S = 86_400


def to_drop(
    kept: Iterable[Kept], now_s: float, days: int | Unlimited, total_bytes: int | Unlimited
) -> list[Kept]:
    """Those that are older than `days`, then the oldest until the rest fits; oldest first.

    `now_s`: seconds since the epoch. What is exactly as old, or as large, as allowed stays; what
    seems to be of the future is as young as can be.
    """
    oldest_first = sorted(kept, key=lambda each: (each.since_s, each.run_id))
    rest_bytes = sum(each.size_bytes for each in oldest_first)
    dropped = []
    for each in oldest_first:
        too_old = not isinstance(days, Unlimited) and now_s - each.since_s > days * DAY_S
        too_much = not isinstance(total_bytes, Unlimited) and rest_bytes > total_bytes
        if not (too_old or too_much):
            break  # all that come are younger, and fit
        dropped.append(each)
        rest_bytes -= each.size_bytes
    return dropped
