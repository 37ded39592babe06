from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import RequestError
from runner.model.limits import LIMIT_KEYS, UNLIMITED, LimitOverrides, Unlimited, spelled
from runner.schema.limits import PARSERS, parse_limit_mapping, parse_limit_options, spell_limits
from runner.schema.quantities import (
    MAX_WHOLE,
    parse_count,
    parse_duration,
    parse_number,
    parse_size,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[("5s", 5), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("1d", 86400), ("0.5", 0.5)],
        *[(5, 5), (0.25, 0.25), ("30", 30), ("1.5h", 5400), ("unlimited", UNLIMITED)],
    ],
)
def test_durations(value: object, seconds: object) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [
        *[("64MiB", 64 << 20), ("10M", 10_000_000), ("10MB", 10_000_000), ("1GiB", 1 << 30)],
        *[("4096", 4096), (4096, 4096), ("1k", 1000), ("1KiB", 1024), ("1TiB", 1 << 40)],
        *[("1.5KiB", 1536), ("9007199254740991", MAX_WHOLE), ("unlimited", UNLIMITED)],
    ],
)
def test_sizes(value: object, size: object) -> None:
    found = parse_size(value)
    assert found == size
    assert isinstance(found, int | Unlimited)


def test_counts_and_numbers() -> None:
    assert parse_count("32") == 32
    assert parse_count(7) == 7
    assert parse_count("unlimited") is UNLIMITED
    assert parse_number("0.5") == 0.5
    assert parse_number(2) == 2.0


BAD: tuple[object, ...] = (0, -1, "0", "-5", 0.0, -0.5, math.nan, math.inf, -math.inf, "nan", "inf")
BAD += ("", " ", "five", "5 5", "1:30", "0x10", "1_000", "5 s s", True, False, None, [], {}, "٣")
BAD += ("1e400", "9" * 400, 10**400, "Unlimited")


@pytest.mark.parametrize("parser", [parse_duration, parse_size, parse_count, parse_number])
@pytest.mark.parametrize("value", BAD)
def test_what_no_quantity_is(parser: Callable[[object], object], value: object) -> None:
    with pytest.raises(ValueError, match=r"give |say 'unlimited'"):
        parser(value)


@pytest.mark.parametrize(
    ("parser", "value", "words"),
    [
        (parse_size, "64mib", "did you mean 64MiB?"),
        (parse_size, "5s", "unknown unit 's'"),
        (parse_size, "0.5", "less than one byte"),
        (parse_size, MAX_WHOLE + 1, "unlimited"),
        (parse_duration, "5S", "did you mean 5s?"),
        (parse_duration, "64MiB", "unknown unit"),
        (parse_duration, "400d", "366 days"),
        (parse_count, "1.5", "whole number"),
        (parse_count, "5k", "unknown unit"),
        (parse_number, 100_000, "65536"),
    ],
)
def test_messages_help(parser: Callable[[object], object], value: object, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parser(value)
    assert words in str(caught.value)


@given(st.sampled_from(sorted(PARSERS)), st.integers(1, 10**7))
def test_what_is_spelled_is_read_as_it_was(key: str, number: int) -> None:
    if key == "cpus":
        number = number % 4096 + 1
    bound = PARSERS[key](number)
    assert PARSERS[key](spelled(LIMIT_KEYS[key], bound)) == bound


@given(st.text(max_size=12))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parser in (parse_duration, parse_size, parse_count, parse_number):
        try:
            found = parser(text)
        except ValueError:
            continue
        assert isinstance(found, Unlimited) or found > 0


def test_every_limit_has_a_parser() -> None:
    assert tuple(PARSERS) == tuple(LIMIT_KEYS)


def test_limit_options() -> None:
    found = parse_limit_options(["wall=5s", "memory=64MiB", "inodes=10", "cpus=unlimited"])
    assert found == LimitOverrides(
        wall_s=5.0, memory_bytes=64 << 20, workspace_inodes=10, cpus=UNLIMITED
    )
    assert parse_limit_options([]) == LimitOverrides()
    assert spell_limits(found) == {
        "wall": "5s",
        "cpus": "unlimited",
        "memory": "64MiB",
        "inodes": "10",
    }


def test_all_bad_limit_options_are_told_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        parse_limit_options(["wal=5s", "wall", "memory=much", "cpus=1", "cpus=2", "output=1M"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "did you mean 'wall'?" in str(caught.value)
    assert "wall=5s" in str(caught.value)


def test_limit_mapping_takes_numbers() -> None:
    assert parse_limit_mapping({"wall": 1.5, "output": "1M"}) == LimitOverrides(
        wall_s=1.5, output_bytes=1_000_000
    )
    with pytest.raises(RequestError, match="unknown limit 'wall_s'; did you mean 'wall'"):
        parse_limit_mapping({"wall_s": 1})
