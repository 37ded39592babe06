"""Forecasts of budgets from histories that are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.metering.forecast import HORIZON_DAYS, Forecast, forecast
from runner.model.budget import Calendar, Period, Resource, Sliding, Spent, Window
from runner.surfaces.cli.budget_forecast import as_data, plotted, table

HOUR_S, DAY_S = 3_600, 86_400
NOW_S = 1_763_942_400.0 + 12 * HOUR_S  # Monday, 24 November 2025, noon in UTC
THIS = int(NOW_S // HOUR_S)
MONTH = Calendar(Period.MONTH)
DAY = Calendar(Period.DAY)


def spent(used: int, amount: int, window: Window) -> Spent:
    return Spent("policy", "b", "agent:a", Resource.CALLS, amount, window, used)


def constant(hours: int, each: int = 10) -> list[tuple[int, int]]:
    return [(THIS - ago, each) for ago in range(hours, 0, -1)]


def of(
    hours: Sequence[tuple[int, int]],
    *,
    used: int,
    amount: int,
    window: Window,
    now_s: float = NOW_S,
) -> Forecast:
    return forecast(spent(used, amount, window), hours, now_s)


@pytest.mark.parametrize("hours", [0, 1, 5])
def test_too_little_history_says_so(hours: int) -> None:
    found = of(constant(hours), used=50, amount=100, window=MONTH)
    assert (found.per_day, found.used_up_s, found.month) == (None, None, None)
    assert "too little history" in "\n".join(table([found]))
    assert list(plotted(found, plain=True)) == []
    assert as_data(found)["used_up"] is None


@pytest.mark.parametrize("hours", [6, 24, 100, 1000])
def test_what_is_constant_is_foreseen_exactly(hours: int) -> None:
    found = of(constant(hours), used=100, amount=340, window=MONTH)
    assert found.per_day == pytest.approx(240)
    assert found.used_up_s is not None
    assert found.used_up_s.likely == pytest.approx(NOW_S + DAY_S, abs=1)
    assert found.used_up_s.low == found.used_up_s.high == found.used_up_s.likely
    assert found.month is not None
    since = (THIS - max(THIS - hours, THIS - 23 * 24 - 12)) * 10
    assert found.month.likely == pytest.approx(since + 6.5 * 240)


def test_a_budget_of_the_day_is_free_again_before_it_is_used_up() -> None:
    found = of(constant(100), used=120, amount=241, window=DAY)
    assert found.used_up_s is not None
    assert found.used_up_s.likely == math.inf
    found = of(constant(100), used=120, amount=239, window=DAY)
    assert found.used_up_s is not None
    assert NOW_S + 11 * HOUR_S < found.used_up_s.likely < NOW_S + 12 * HOUR_S


def test_what_leaves_a_window_that_moves_on_is_not_counted() -> None:
    """As much comes as goes: never used up, if it is enough now."""
    found = of(constant(100), used=240, amount=260, window=Sliding(float(DAY_S)))
    assert found.used_up_s is not None
    assert found.used_up_s.likely == math.inf
    busier = [*constant(100)[:-24], *((THIS - ago, 2) for ago in range(24, 0, -1))]
    found = of(busier, used=48, amount=150, window=Sliding(float(DAY_S)))
    assert found.used_up_s is not None
    assert NOW_S < found.used_up_s.likely < NOW_S + DAY_S


def test_the_rhythm_of_days_is_kept() -> None:
    """Busy by day, quiet by night: at noon the afternoon counts, in the evening the night."""
    hours = [(h, 20 if 8 <= h % 24 < 18 else 0) for h in range(THIS - 20 * 24, THIS)]
    noon = of(hours, used=0, amount=100, window=MONTH)
    assert noon.used_up_s is not None
    assert noon.used_up_s.likely == pytest.approx(NOW_S + 5 * HOUR_S, abs=1)
    later = [(h, 20 if 8 <= h % 24 < 18 else 0) for h in range(THIS - 20 * 24, THIS + 8)]
    evening = of(later, used=0, amount=100, window=MONTH, now_s=NOW_S + 8 * HOUR_S)
    assert evening.used_up_s is not None
    assert evening.used_up_s.likely == pytest.approx(NOW_S + 25 * HOUR_S, abs=1)


def test_weekends_are_kept_where_two_weeks_are_known() -> None:
    hours = [(h, 10 if (h // 24 + 3) % 7 < 5 else 0) for h in range(THIS - 28 * 24, THIS)]
    found = of(hours, used=0, amount=10_000, window=Sliding(90.0 * DAY_S))
    saturday = (THIS // 24 + 5) * 24 + 12
    assert found.expected[saturday] == 0
    assert found.expected[saturday - 48] == 10


def test_nothing_used_lasts_for_ever_and_is_no_plot() -> None:
    found = of([(THIS - 500, 0)], used=0, amount=1, window=MONTH)
    assert (found.per_day, found.month and found.month.likely) == (0, 0)
    assert found.used_up_s is not None
    assert found.used_up_s.likely == math.inf
    assert "not in sight" in "\n".join(table([found]))
    assert list(plotted(found, plain=True)) == []
    assert as_data(found)["used_up"] == {"likely": None, "low": None, "high": None}


def test_what_is_used_up_already_is_so_now() -> None:
    found = of(constant(100), used=300, amount=300, window=MONTH)
    assert found.used_up_s is not None
    assert found.used_up_s.likely == NOW_S
    assert "used up: now" in "\n".join(table([found]))


def test_a_month_is_that_of_the_budgets_zone() -> None:
    """New Year in Auckland comes thirteen hours before that of UTC."""
    before_s = 1_767_182_400.0 - 7 * HOUR_S  # 31 December 2025, 5:00 in UTC; 18:00 in Auckland
    hours = [(int(before_s // HOUR_S) - ago, 10) for ago in range(100, 0, -1)]
    utc = of(hours, used=0, amount=9999, window=MONTH, now_s=before_s)
    far = of(
        hours,
        used=0,
        amount=9999,
        window=Calendar(Period.MONTH, "Pacific/Auckland"),
        now_s=before_s,
    )
    assert utc.month is not None
    assert far.month is not None
    assert utc.month.likely - far.month.likely == pytest.approx(13 * 10)


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=600),
    st.integers(0, 5000),
    st.integers(1, 100_000),
    st.sampled_from([MONTH, DAY, Sliding(600.0), Sliding(3 * DAY_S), Sliding(40.0 * DAY_S)]),
    st.floats(0, HOUR_S - 1),
)
def test_what_holds_of_every_forecast(
    amounts: list[int], used: int, amount: int, window: Window, into_s: float
) -> None:
    hours = [(THIS - len(amounts) + n, each) for n, each in enumerate(amounts)]
    now_s = NOW_S + into_s
    found = of(hours, used=used, amount=amount, window=window, now_s=now_s)
    if len(amounts) < 6:
        assert found.used_up_s is None
        return
    assert found.used_up_s is not None
    assert now_s <= found.used_up_s.low <= found.used_up_s.likely <= found.used_up_s.high
    assert found.used_up_s.likely == math.inf or (
        found.used_up_s.likely <= now_s + (HORIZON_DAYS + 1) * DAY_S
    )
    assert found.month is not None
    assert 0 <= found.month.low <= found.month.likely <= found.month.high
    more = of(hours, used=used, amount=amount + 100, window=window, now_s=now_s)
    assert more.used_up_s is not None
    assert more.used_up_s.likely >= found.used_up_s.likely, "a larger budget lasts no shorter"
    for line in [*table([found]), *plotted(found, plain=True)]:
        assert line.isascii()
        assert len(line) < 120
