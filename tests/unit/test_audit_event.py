"""An event's bytes and hashes, held to literal values: they are final."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.audit.canonical import _plain, canonical_again
from runner.audit.event import NO_PREVIOUS, data_of, rfc3339, seal
from runner.audit.merkle import tree_of
from runner.errors import RecordError
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal

NOW_S = 1767323045.678901
CREATED = EventDraft(EventKind.LOG_CREATED, {"log": "00" * 16, "format": 1})
DECIDED = EventDraft(
    EventKind.RUN_DECIDED,
    {
        "argv": ["echo", "a\udcff", "\ufffd", "ü"],
        "wall_s": 1.5,
        "none": None,
        "nested": {"b": [True, 1], "a": {}},
    },
    Principal(uid=1000, agent="coder", parent="planner", session="s-1", tenant=None),
    "run-1",
)


def test_golden_bytes_and_hashes() -> None:
    """If this test fails, the change is wrong: logs that exist could not be verified any more."""
    first = seal(CREATED, 0, NOW_S, NO_PREVIOUS)
    second = seal(DECIDED, 1, NOW_S + 1, first.leaf_hash)
    assert first.body == (
        b'{"data":{"format":1,"log":"00000000000000000000000000000000"},"kind":"log.created",'
        b'"prev":"0000000000000000000000000000000000000000000000000000000000000000",'
        b'"principal":null,"run":null,"seq":0,"time":"2026-01-02T03:04:05.678901Z","v":1}'
    )
    assert first.leaf_hash.hex() == (
        "eb7ebca65ca3db925e3ad68655f3c5f2d2af843dc2bb2f2c96fac881120db42e"
    )
    assert second.body == (
        b'{"data":{"argv":["echo","a\xef\xbf\xbddcff","\xef\xbf\xbd\xef\xbf\xbd","\xc3\xbc"],'
        b'"nested":{"a":{},"b":[true,1]},"none":null,"wall_s":1.5},"kind":"run.decided",'
        b'"prev":"eb7ebca65ca3db925e3ad68655f3c5f2d2af843dc2bb2f2c96fac881120db42e",'
        b'"principal":{"agent":"coder","parent":"planner","session":"s-1","tenant":null,'
        b'"uid":1000},"run":"run-1","seq":1,"time":"2026-01-02T03:04:06.678901Z","v":1}'
    )
    assert second.leaf_hash.hex() == (
        "4c74550606c35109e94ab74388669961a5ee8fda7afd7d6abe05e0868d2e463e"
    )
    assert tree_of([first.leaf_hash, second.leaf_hash]).root.hex() == (
        "5b530c4696e43081a17b5cea3b4a2bde98747fab46353aff35dcdae49bcaa444"
    )


def test_the_columns_say_what_the_bytes_say() -> None:
    event = seal(DECIDED, 7, NOW_S, b"\x01" * 32)
    assert (event.seq, event.kind, event.run_id) == (7, "run.decided", "run-1")
    assert (event.time, event.previous) == ("2026-01-02T03:04:05.678901Z", b"\x01" * 32)


@pytest.mark.parametrize(
    ("now_s", "said"),
    [(0.0, "1970-01-01T00:00:00.000000Z"), (NOW_S, "2026-01-02T03:04:05.678901Z")],
)
def test_time(now_s: float, said: str) -> None:
    assert rfc3339(now_s) == said


@pytest.mark.parametrize("now_s", [1e300, float("nan"), float("inf"), -1e300])
def test_a_clock_that_says_nonsense(now_s: float) -> None:
    with pytest.raises(RecordError, match="set the clock"):
        rfc3339(now_s)


names = st.none() | st.text(max_size=8)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.sampled_from(["\udcff", "\ufffd", "e5,", "ö"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.none() | st.builds(Principal, st.integers(0, 2**32), st.text(), names, names, names),
    names,
)  # fmt: skip
def test_an_event_is_the_canonical_object_of_its_fields(
    data: dict[str, object], who: Principal | None, run_id: str | None
) -> None:
    draft = EventDraft(EventKind.RUN_ENDED, data, who, run_id)
    fields = {
        "v": 1,
        "seq": 7,
        "time": "2026-01-02T03:04:05.678901Z",
        "kind": "run.ended",
        "run": run_id,
        "principal": None if who is None else asdict(who),
        "data": data,
        "prev": "01" * 32,
    }
    expected = canonical_again(_plain(fields, "", 0))
    assert seal(draft, 7, NOW_S, b"\x01" * 32).body == expected
    assert seal(draft, 7, NOW_S, b"\x01" * 32, data_of(draft)).body == expected
