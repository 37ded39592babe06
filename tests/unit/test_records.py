"""What stands in the log of a run, and what does not."""

from __future__ import annotations

import hashlib
import json

import pytest

from runner import records
from runner.audit.canonical import canonical
from runner.compile import compile_spec, spec_digest
from runner.intake import build_request
from runner.model.decision import Decision, Effect, MatchedRule
from runner.model.event import EventKind
from runner.model.intent import Intent
from runner.model.outcome import Change, ChangeKind, Output
from runner.schema.profiles import load_profile

RULE = MatchedRule("no-x", "profile:agent", Effect.DENY, "Don't.", "x")
DECISION = Decision(Effect.DENY, "x is refused", "sha256:00", (RULE,), ("sing",))


def asked(tmp_path, **options):
    return build_request(cwd=tmp_path, **options)


def data_of(draft) -> dict:
    """As the log will have it: only what canonical JSON can hold."""
    return json.loads(canonical(dict(draft.data)))


def test_the_intent_holds_who_what_and_why(tmp_path):
    request = asked(
        tmp_path, argv=["echo", "x"], env={"TOKEN": "a secret"}, labels={"task": "7"}, agent="me"
    )
    spec = compile_spec(request, load_profile("agent"))
    draft = records.decided(
        "run-1", request, intent=Intent("argv"), decision=DECISION, spec=spec, backend="fake"
    )
    assert (draft.kind, draft.run_id) == (EventKind.RUN_DECIDED, "run-1")
    assert draft.principal == request.principal
    data = data_of(draft)
    assert data["program"]["argv"] == ["echo", "x"]
    assert data["environment"] == ["TOKEN"]
    assert "a secret" not in json.dumps(data)
    assert data["labels"] == {"task": "7"}
    assert data["spec_digest"] == spec_digest(spec)
    assert data["limits"]["wall"] == "120s"
    assert data["decision"] == {
        "effect": "deny",
        "enforced": True,
        "reason": "x is refused",
        "policy_digest": "sha256:00",
        "obligations": ["sing"],
        "rewrite": None,
        "ask": None,
        "rules": [{"id": "no-x", "layer": "profile:agent", "effect": "deny"}],
    }


def test_of_a_script_only_name_and_digest_stand_there(tmp_path):
    (tmp_path / "a.py").write_text("password = 'a secret'")
    draft = records.checked(asked(tmp_path, script="a.py", args=["x"]), Intent("python"), DECISION)
    assert draft.kind is EventKind.DECISION_CHECKED
    data = data_of(draft)
    assert "a secret" not in json.dumps(data)
    program = data["program"]
    assert (program["name"], program["args"], program["bytes"]) == ("a.py", ["x"], 21)
    assert program["sha256"] == hashlib.sha256(b"password = 'a secret'").hexdigest()


@pytest.mark.parametrize("form", ["argv", "shell"])
def test_a_long_command_line_is_cut_and_its_digest_covers_all(tmp_path, form):
    def program(last: str) -> dict:
        words = ["echo"] + ["x" * 1000] * 100 + [last]
        options = {"argv": words} if form == "argv" else {"shell": " ".join(words)}
        return data_of(records.checked(asked(tmp_path, **options), Intent(form), DECISION))[
            "program"
        ]

    one, other = program("a"), program("b")
    assert len(json.dumps(one)) < 2 * records.TEXT_BYTES
    assert one["sha256"] != other["sha256"]
    del one["sha256"], other["sha256"]
    assert one == other


def test_words_that_are_not_utf8_can_be_recorded(tmp_path):
    request = asked(tmp_path, argv=["echo", "\udcff"], env={"\udcfe": "x"})
    first = data_of(records.checked(request, Intent("argv"), DECISION))
    second = data_of(records.checked(asked(tmp_path, argv=["echo", "?"]), Intent("argv"), DECISION))
    assert first["program"]["sha256"] != second["program"]["sha256"]


def test_an_outcome_is_whole_and_says_what_was_not_measured():
    changes = [Change(f"f{n}", ChangeKind.CREATED, "file", "00", n) for n in range(300)]
    output = Output(bytes_total=3, sha256="ab", truncated=True, data=b"a secret")
    data = json.loads(
        canonical(
            records.outcome_data(
                termination="exited",
                exit_code=0,
                usage={"wall_s": 0.5, "tokens": None},
                stdout=output,
                changes=changes,
                changes_truncated=True,
            )
        )
    )
    assert (data["termination"], data["exit_code"], data["signal"]) == ("exited", 0, None)
    assert data["usage"] == {"wall_s": 0.5, "tokens": None}
    assert data["stdout"] == {"bytes": 3, "sha256": "ab", "truncated": True}
    assert data["stderr"] is None
    assert data["changes"]["count"] == 300
    assert data["changes"]["truncated"]
    assert len(data["changes"]["first"]) == records.CHANGES_LISTED
    altered = [*changes[:-1], Change("f299", ChangeKind.DELETED, "file")]
    again = records.outcome_data(termination="exited", changes=altered)
    assert again["changes"]["first"] == data["changes"]["first"]
    assert again["changes"]["sha256"] != data["changes"]["sha256"]


def test_a_failure_has_its_code():
    data = records.outcome_data(termination="runner_failed", failure=("backend_failed", "gone"))
    assert data["error"] == {"code": "backend_failed", "message": "gone"}
    assert data["usage"] is None
