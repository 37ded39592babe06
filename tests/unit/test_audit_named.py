"""Programs and hosts as the log names them, and secrets that must not become one."""

from __future__ import annotations

import json

import pytest

from runner import records
from runner.analysis.reader import read
from runner.audit.named import NAME_CHARACTERS, NAMES_LISTED, named
from runner.audit.redaction import Redactor
from runner.intake import build_request
from runner.model.decision import Decision, Effect
from runner.model.intent import Intent, SimpleCommand, Word

DECISION = Decision(Effect.ALLOW, "x", "sha256:00")


def intent_of(*names: str, hosts: tuple[str, ...] = ()) -> Intent:
    commands = tuple(SimpleCommand((Word(name),)) for name in names)
    return Intent("bash", commands, hosts=tuple(map(Word, hosts)))


def test_names_stand_once_in_their_order_without_folders():
    found = named(intent_of("/usr/bin/sudo", "ls", "sudo", hosts=("B.example.", "a.example")))
    assert found == {"programs": ["sudo", "ls"], "hosts": ["b.example", "a.example"]}


def test_what_only_running_tells_is_not_named():
    command = SimpleCommand((Word("$x", dynamic=True), Word("https://h.example/")))
    assert named(Intent("bash", (command,), hosts=(Word("$h", dynamic=True),))) == {
        "programs": [],
        "hosts": ["h.example"],
    }


def test_lists_are_bounded():
    many = named(intent_of(*(f"p{n}" for n in range(10 * NAMES_LISTED))))["programs"]
    assert many == [f"p{n}" for n in range(NAMES_LISTED)]
    assert named(intent_of("x" * (NAME_CHARACTERS + 1), "", "y"))["programs"] == ["y"]


@pytest.mark.parametrize("via_check", [False, True])
def test_a_secret_is_no_host(tmp_path, via_check):
    """`curl -u name:password` has a word that looks like a host and a port."""
    for text, secret in (
        ("curl -u bob:hunter2hunter2 https://a.example/", "hunter2hunter2"),
        ("curl --token abcdef.ghijkl.mnopqr https://a.example/", "abcdef.ghijkl.mnopqr"),
    ):
        request = build_request(cwd=tmp_path, shell=text)
        intent = read(request.program)
        redactor = Redactor(lambda: bytes(32))
        draft = (
            records.checked(request, intent, DECISION, redactor=redactor)
            if via_check
            else records.decided(
                "run-1", request, intent=intent, decision=DECISION, spec=None, backend="b",
                redactor=redactor,
            )
        )  # fmt: skip
        told = redactor.draft(draft).data
        assert secret not in json.dumps(dict(told)), text
        assert told["intent"]["programs"] == ["curl"]
        assert told["intent"]["hosts"] == ["a.example"]


def test_a_host_that_stands_beside_a_secret_is_named(tmp_path):
    request = build_request(
        cwd=tmp_path, argv=["curl", "-H", "Authorization: Bearer abcdefabcdefabcdef", "b.example"]
    )
    redactor = Redactor(lambda: bytes(32))
    data = records.checked(request, read(request.program), DECISION, redactor=redactor).data
    assert data["intent"]["hosts"] == ["b.example"]
    assert data["program"]["sha256"].startswith("[redacted:")
