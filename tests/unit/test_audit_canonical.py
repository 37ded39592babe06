"""Canonical bytes: RFC 8785's own examples, the escape, and what is refused."""

from __future__ import annotations

import json
import math
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.audit.canonical import (
    MAX_DEPTH,
    MAX_SAFE_INTEGER,
    _parse_integer,
    _plain,
    _refuse_constant,
    canonical,
    canonical_again,
    escape,
    parse_canonical,
    unescape,
    written_fast,
)
from runner.errors import RecordError

any_text = st.text(
    st.characters(codec=None, exclude_categories=())
    | st.sampled_from(["\udc80", "\ud800", "\udfff", "\ufffd", "d", "8", "0"])
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)


def test_the_example_of_rfc_8785() -> None:
    """RFC 8785, 3.2.2 and 3.2.3."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert canonical(value).decode() == (
        '{"literals":[null,true,false],'
        '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf16() -> None:
    """RFC 8785, 3.2.3: a pair of surrogates sorts before U+FB33."""
    keys = ["€", "\r", "\ufb33", "1", "😀", "\u0080", "ö"]
    found = list(json.loads(canonical(dict.fromkeys(keys, 0))))
    assert found == ["\r", "1", "\u0080", "ö", "€", "😀", "\ufb33"]


@pytest.mark.parametrize(
    ("number", "spelled"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (333333333.3333333, "333333333.3333333"),
        (1424953923781206.2, "1424953923781206.2"),
        (MAX_SAFE_INTEGER, "9007199254740991"),
        (-MAX_SAFE_INTEGER, "-9007199254740991"),
    ],
)
def test_numbers_of_rfc_8785_appendix_b(number: float, spelled: str) -> None:
    data = canonical(number)
    assert data.decode() == spelled
    assert parse_canonical(data) == number


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain ünïcode 😀", "plain ünïcode 😀"),
        ("a\udcffb", "a\ufffddcffb"),
        ("\ufffd", "\ufffd\ufffd"),
        ("\ufffddcff", "\ufffd\ufffddcff"),
        ("\ud83d\ude00", "\ufffdd83d\ufffdde00"),
    ],
)
def test_the_escape_is_what_it_is(text: str, escaped: str) -> None:
    assert escape(text) == escaped
    assert unescape(escaped) == text


@given(any_text)
def test_the_escape_is_reversible(text: str) -> None:
    escape(text).encode("utf-8")
    assert unescape(escape(text)) == text


@settings(max_examples=300)
@given(json_values)
def test_one_value_has_one_spelling(value: object) -> None:
    data = canonical(value)
    json.loads(data)
    parse_canonical(data)


@given(st.dictionaries(any_text, st.integers(0, 9)))
def test_no_two_keys_become_one(value: dict[str, int]) -> None:
    found = json.loads(canonical(value))
    assert {unescape(k): v for k, v in found.items()} == value


def _nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": {"b": [1, 2**53]}}, r"a\.b\[1\] holds an integer beyond 2\^53"),
        ({"a": -(2**53)}, "beyond"),
        ({"a": float("nan")}, "a holds the number nan"),
        ({"a": [float("inf")]}, r"a\[0\] holds the number inf"),
        ({"a": b"x"}, "a holds a bytes"),
        ({"a": {1: 2}}, "a holds a int as a key"),
        ({"a": {"x"}}, "a holds a set"),
        (object(), "its top level holds a object"),
        (_nested(MAX_DEPTH + 1), "nested deeper than 64"),
    ],
)
def test_what_json_can_not_hold_is_refused_by_place(value: object, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        canonical(value)


def test_the_deepest_nesting_is_written() -> None:
    assert parse_canonical(canonical(_nested(MAX_DEPTH))) == _nested(MAX_DEPTH)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" 1",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b"1.0",
        b"-0",
        b"1e2",
        b"1e400",
        b"9007199254740993",
        b"NaN",
        b"Infinity",
        b'"\\u0041"',
        b'"\\ud800"',
        b'{"\\ud800":1}',
        b'"\xff"',
        b"[" * 100_000,
        b"9" * 10_000,
    ],
)
def test_another_spelling_is_not_canonical(data: bytes) -> None:
    with pytest.raises(ValueError, match="not canonical"):
        parse_canonical(data)


def _written_slowly(value: object) -> bytes:
    return canonical_again(_plain(value, "", 0))


_spelled = st.sampled_from(
    """0 -0 1 1.0 -1.5 0.00001 0.0000001 1e5 1e-7 1E5 1e+21 1e21 10000000000000000
    9007199254740991 9007199254740993 1e400 NaN "e5" ".0," 1.5e-6""".split()  # noqa: SIM905  (read more easily so)
)


@pytest.mark.parametrize("keys", [["\ufb33", "😀"], ["ö", "o", "\ue000"], ["a\ufffd", "a"]])
def test_the_fast_way_sorts_keys_alike(keys: list[str]) -> None:
    value = {"k": dict.fromkeys(keys, "\ufb33"), **dict.fromkeys(keys, 1)}
    assert canonical(value) == _written_slowly(value)


@pytest.mark.parametrize("text", ["plain", "ö €", "\x7f\u2028\ufeff", '\\u0041 "\0'])
def test_the_fast_way_is_taken_for_what_is_usual(text: str) -> None:
    value = {"a": [text, {text: 1.5}], "b": None}
    written = written_fast(value)
    assert written is not None
    assert written.data == _written_slowly(value)
    assert (written.keys, written.texts) == (["a", "b", text], [text])


def test_the_fast_way_leaves_no_room_for_an_event_around_it() -> None:
    """What is written for a place in something else counts the levels above it."""
    assert written_fast({"a": _nested(MAX_DEPTH - 1)}) is not None
    assert written_fast({"a": _nested(MAX_DEPTH - 1)}, 1) is None


@settings(max_examples=500)
@given(st.dictionaries(any_text, json_values, max_size=4))
def test_the_fast_way_writes_the_same_bytes(value: dict[str, object]) -> None:
    assert canonical(value) == _written_slowly(value)


@settings(max_examples=500)
@given(st.lists(_spelled, min_size=1, max_size=4), st.sampled_from(["{%s}", "[%s]", '{"a":[%s]}']))
def test_the_fast_way_takes_the_same_bytes(numbers: list[str], form: str) -> None:
    pairs = ",".join(f'"k{n}":{number}' for n, number in enumerate(numbers))
    data = (form % (pairs if form == "{%s}" else ",".join(numbers))).encode()
    try:
        expected: object = json.loads(
            data, parse_int=_parse_integer, parse_constant=_refuse_constant
        )
        if canonical_again(expected) != data:
            expected = None
    except ValueError:
        expected = None
    try:
        found: object = parse_canonical(data)
    except ValueError:
        found = None
    assert repr(found) == repr(expected)


def test_the_fast_way_knows_every_exponent() -> None:
    for exponent in range(-323, 309):
        for mantissa in ("1", "1.5", "-9.999999999999999"):
            near = float(f"{mantissa}e{exponent}")
            for number in filter(math.isfinite, (near, math.nextafter(near, 0), round(near, 3))):
                value = {"a": [number], "b": number}
                data = _written_slowly(value)
                assert canonical(value) == data
                assert parse_canonical(data) == value


@pytest.mark.parametrize(
    "value", [{"a": uuid.uuid4()}, {"a": {1: 2}}, {"a": [math.nan]}, {"a": [[{"b": math.inf}]]}]
)
def test_what_orjson_would_write_is_refused_all_the_same(value: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        canonical(value)
