"""How a key of the API is written, and when one ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import RequestError
from runner.keys import parse_expiry, told_time
from runner.model.api_key import (
    ID_ALPHABET,
    NEVER_S,
    SECRET_ALPHABET,
    SECRET_CHARACTERS,
    digest_of,
    id_of,
    written,
)

IDS = st.text(ID_ALPHABET, min_size=12, max_size=12).map("rnk_{}".format)
SECRETS = st.text(SECRET_ALPHABET, min_size=SECRET_CHARACTERS, max_size=SECRET_CHARACTERS)
NOW_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def test_nobody_guesses_one() -> None:
    assert SECRET_CHARACTERS * math.log2(len(set(SECRET_ALPHABET))) > 128


@given(IDS, SECRETS, st.data())
def test_a_key_is_told_from_one_that_is_mistyped(key_id, secret, data) -> None:
    text = written(key_id, secret)
    assert id_of(text) == key_id
    assert len(digest_of(text)) == 32
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8"))
    wrong = text[:place] + other + text[place + 1 :]
    assert (id_of(wrong) is None) == (wrong != text)


@given(IDS, SECRETS, st.sampled_from(["\n", "\0", " ", "x", "\u0660"]))
def test_a_key_has_nothing_around_it(key_id, secret, more) -> None:
    text = written(key_id, secret)
    assert id_of(text + more) is None
    assert id_of(more + text) is None


@given(st.text(max_size=80))
def test_any_text_can_be_looked_at(text) -> None:
    assert id_of(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", "2027-02-14T08:00:00Z"),
        ("12h", "2027-01-15T20:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T12:00+02:00", "2027-01-31T10:00:00Z"),
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
        ("never", None),
    ],
)
def test_when_a_key_ends(text, expected) -> None:
    assert told_time(parse_expiry(text, NOW_S)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0d", "-1d", "unlimited", "2026-01-01", "2027-13-01", "3000-01-01", "99999d", "inf", "nan",
     "soon", "0.5s", "2027-01-15T08:00:00Z"],
)  # fmt: skip
def test_what_is_no_end(text) -> None:
    with pytest.raises(RequestError, match="--expires"):
        parse_expiry(text, NOW_S)
    assert parse_expiry("never", NOW_S) == NEVER_S
