"""Which keepings go: the too old, then the oldest until the rest fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.metering.keeping import DAY_S, to_drop
from runner.model.keeping import Kept
from runner.model.limits import UNLIMITED

NOW_S = 100.0 * DAY_S


def kept(*pairs: tuple[float, int]) -> list[Kept]:
    """Of (age in days, size in bytes)."""
    return [Kept(f"run-{i}", NOW_S - age * DAY_S, size) for i, (age, size) in enumerate(pairs)]


def dropped(pairs: list[tuple[float, int]], days: object, total: object) -> list[str]:
    return [each.run_id for each in to_drop(kept(*pairs), NOW_S, days, total)]


def test_age_drops_what_is_older_and_keeps_what_is_exactly_as_old():
    assert dropped([(1, 5), (30, 5), (30.1, 5)], 30, UNLIMITED) == ["run-2"]


def test_size_drops_the_oldest_first_and_no_more_than_needed():
    assert dropped([(1, 5), (3, 5), (2, 5)], UNLIMITED, 10) == ["run-1"]
    assert dropped([(1, 5), (3, 5), (2, 5)], UNLIMITED, 9) == ["run-1", "run-2"]
    assert dropped([(1, 5), (3, 5), (2, 5)], UNLIMITED, 15) == []


def test_both_and_neither():
    pairs = [(50, 100), (40, 1), (1, 4), (0, 4)]
    assert dropped(pairs, 45, 8) == ["run-0", "run-1"]
    assert dropped(pairs, UNLIMITED, UNLIMITED) == []
    assert dropped(pairs, UNLIMITED, 0) == ["run-0", "run-1", "run-2", "run-3"]


def test_the_future_is_young():
    assert dropped([(-5, 5), (0, 5)], 1, 5) == ["run-1"]


@given(
    st.lists(st.tuples(st.floats(-10, 100), st.integers(0, 1000))),
    st.one_of(st.just(UNLIMITED), st.integers(1, 60)),
    st.one_of(st.just(UNLIMITED), st.integers(0, 5000)),
)
def test_what_stays_is_within_both_bounds_and_younger_than_what_goes(pairs, days, total):
    every = kept(*pairs)
    gone = to_drop(every, NOW_S, days, total)
    stays = [each for each in every if each not in gone]
    if total is not UNLIMITED:
        assert sum(each.size_bytes for each in stays) <= total
    if days is not UNLIMITED:
        assert all(NOW_S - each.since_s <= days * DAY_S for each in stays)
    if gone and stays:
        assert max(each.since_s for each in gone) <= min(each.since_s for each in stays)
