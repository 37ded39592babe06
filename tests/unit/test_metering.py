"""Arithmetic of usage, sampling of a tree of processes, and which limit was crossed."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.metering import (
    ProcessSample,
    SampledUsage,
    add,
    cpu_s,
    crossed,
    microseconds,
    total,
)
from runner.model.limits import UNLIMITED, LimitName, Limits
from runner.model.usage import Usage


def test_amounts_add_up_and_peaks_do_not() -> None:
    first = Usage(wall_s=1.5, memory_peak_bytes=100, processes=7, requests=2)
    second = Usage(wall_s=0.5, memory_peak_bytes=300, processes=3, requests=5)
    assert add(first, second) == Usage(wall_s=2.0, memory_peak_bytes=300, processes=7, requests=7)


def test_what_was_not_measured_is_not_zero() -> None:
    assert add(Usage(), Usage()) == Usage()
    assert add(Usage(execs=3), Usage()) == Usage(execs=3)
    assert add(Usage(), Usage(execs=0)) == Usage(execs=0)
    assert total([]) == Usage()


@pytest.mark.parametrize("name", [f.name for f in fields(Usage)])
def test_every_field_is_added(name: str) -> None:
    added = add(Usage(**{name: 2}), Usage(**{name: 3}))  # type: ignore[arg-type]
    peak = name in ("memory_peak_bytes", "processes")
    assert added == Usage(**{name: 3 if peak else 5})  # type: ignore[arg-type]


@given(st.lists(st.builds(Usage, execs=st.none() | st.integers(0, 9), processes=st.none())))
def test_the_order_of_adding_does_not_matter(usages: list[Usage]) -> None:
    assert total(usages) == total(reversed(usages))


@pytest.mark.parametrize(
    ("usage", "seconds"),
    [
        (Usage(), None),
        (Usage(cpu_user_s=1.0), 1.0),
        (Usage(cpu_system_s=2.0), 2.0),
        (Usage(cpu_user_s=1.0, cpu_system_s=2.0), 3.0),
    ],
)
def test_cpu_time_is_user_and_system(usage: Usage, seconds: float | None) -> None:
    assert cpu_s(usage) == seconds


@pytest.mark.parametrize(
    ("seconds", "charged"),
    [(None, 0), (0.0, 0), (0.1, 100_000), (1.5, 1_500_000), (1e-7, 1), (0.1 + 0.2, 300_000)],
)
def test_what_is_charged(seconds: float | None, charged: int) -> None:
    assert microseconds(seconds) == charged


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_what_can_not_be_charged(seconds: float) -> None:
    with pytest.raises(ValueError, match="can't be charged"):
        microseconds(seconds)


# --- sampling


def _sample(
    pid: int, user_s: float, children_s: float = 0.0, *, born: float = 1.0, **more: int
) -> ProcessSample:
    return ProcessSample(
        pid=pid,
        create_time=born,
        cpu_user_s=user_s,
        cpu_system_s=0.0,
        rss_bytes=more.get("rss", 0),
        threads=more.get("threads", 1),
        children_user_s=children_s,
    )


def _fed(*looks: list[ProcessSample]) -> Usage:
    sampled = SampledUsage()
    for look in looks:
        sampled.feed(look)
    return sampled.usage


def test_before_the_first_look_nothing_is_known() -> None:
    assert SampledUsage().usage == Usage()


def test_a_look_at_nothing_found_nothing() -> None:
    assert _fed([]) == Usage(cpu_user_s=0.0, cpu_system_s=0.0, memory_peak_bytes=0, processes=0)


def test_processes_and_memory_are_of_one_look() -> None:
    usage = _fed(
        [_sample(1, 0, rss=100, threads=2), _sample(2, 0, rss=50)],
        [_sample(1, 0, rss=120, threads=1)],
        [_sample(3, 0, rss=10, threads=4)],
    )
    assert (usage.memory_peak_bytes, usage.processes) == (150, 4)


def test_a_process_seen_twice_in_a_look_counts_once() -> None:
    usage = _fed([_sample(1, 2.0, rss=5), _sample(1, 2.0, rss=5)])
    assert (usage.cpu_user_s, usage.memory_peak_bytes, usage.processes) == (2.0, 5, 1)


def test_user_and_system_are_kept_apart() -> None:
    usage = _fed([replace(_sample(1, 2.0, 1.0), cpu_system_s=0.5, children_system_s=0.25)])
    assert (usage.cpu_user_s, usage.cpu_system_s) == (3.0, 0.75)


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        # a child that its parent waited for is counted once, with what it used after the look
        ([[_sample(1, 1), _sample(2, 5)], [_sample(1, 1, 5.5)]], 6.5),
        # one that nobody waited for is kept as it was last seen
        ([[_sample(1, 1), _sample(2, 5)], [_sample(1, 2)]], 7),
        # one of each
        ([[_sample(1, 1), _sample(2, 5), _sample(3, 4)], [_sample(1, 1, 5)]], 10),
        # children that no look ever saw
        ([[_sample(1, 1)], [_sample(1, 1, 3)]], 4),
        # grandchild to child to parent, all within one look
        ([[_sample(1, 1), _sample(2, 1), _sample(3, 5)], [_sample(1, 1, 6)]], 7),
        # the same, a look each
        (
            [
                [_sample(1, 1), _sample(2, 1), _sample(3, 5)],
                [_sample(1, 1), _sample(2, 1, 5)],
                [_sample(1, 1, 6)],
            ],
            7,
        ),
        # the whole tree is gone
        ([[_sample(1, 1), _sample(2, 5)], []], 6),
        # a pid that was used again is another process
        ([[_sample(1, 1), _sample(2, 5)], [_sample(1, 1), _sample(2, 3, born=9.0)]], 9),
        ([[_sample(2, 5)], [_sample(2, 0.5, born=9.0)], [_sample(2, 0.75, born=9.0)]], 5.75),
        # a look that missed a process does not count it twice
        ([[_sample(1, 1), _sample(2, 5)], [_sample(1, 1)], [_sample(1, 1), _sample(2, 6)]], 7),
        # a reading that falls is a reading that failed
        ([[_sample(1, 5)], [_sample(1, 4)], [_sample(1, 6)]], 6),
    ],
)
def test_cpu_time_is_counted_once(looks: list[list[ProcessSample]], seconds: float) -> None:
    assert _fed(*looks).cpu_user_s == pytest.approx(seconds)


def test_a_loop_of_children_that_nobody_waits_for_does_not_hide() -> None:
    """SIGCHLD ignored: the kernel hands their time to nobody (wait(2))."""
    looks = [[_sample(1, 0), _sample(pid, 1.0)] for pid in range(2, 32)]
    assert _fed(*looks).cpu_user_s == pytest.approx(30.0)


@given(
    st.lists(
        st.lists(
            st.builds(
                _sample,
                st.integers(1, 4),
                st.integers(0, 9).map(float),
                st.integers(0, 9).map(float),
                born=st.sampled_from([1.0, 2.0]),
                rss=st.integers(0, 9),
            ),
            max_size=5,
        )
    )
)
def test_nothing_ever_falls(looks: list[list[ProcessSample]]) -> None:
    sampled = SampledUsage()
    before = Usage(cpu_user_s=0.0, cpu_system_s=0.0, memory_peak_bytes=0, processes=0)
    for look in looks:
        sampled.feed(look)
        now = sampled.usage
        for field in ("cpu_user_s", "cpu_system_s", "memory_peak_bytes", "processes"):
            assert getattr(now, field) >= getattr(before, field)
        before = now


@given(st.data())
def test_against_a_tree_whose_parents_wait(data: st.DataObject) -> None:
    """A simulated tree where every end is waited for: what is sampled is what was used."""
    own = {1: 0.0}
    kids = {1: 0.0}
    parent: dict[int, int] = {}
    sampled, used, next_pid = SampledUsage(), 0.0, 2
    for _ in range(data.draw(st.integers(1, 25))):
        pid = data.draw(st.sampled_from(sorted(own)))
        match data.draw(st.sampled_from(["work", "fork", "end", "look"])):
            case "work":
                own[pid] += 1.0
                used += 1.0
            case "fork":
                own[next_pid], kids[next_pid], parent[next_pid] = 0.0, 0.0, pid
                next_pid += 1
            case "end" if pid != 1 and pid not in parent.values():
                heir = parent.pop(pid)
                kids[heir] += own.pop(pid) + kids.pop(pid)
            case _:
                sampled.feed([_sample(p, own[p], kids[p]) for p in own])
    sampled.feed([_sample(p, own[p], kids[p]) for p in own])
    assert sampled.usage.cpu_user_s == pytest.approx(used)


# --- limits

LIMITS = Limits(
    wall_s=UNLIMITED,
    cpu_time_s=10.0,
    cpus=UNLIMITED,
    memory_bytes=1000,
    processes=5,
    output_bytes=UNLIMITED,
    workspace_bytes=UNLIMITED,
    workspace_inodes=UNLIMITED,
    open_files=UNLIMITED,
)


@pytest.mark.parametrize(
    ("usage", "limit"),
    [
        (Usage(), None),
        (Usage(cpu_user_s=6.0, cpu_system_s=3.9, memory_peak_bytes=1000, processes=5), None),
        (Usage(cpu_user_s=6.0, cpu_system_s=4.0), LimitName.CPU_TIME),
        (Usage(cpu_system_s=99.0), LimitName.CPU_TIME),
        (Usage(memory_peak_bytes=1001), LimitName.MEMORY),
        (Usage(processes=6), LimitName.PROCESSES),
        (Usage(cpu_user_s=11.0, memory_peak_bytes=9999, processes=9), LimitName.CPU_TIME),
        (Usage(wall_s=1e9, requests=10**9), None),
    ],
)
def test_the_limit_that_was_crossed(usage: Usage, limit: LimitName | None) -> None:
    assert crossed(LIMITS, usage) is limit


def test_no_limit_is_never_crossed() -> None:
    free = replace(LIMITS, cpu_time_s=UNLIMITED, memory_bytes=UNLIMITED, processes=UNLIMITED)
    assert crossed(free, Usage(cpu_user_s=1e9, memory_peak_bytes=10**15, processes=10**6)) is None
