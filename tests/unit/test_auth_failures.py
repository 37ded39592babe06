"""Strangers are counted, and neither fill the log nor go unseen."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import RecordError
from runner.surfaces.http.failures import SINGLY, WINDOW_S, Failures
from runner.testing.fakes import FakeClock


class Log:
    def __init__(self) -> None:
        self.data: list[dict] = []
        self.works = True

    def __call__(self, drafts) -> None:
        if not self.works:
            raise RecordError("the disk is full")
        self.data += [dict(draft.data) for draft in drafts]

    @property
    def count(self) -> int:
        return sum(each["count"] for each in self.data)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def fail(failures: Failures, why: str = "key unknown") -> None:
    failures.record(failures.note(why, key=None, peer="192.0.2.1"))


def test_the_first_ones_are_recorded_singly_and_the_rest_as_one(clock) -> None:
    log = Log()
    failures = Failures(log, clock)
    failures.record(failures.note("key revoked", key="rnk_x", peer="uid:7"))
    for n in range(1000):
        fail(failures, "none" if n % 2 else "key unknown")
    assert len(log.data) == SINGLY
    assert log.data[0] == {
        "count": 1, "why": {"key revoked": 1}, "key": "rnk_x", "peer": "uid:7",
        "since": "2025-06-15T15:06:40.000000Z",
    }  # fmt: skip
    clock.advance(WINDOW_S)
    fail(failures)
    assert len(log.data) == SINGLY + 2
    rest = log.data[-2]
    assert rest["count"] == 1001 - SINGLY
    assert sum(rest["why"].values()) == rest["count"]
    assert (rest["key"], rest["peer"]) == (None, None)
    assert log.count == 1002
    assert failures.counted == {"key revoked": 1, "none": 500, "key unknown": 501}


def test_the_end_tells_the_rest(clock) -> None:
    log = Log()
    failures = Failures(log, clock)
    failures.finish()
    assert log.data == []
    for _ in range(SINGLY + 5):
        fail(failures)
    failures.finish()
    failures.finish()
    assert log.count == SINGLY + 5
    assert log.data[-1]["count"] == 5


def test_what_could_not_be_recorded_is_told_later(clock) -> None:
    log = Log()
    failures = Failures(log, clock)
    log.works = False
    for _ in range(3):
        fail(failures)
    log.works = True
    failures.finish()
    assert [each["count"] for each in log.data] == [3]


@given(st.lists(st.sampled_from([0.0, 1.0, WINDOW_S / 3, WINDOW_S, -5.0]), max_size=80))
def test_all_are_counted_whatever_the_clock_does(steps) -> None:
    clock, log = FakeClock(), Log()
    failures = Failures(log, clock)
    for step in steps:
        clock.advance(step) if step >= 0 else clock.step(step)
        fail(failures)
    failures.finish()
    assert log.count == len(steps)


def test_all_threads_are_counted(clock) -> None:
    log = Log()
    failures = Failures(log, clock)
    threads = [
        threading.Thread(target=lambda: [fail(failures) for _ in range(200)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures.finish()
    assert log.count == 1600
    assert len(log.data) == SINGLY + 1
