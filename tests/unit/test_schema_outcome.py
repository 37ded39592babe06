from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runner.model.decision import AskTerms, Decision, Effect, MatchedRule
from runner.model.kill import Kill, KillScope
from runner.model.limits import LimitName
from runner.model.outcome import (
    AuditRange,
    Change,
    ChangeKind,
    Failure,
    Outcome,
    Output,
    Termination,
)
from runner.model.usage import Usage
from runner.schema.outcome import decision_document, outcome_document, printable
from runner.schema.outcome_model import OutcomeDocument

RULE = MatchedRule("no-rm", "profile:agent", Effect.DENY, "Use git clean.", "rm caf\udce9")
FULL = Outcome(
    run_id="01J",
    decision=Decision(Effect.ALLOW, "fine", "sha256:00", rules=(RULE,), enforced=False),
    termination=Termination.LIMIT,
    usage=Usage(wall_s=1.5, processes=3),
    backend="native",
    profile="agent",
    audit=AuditRange(3, 5, "ab" * 32),
    limit=LimitName.WALL,
    signal=9,
    failure=Failure("program_not_found", "there is no x\udcff"),
    protections=("landlock", "seccomp"),
    degraded=("cgroup",),
    stdout=Output(5, "11", False, "é\n".encode()),
    stderr=Output(9, "22", True, b"\xff\x00"),
    changes=(
        Change("caf\udce9/a\\b", ChangeKind.CREATED, "file", "33", 7),
        Change("a\\b", ChangeKind.DELETED, "symlink"),
    ),
    changes_truncated=True,
    left=("a caf\udce9 is still there",),
    kill=Kill(KillScope.AGENT, "caf\udce9", "uid:0", "enough", 1.5),
)


def test_the_document_has_every_field() -> None:
    assert outcome_document(FULL, with_output=True) == {
        "run_id": "01J",
        "decision": {
            "effect": "allow",
            "rules": [
                {
                    "id": "no-rm",
                    "layer": "profile:agent",
                    "effect": "deny",
                    "message": "Use git clean.",
                    "matched": "rm caf\\xe9",
                }
            ],
            "reason": "fine",
            "policy_digest": "sha256:00",
            "enforced": False,
            "observed": [],
            "rewrite": None,
            "ask": None,
            "approved": None,
        },
        "termination": "limit",
        "limit": "wall",
        "exit_code": None,
        "signal": 9,
        "error": {"code": "program_not_found", "message": "there is no x\\xff"},
        "usage": {
            "wall_s": 1.5,
            "cpu_user_s": None,
            "cpu_system_s": None,
            "memory_peak_bytes": None,
            "processes": 3,
            "execs": None,
            "connections": None,
            "requests": None,
            "bytes_in": None,
            "bytes_out": None,
            "tokens": None,
            "cost_usd": None,
        },
        "backend": "native",
        "profile": "agent",
        "protections": ["landlock", "seccomp"],
        "degraded": ["cgroup"],
        "stdout": "é\n",
        "stdout_encoding": "utf-8",
        "stdout_bytes": 5,
        "stdout_truncated": False,
        "stdout_sha256": "11",
        "stderr": "/wA=",
        "stderr_encoding": "base64",
        "stderr_bytes": 9,
        "stderr_truncated": True,
        "stderr_sha256": "22",
        "workspace": {
            "mode": None,
            "changes": [
                {
                    "path": "caf\\xe9/a\\\\b",
                    "kind": "created",
                    "type": "file",
                    "sha256": "33",
                    "size_bytes": 7,
                    "executable": False,
                    "withheld": None,
                },
                {
                    "path": "a\\b",
                    "kind": "deleted",
                    "type": "symlink",
                    "sha256": None,
                    "size_bytes": None,
                    "executable": False,
                    "withheld": None,
                },
            ],
            "truncated": True,
        },
        "budget": None,
        "killed": {"scope": "agent", "name": "caf\\xe9", "by": "uid:0", "reason": "enough"},
        "left": ["a caf\\xe9 is still there"],
        "audit": {"first_seq": 3, "last_seq": 5, "head": "ab" * 32},
    }


@pytest.mark.parametrize("with_output", [True, False])
def test_the_model_states_the_document(with_output: bool) -> None:
    document = outcome_document(FULL, with_output)
    text = json.dumps(document, allow_nan=False)
    text.encode("utf-8")
    read = OutcomeDocument.model_validate_json(text, strict=True)
    assert read.model_dump(mode="json", exclude_unset=True) == document
    assert ("stdout" in document) is with_output
    assert "stdout_bytes" in document


ASKED = Decision(
    Effect.ASK, "who?", "sha256:00", ask=AskTerms((("ops-*", "caf\udce9"), ("lead",)), 60.0)
)
ANYONE = Decision(Effect.ASK, "who?", "sha256:00", ask=AskTerms())
REWRITTEN = Decision(Effect.REWRITE, "so", "sha256:00", rewrite=("rm", "-i", "caf\udce9", ""))


@pytest.mark.parametrize(
    ("decision", "rewrite", "ask"),
    [
        (ASKED, None, {"approvers": [["ops-*", "caf\\xe9"], ["lead"]], "expires_s": 60.0}),
        (ANYONE, None, {"approvers": [], "expires_s": 900.0}),
        (REWRITTEN, ["rm", "-i", "caf\\xe9", ""], None),
    ],
)
def test_a_decision_tells_what_to_run_instead_and_whom_to_ask(
    decision: Decision, rewrite: object, ask: object
) -> None:
    document = decision_document(decision)
    assert (document["rewrite"], document["ask"]) == (rewrite, ask)
    text = json.dumps(outcome_document(replace(FULL, decision=decision), True), allow_nan=False)
    read = OutcomeDocument.model_validate_json(text, strict=True)
    assert read.decision.model_dump(mode="json") == document


@pytest.mark.parametrize(
    ("data", "truncated", "text", "encoding"),
    [
        (b"a\xc3", True, "a", "utf-8"),
        (b"a\xc3", False, "YcM=", "base64"),
        (b"\xffa", True, "/2E=", "base64"),
        (b"", False, "", "utf-8"),
    ],
)
def test_a_character_cut_at_the_end_of_what_was_kept(
    data: bytes, truncated: bool, text: str, encoding: str
) -> None:
    cut = replace(FULL, stdout=Output(3, None, truncated, data))
    document = outcome_document(cut, True)
    assert (document["stdout"], document["stdout_encoding"]) == (text, encoding)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain \\x and é", "plain \\x and é"),
        ("\udcff", "\\xff"),
        ("\\\udcff", "\\\\\\xff"),
        ("\ud800", "?"),
        ("\ud800\udc80", "?\\x80"),
    ],
)
def test_printable_text_is_valid_and_tells_bytes_apart(text: str, printed: str) -> None:
    assert printable(text) == printed
