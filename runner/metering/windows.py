"""Windows of budgets over counters in buckets: where a charge goes, what counts, when it is free.

What is used is not remembered one by one but added up in buckets of a second, a minute, an hour or
a day, by the window's length, so that what counting costs does not grow with what happened. A
sliding window counts the bucket that it only partly covers as a whole. So it never lets more
through than stated, and counts longer by at most one bucket than a list of everything would. A
calendar window has one bucket, its own, and is exact. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo

from runner.model.budget import (
    CALENDAR,
    HISTORY,
    Bucket,
    Calendar,
    Period,
    PerRun,
    Sliding,
    Window,
)
from runner.policy.hours import zone_of

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400

LEVELS: tuple[tuple[int, int], ...] = (
    (1, 10 * MINUTE_S),
    (MINUTE_S, 12 * HOUR_S),
    (HOUR_S, 31 * DAY_S),
    (DAY_S, 366 * DAY_S),
)
"""Seconds of a bucket, and the longest sliding window over such ones: 366 to 744 of them each."""
HISTORY_S = HOUR_S
KEPT_S = 400 * DAY_S
"""How long history and calendar windows stay: a year, and the month around it."""

_MONTHS = 12


def place(window: Window, now_s: float) -> Bucket:
    """Where the window has what is charged now. ValueError: the zone is unknown, or no such time.

    `PerRun` has no counter: it is charged nowhere.
    """
    match window:
        case Sliding(window_s):
            level = level_of(window_s)
            return Bucket(level, math.floor(now_s / level))
        case Calendar():
            return Bucket(CALENDAR, math.floor(started(window, now_s)))
        case PerRun():
            raise ValueError("a run's own budget has no counter")


def history(now_s: float) -> Bucket:
    """Where forecasts find it."""
    return Bucket(HISTORY, math.floor(now_s / HISTORY_S))


def oldest(window: Window, now_s: float) -> Bucket:
    """The first bucket that counts now; all later ones do too, should the clock have gone back."""
    if isinstance(window, Sliding):
        level = level_of(window.window_s)
        return Bucket(level, math.floor((now_s - window.window_s) / level))
    return place(window, now_s)


def level_of(window_s: float) -> int:
    """Seconds of a bucket for a sliding window of this length."""
    return next((level for level, longest in LEVELS if window_s <= longest), LEVELS[-1][0])


def free_at(
    window: Window, now_s: float, buckets: Iterable[tuple[int, int]], excess: int
) -> float | None:
    """When `excess` of what counts now counts no more, in seconds since the epoch.

    `buckets`: number and amount of all that count. None: with them it never is.
    """
    if isinstance(window, Calendar):
        return ends(window, now_s)
    if not isinstance(window, Sliding):
        return None
    level = level_of(window.window_s)
    for number, amount in sorted(buckets):
        excess -= amount
        if excess <= 0:
            return (number + 1) * level + window.window_s
    return None


def started(window: Calendar, now_s: float) -> float:
    """When the calendar window began that holds `now_s`. ValueError, OverflowError: no such time.

    Midnights that a zone skips begin when the clocks were set.
    """
    local = datetime.fromtimestamp(now_s, zone_of(window.zone))
    start = _floor(local, window.period)
    return min(start.timestamp(), now_s)


def ends(window: Calendar, now_s: float) -> float:
    """When the next one begins: after `now_s`. ValueError, OverflowError: no such time."""
    zone = zone_of(window.zone)
    start = datetime.fromtimestamp(started(window, now_s), zone)
    if window.period is Period.HOUR:
        # By the true length of an hour: the clocks may be set in it.
        return _next_hour(window, start.timestamp())
    return _after(start, window.period, zone).timestamp()


def _next_hour(window: Calendar, start_s: float) -> float:
    for minutes in range(15, 180, 15):
        if started(window, start_s + minutes * MINUTE_S) > start_s:
            return start_s + minutes * MINUTE_S
    return start_s + HOUR_S


def _floor(local: datetime, period: Period) -> datetime:
    if period is Period.HOUR:
        return local.replace(minute=0, second=0, microsecond=0)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Period.MONTH else day


def _after(start: datetime, period: Period, zone: tzinfo) -> datetime:
    # Of a midnight that was skipped the start is later that day, so the date counts alone.
    day = datetime(start.year, start.month, start.day, tzinfo=zone)
    if period is Period.MONTH:
        year, month = divmod(day.year * _MONTHS + day.month, _MONTHS)
        return day.replace(year=year, month=month + 1)
    return day + timedelta(days=7 if period is Period.WEEK else 1)


def outdated(now_s: float) -> Sequence[Bucket]:
    """Of each level the first bucket that is to stay; no window counts an older one."""
    kept = [Bucket(level, math.floor((now_s - longest) / level) - 1) for level, longest in LEVELS]
    return [
        *kept,
        Bucket(CALENDAR, math.floor(now_s - KEPT_S)),
        Bucket(HISTORY, math.floor((now_s - KEPT_S) / HISTORY_S)),
    ]


def encoded(window: Window | None) -> str:
    """As the ledger has it; see `decoded`."""
    match window:
        case None:
            return ""
        case Sliding(window_s):
            return f"sliding {window_s!r}"
        case Calendar(period, zone):
            return f"calendar {period.value} {zone}"
        case PerRun():
            return window.value


def decoded(text: str) -> Window | None:
    """What `encoded` wrote; ValueError: it is nothing of the kind."""
    match text.split(" "):
        case [""]:
            return None
        case ["sliding", seconds] if math.isfinite(float(seconds)) and float(seconds) >= 1:
            return Sliding(float(seconds))
        case ["calendar", period, zone]:
            return Calendar(Period(period), zone)
        case ["run"]:
            return PerRun.RUN
    raise ValueError(f"{text!r} is no window")
