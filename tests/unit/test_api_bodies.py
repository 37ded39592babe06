"""Bodies of the API: what is taken, and what is refused before anything looks at it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from runner.errors import RequestError
from runner.schema.api_bodies import ApplyBody, DecisionBody, RunBody, content_of
from runner.surfaces.http.bodies import parsed
from runner.surfaces.http.idempotency import digest_of


def test_what_may_be_asked_for():
    body = RunBody.model_validate_json(
        '{"argv": ["a"], "files": {"x/y": "t", "z": {"base64": "/w=="}}, "wait": 2.5}'
    )
    assert {path: content_of(each) for path, each in body.files.items()} == {
        "x/y": b"t",
        "z": b"\xff",
    }
    assert (body.wait, body.cancel_on_disconnect) == (2.5, False)
    assert RunBody(argv=("a",)).wait is True
    with pytest.raises(ValidationError):
        body.argv = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    "path", ["", "/x", "../x", "a/../b", "a//b", "./a", "a/", "a\0b", "x" * 256, "a/" * 40 + "a"]
)
def test_paths_that_lead_elsewhere_are_none(path):
    with pytest.raises(ValidationError, match="relative path"):
        RunBody(argv=("a",), files={path: ""})


@pytest.mark.parametrize("path", ["a", "a/b", ".hidden", "..a", "a b", "ü", "x" * 255])
def test_other_paths_are_taken(path):
    assert RunBody(argv=("a",), files={path: ""}).files == {path: ""}


@pytest.mark.parametrize("model", [RunBody, DecisionBody, ApplyBody])
def test_what_no_field_is_is_refused(model):
    with pytest.raises(RequestError, match="uid: Extra inputs"):
        parsed(model, b'{"uid": 0}')


def test_files_and_waiting_are_for_runs_alone():
    for name in ("files", "stdin", "wait"):
        assert name in RunBody.model_fields
        assert name not in DecisionBody.model_fields


def test_a_refusal_names_places_and_never_values():
    secret = "hunter2"
    with pytest.raises(RequestError) as refusal:
        parsed(RunBody, f'{{"argv": 1, "env": {{"A": ["{secret}"]}}, "wait": "{secret}"}}'.encode())
    assert "argv" in str(refusal.value)
    assert "env.A" in str(refusal.value)
    assert secret not in str(refusal.value)


def test_the_same_request_has_the_same_digest_however_it_is_spelled():
    one = parsed(RunBody, b'{"argv":["a"],"env":{}}')
    same = parsed(RunBody, b'{ "env": {}, "wait": false, "argv": ["a"] }')
    other = parsed(RunBody, b'{"argv":["a"],"env":{"A":"1"}}')
    assert digest_of(one) == digest_of(same) != digest_of(other)
