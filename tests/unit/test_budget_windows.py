"""Windows over buckets, against a list of every charge."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.metering import windows
from runner.metering.windows import LEVELS
from runner.model.budget import (
    CALENDAR,
    HISTORY,
    Bucket,
    Calendar,
    Period,
    PerRun,
    Sliding,
)

NOW_S = 1_750_000_000.0
DAY_S = 86_400.0

Charges = list[tuple[float, int]]


def counted(buckets: Counter[Bucket], since: Bucket) -> int:
    return sum(
        amount
        for bucket, amount in buckets.items()
        if bucket.level == since.level and bucket.number >= since.number
    )


lengths = st.one_of(
    st.floats(1, 600), st.floats(600, 43_200), st.floats(43_200, 31 * DAY_S),
    st.floats(31 * DAY_S, 366 * DAY_S), st.sampled_from([1.0, 60.0, 600.0, 3600.0, DAY_S]),
)  # fmt: skip


@given(
    window_s=lengths,
    ago=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 100)), max_size=40),
)
def test_a_sliding_window_counts_all_of_it_and_one_bucket_more_at_most(window_s, ago):
    window = Sliding(window_s)
    charges = [(NOW_S - share * window_s, amount) for share, amount in ago]
    buckets: Counter[Bucket] = Counter()
    for at_s, amount in charges:
        buckets[windows.place(window, at_s)] += amount
    level = windows.level_of(window_s)
    found = counted(buckets, windows.oldest(window, NOW_S))
    within = sum(amount for at_s, amount in charges if at_s > NOW_S - window_s)
    a_bucket_more = sum(amount for at_s, amount in charges if at_s > NOW_S - window_s - level)
    assert within <= found <= a_bucket_more


@given(
    window_s=lengths,
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 0.7), st.integers(1, 20)), max_size=60),
)
def test_who_takes_what_is_left_never_passes_the_amount_in_any_window(window_s, limit, steps):
    window = Sliding(window_s)
    buckets: Counter[Bucket] = Counter()
    taken: Charges = []
    now_s = NOW_S
    for share, wanted in steps:
        now_s += share * window_s
        used = counted(buckets, windows.oldest(window, now_s))
        if used + wanted <= limit:
            buckets[windows.place(window, now_s)] += wanted
            taken.append((now_s, wanted))
        else:
            # What is said of when it is free again is so: enough then, and not enough before.
            since = windows.oldest(window, now_s)
            counts = [
                (b.number, n) for b, n in buckets.items()
                if b.level == since.level and b.number >= since.number
            ]  # fmt: skip
            free_s = windows.free_at(window, now_s, counts, used + wanted - limit)
            if wanted > limit:
                continue
            assert free_s is not None
            assert free_s > now_s
            slack_s = 1e-3  # of doubles near the edge of a bucket
            assert counted(buckets, windows.oldest(window, free_s + slack_s)) + wanted <= limit
            before = counted(buckets, windows.oldest(window, max(now_s, free_s - slack_s)))
            assert before + wanted > limit
    for end_s, _ in taken:
        assert sum(n for at_s, n in taken if end_s - window_s < at_s <= end_s) <= limit


def test_a_clock_that_was_set_back_makes_nothing_free():
    for window in (Sliding(60.0), Sliding(DAY_S), Calendar(Period.DAY)):
        charged = windows.place(window, NOW_S)
        for back_s in (1.0, 30.0):
            since = windows.oldest(window, NOW_S - back_s)
            assert charged.number >= since.number


def test_no_window_sums_up_more_than_some_hundred_buckets():
    for window_s in (1, 599, 600, 601, 43_200, 43_201, 31 * 86_400, 31 * 86_400 + 1, 366 * 86_400):
        window = Sliding(float(window_s))
        newest, first = windows.place(window, NOW_S), windows.oldest(window, NOW_S)
        assert newest.level == first.level
        assert newest.number - first.number <= 745


ZONES = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe",
         "Pacific/Apia", "Africa/Cairo"]  # fmt: skip


@given(
    zone=st.sampled_from(ZONES),
    period=st.sampled_from(Period),
    at=st.integers(946_684_800, 1_900_000_000),
)
def test_calendar_windows_follow_each_other_without_gaps(zone, period, at):
    window = Calendar(period, zone)
    start_s, end_s = windows.started(window, at), windows.ends(window, at)
    assert start_s <= at < end_s
    assert windows.started(window, start_s) == start_s
    assert windows.started(window, end_s) == end_s
    assert windows.started(window, end_s - 1) == start_s
    assert windows.place(window, at) == Bucket(CALENDAR, math.floor(start_s))
    local = datetime.fromtimestamp(at, ZoneInfo(zone))
    begun = datetime.fromtimestamp(start_s, ZoneInfo(zone))
    if period is Period.DAY:
        assert begun.date() == local.date()
    if period is Period.WEEK:
        assert (begun.isocalendar()[:2]) == local.isocalendar()[:2]
    if period is Period.MONTH:
        assert (begun.year, begun.month) == (local.year, local.month)


def test_calendar_windows_begin_where_people_say_they_do():
    def at(text: str) -> float:
        return datetime.fromisoformat(text).timestamp()

    berlin = "Europe/Berlin"
    day = Calendar(Period.DAY, berlin)
    assert windows.started(day, at("2026-03-29T12:00+02:00")) == at("2026-03-29T00:00+01:00")
    assert windows.ends(day, at("2026-03-29T12:00+02:00")) == at("2026-03-30T00:00+02:00")
    month = Calendar(Period.MONTH, berlin)
    assert windows.ends(month, at("2026-12-31T23:30+01:00")) == at("2027-01-01T00:00+01:00")
    week = Calendar(Period.WEEK)
    assert windows.started(week, at("2026-11-26T10:00+00:00")) == at("2026-11-23T00:00+00:00")
    hour = Calendar(Period.HOUR, "Asia/Kolkata")
    assert windows.started(hour, at("2026-11-26T10:45+05:30")) == at("2026-11-26T10:00+05:30")
    # The hour that the clocks are set back to is another one.
    once, again = at("2026-10-25T02:30+02:00"), at("2026-10-25T02:30+01:00")
    hour = Calendar(Period.HOUR, berlin)
    assert windows.started(hour, once) == at("2026-10-25T02:00+02:00")
    assert windows.started(hour, again) == at("2026-10-25T02:00+01:00")
    # A midnight that is skipped: the day begins when the clocks are set.
    cairo = Calendar(Period.DAY, "Africa/Cairo")
    assert windows.started(cairo, at("2026-04-24T12:00+03:00")) == at("2026-04-24T01:00+03:00")


def test_a_calendar_window_is_free_with_the_next_one():
    month = Calendar(Period.MONTH)
    now_s = datetime(2026, 2, 10, tzinfo=UTC).timestamp()
    assert windows.free_at(month, now_s, [], 1) == datetime(2026, 3, 1, tzinfo=UTC).timestamp()


def test_what_is_outdated_is_counted_by_no_window():
    gone = {bucket.level: bucket.number for bucket in windows.outdated(NOW_S)}
    assert set(gone) == {level for level, _ in LEVELS} | {CALENDAR, HISTORY}
    for level, longest_s in LEVELS:
        assert gone[level] < windows.oldest(Sliding(float(longest_s)), NOW_S).number
    for period in Period:
        for zone in ZONES:
            assert gone[CALENDAR] < windows.started(Calendar(period, zone), NOW_S)
    assert gone[HISTORY] < windows.history(NOW_S - 366 * DAY_S).number


@given(
    st.one_of(
        st.none(),
        st.just(PerRun.RUN),
        lengths.map(Sliding),
        st.builds(Calendar, st.sampled_from(Period), st.sampled_from(ZONES)),
    )
)
def test_a_window_is_read_as_it_was_written(window):
    assert windows.decoded(windows.encoded(window)) == window


@pytest.mark.parametrize(
    "text",
    ["sliding", "sliding nan", "sliding 0.5", "sliding x", "calendar day", "calendar year UTC",
     "other", "sliding inf", "sliding -5"],
)  # fmt: skip
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        windows.decoded(text)
