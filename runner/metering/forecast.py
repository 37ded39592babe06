"""When a budget will be used up, and what a month comes to, from what was used so far. Pure.

What the next hours use is taken from the same hours of earlier days: the mean of that hour of the
week where there are two weeks of history, of that hour of the day where there are three days, else
the mean of all hours since the first one. The mean is over the hours up to now, quiet ones too.

A range says how far a forecast may be off: four of five sums of so many hours are within it, if
hours vary as they did and one tells nothing of the next. They do tell of each other, so it is
rather too narrow; and nothing is foreseen that was not there before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runner.metering.windows import HISTORY_S, ends, oldest, started
from runner.model.budget import Calendar, Period, Sliding, Spent

DAYS = 56
"""So much history is looked at."""
HORIZON_DAYS = 92
"""A budget that lasts longer than that is not said to be used up."""
DAY_HOURS, WEEK_HOURS = 24, 168
_DAILY, _WEEKLY = 3 * DAY_HOURS, 2 * WEEK_HOURS
_LEAST = 6  # hours; the sums of fewer say nothing
_TENTH = 1.2816  # the standard normal distribution's 90th percentile


@dataclass(frozen=True, slots=True)
class Range:
    """A forecast, and between what it is four times of five."""

    likely: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one counter."""

    spent: Spent
    history: Mapping[int, int]
    """Hour of the epoch: what was charged in it; those up to now, from the first one on."""
    expected: Mapping[int, float]
    """Hour of the epoch: what is expected of it; the next ones."""
    per_day: float | None
    """What a day uses, in the resource's unit; None: there is too little history."""
    used_up_s: Range | None
    """When nothing is left, in seconds since the epoch (`low`: the earliest); inf: not within
    `HORIZON_DAYS`, or not before it is free again. None: there is too little history."""
    month: Range | None
    """What the calendar month comes to in all, in the resource's unit."""


def forecast(spent: Spent, hours: Iterable[tuple[int, int]], now_s: float) -> Forecast:
    """`hours`: hour of the epoch and what was charged in it, of the last `DAYS`, oldest first."""
    this = math.floor(now_s / HISTORY_S)
    charged = {hour: amount for hour, amount in hours if hour <= this}
    first = min(charged, default=this)
    known = {hour: charged.get(hour, 0) for hour in range(first, this)}  # whole ones
    if len(known) < _LEAST:
        return Forecast(spent, charged, {}, None, None, None)
    of_hour = _expected(known)
    variance = sum((amount - of_hour(hour)) ** 2 for hour, amount in known.items()) / len(known)
    next_hours = range(this, this + HORIZON_DAYS * DAY_HOURS)
    expected = {hour: of_hour(hour) for hour in next_hours}
    expected[this] *= 1 - (now_s / HISTORY_S - this)  # the rest of this one
    deviation = math.sqrt(variance)
    return Forecast(
        spent=spent,
        history=charged,
        expected=expected,
        per_day=sum(expected[hour] for hour in next_hours[1 : 1 + WEEK_HOURS]) / 7,
        used_up_s=_used_up(spent, charged, expected, deviation, now_s),
        month=_month(spent, charged, expected, deviation, now_s),
    )


def _expected(known: Mapping[int, int]) -> Callable[[int], float]:
    """What an hour uses, by the hours before."""
    period = 1
    if len(known) >= _DAILY:
        period = DAY_HOURS
    if len(known) >= _WEEKLY:
        period = WEEK_HOURS
    sums, counts = [0] * period, [0] * period
    for hour, amount in known.items():
        sums[hour % period] += amount
        counts[hour % period] += 1
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    return lambda hour: means[hour % period]


def _used_up(
    spent: Spent,
    charged: Mapping[int, int],
    expected: Mapping[int, float],
    deviation: float,
    now_s: float,
) -> Range:
    """Hour after hour: what counts then, of what was used and is expected."""
    window = spent.window
    used = float(spent.used or 0)
    last_s = math.inf
    leaving: dict[int, float] = {}
    span = 0
    if isinstance(window, Calendar):
        last_s = ends(window, now_s)
    elif isinstance(window, Sliding):
        span = math.ceil(window.window_s / HISTORY_S)
        since = oldest(Sliding(max(window.window_s, HISTORY_S)), now_s)
        begins = math.floor(since.number * since.level / HISTORY_S)
        leaving = {hour: float(n) for hour, n in charged.items() if hour >= begins}
    found = {-1: math.inf, 0: math.inf, 1: math.inf}  # high use: early
    coming = 0.0
    for count, (hour, more) in enumerate(expected.items(), start=1):
        at_s = max(now_s, hour * HISTORY_S)
        if at_s >= last_s:
            break
        # Of a window shorter than an hour, so much of an hour counts at a time.
        share = min(1.0, window.window_s / HISTORY_S) if isinstance(window, Sliding) else 1.0
        before = used + coming
        coming += more * share
        if span:
            gone = hour - span
            used -= min(used, leaving.pop(gone, 0.0))
            if gone in expected:
                coming -= expected[gone] * share
        spread = _TENTH * deviation * share * math.sqrt(min(count, span or count))
        for sign, at_found_s in found.items():
            reached = used + coming - sign * spread
            if at_found_s == math.inf and reached >= spent.amount:
                left = max(0.0, spent.amount - before + sign * spread)
                part = min(1.0, left / (more * share)) if more > 0 else 0.0
                found[sign] = min(at_s + part * ((hour + 1) * HISTORY_S - at_s), last_s)
    return Range(likely=found[0], low=found[-1], high=found[1])


def _month(
    spent: Spent,
    charged: Mapping[int, int],
    expected: Mapping[int, float],
    deviation: float,
    now_s: float,
) -> Range:
    zone = spent.window.zone if isinstance(spent.window, Calendar) else "UTC"
    month = Calendar(Period.MONTH, zone)
    begins, over = (
        math.floor(at_s / HISTORY_S) for at_s in (started(month, now_s), ends(month, now_s))
    )
    used = sum(amount for hour, amount in charged.items() if hour >= begins)
    coming = [amount for hour, amount in expected.items() if hour < over]
    likely = used + sum(coming)
    spread = _TENTH * deviation * math.sqrt(len(coming))
    return Range(likely, max(float(used), likely - spread), likely + spread)
