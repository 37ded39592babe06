"""What a server answers is taken as it has to be, or not at all; and the client loads little."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from runner import errors
from runner.client.channel import with_query
from runner.client.events import parsed, read_events
from runner.client.outcomes import decision_of, outcome_of, usage_of
from runner.client.parsing import decoded
from runner.client.place import check_own, place_of
from runner.errors import (
    AnswerError,
    BusyError,
    ProfileError,
    ProtectionMissingError,
    RequestError,
    RunnerError,
    UnreachableError,
    error_of,
)
from runner.model.budget import Calendar, Period, Resource, Spent
from runner.model.decision import Approved, AskTerms, Decision, Effect, MatchedRule
from runner.model.following import Began, Missed, Used, WaitsForAnswer, Written
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
from runner.model.profile import WorkspaceMode
from runner.model.usage import Usage
from runner.schema.outcome import decision_document, outcome_document

RULE = MatchedRule("r", "profile:agent", Effect.ASK, "do that", "ls /x")
DECISION = Decision(
    effect=Effect.ASK,
    reason="why",
    policy_digest="sha256:00",
    rules=(RULE,),
    enforced=False,
    rewrite=("ls", "-l"),
    ask=AskTerms((("uid:1*",), ("user:a", "user:b")), 60.0),
    approved=Approved("ask-1", "uid:1", "fine"),
    observed=(replace(RULE, effect=Effect.DENY),),
)
FULL = Outcome(
    run_id="run-1",
    decision=DECISION,
    termination=Termination.LIMIT,
    usage=Usage(1.5, 0.25, 0.5, 4096, 3, 2, 1, 1, 10, 20, 5, 0.5),
    backend="native",
    profile="agent",
    audit=AuditRange(1, 3, "ab" * 32),
    limit=LimitName.BUDGET,
    exit_code=3,
    signal=9,
    failure=Failure("backend_failed", "lost"),
    protections=("seccomp",),
    degraded=("cgroup",),
    stdout=Output(5, "cd" * 32, True, b"\xff\x00a"),
    stderr=Output(3, "ef" * 32, False, "ä\n".encode()),
    workspace=WorkspaceMode.COPY_ON_WRITE,
    changes=(Change("a b", ChangeKind.MODIFIED, "file", "00" * 32, 7, True, None, "too large"),),
    changes_truncated=True,
    left=("a mount",),
    kill=Kill(KillScope.AGENT, "a", "uid:1", "stop", 0.0),
    budget=Spent(
        "user", "b", "agent:a", Resource.CALLS, 3, Calendar(Period.DAY, "Europe/Berlin"), 3, 86400.0
    ),
)
PLAIN = Outcome(
    "run-2", Decision(Effect.ALLOW, "", "sha256:00"), Termination.EXITED, Usage(), "native",
    "agent", AuditRange(0, 0, ""), exit_code=0,
)  # fmt: skip


@pytest.mark.parametrize("outcome", [FULL, PLAIN])
def test_an_outcome_comes_back_as_it_was(outcome):
    told = json.loads(json.dumps(outcome_document(outcome, with_output=True)))
    assert outcome_of(told) == outcome
    without = json.loads(json.dumps(outcome_document(outcome, with_output=False)))
    assert outcome_of(without).stdout == replace(outcome.stdout, data=b"")
    decision = json.loads(json.dumps(decision_document(outcome.decision)))
    assert decision_of(decision) == outcome.decision


def paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, inner in items:
        found += paths(inner, (*path, name))
    return found


def changed(document: Any, path: tuple[Any, ...], how: Any) -> Any:
    other = copy.deepcopy(document)
    place = other
    for name in path[:-1]:
        place = place[name]
    how(place, path[-1])
    return other


def test_each_field_has_to_be_there_and_of_its_kind():
    document = json.loads(json.dumps(outcome_document(FULL, with_output=True)))
    everything = paths(document)
    assert len(everything) > 80

    def gone(place: Any, name: Any) -> None:
        del place[name]

    def of_another_kind(place: Any, name: Any) -> None:
        place[name] = {"x": 1} if not isinstance(place[name], dict) else [1]

    taken = []
    for path in everything:
        # Output is left out where nobody asked for it; a window that is not told is none.
        optional = path[-1] in ("stdout", "stderr", "window") or path[-1] in (
            "stdout_encoding", "stderr_encoding",
        )  # fmt: skip
        if isinstance(path[-1], str) and not optional:
            with pytest.raises(AnswerError, match="can't be used"):
                outcome_of(changed(document, path, gone))
        try:
            outcome_of(changed(document, path, of_another_kind))
        except AnswerError:
            continue
        taken.append(path)
    assert not taken


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("termination",), "ended"),
        (("exit_code",), True),
        (("exit_code",), 3.0),
        (("exit_code",), "3"),
        (("limit",), "everything"),
        (("decision", "effect"), "maybe"),
        (("decision", "enforced"), 1),
        (("usage", "wall_s"), "1"),
        (("usage", "wall_s"), True),
        (("usage", "wall_s"), 10**400),
        (("stdout",), "no base64"),
        (("stdout_encoding",), "latin-1"),
        (("budget", "free_at"), "tomorrow"),
        (("budget", "free_at"), "2026-01-01"),
        (("budget", "window"), "sliding -1"),
        (("workspace", "changes", 0, "kind"), "moved"),
        (("more",), 1),
        (("decision", "more"), 1),
        (("usage", "more"), None),
        (("workspace", "changes", 0, "more"), 1),
    ],
)
def test_what_no_server_says_is_refused(path, value):
    document = json.loads(json.dumps(outcome_document(FULL, with_output=True)))

    def put(place: Any, name: Any) -> None:
        place[name] = value

    with pytest.raises(AnswerError):
        outcome_of(changed(document, path, put))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"1" * 100_000, b"<html>"]
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(AnswerError, match="no JSON"):
        decoded(text, "a test")


@pytest.mark.parametrize("value", [None, 1, "x", [], {"run_id": 1}])
def test_what_is_no_outcome_is_refused(value):
    with pytest.raises(AnswerError):
        outcome_of(value)
    with pytest.raises(AnswerError):
        usage_of(value)


def test_events_are_read_whole():
    stream = (
        b": nothing new\n\nid: 1\nevent: decision\ndata: {}\n\n"
        b"id: 2\r\nevent:usage\r\ndata:{\r\ndata: }\r\n\r\nevent: nothing\n\nid: 3\nevent: cut\nda"
    )
    assert list(read_events(io.BytesIO(stream))) == [  # type: ignore[arg-type]
        ("1", "decision", b"{}"),
        ("2", "usage", b"{\n}"),
    ]


def test_events_are_what_they_say():
    told = json.dumps({"run_id": "r", "decision": decision_document(DECISION)}).encode()
    assert parsed(("1", "decision", told)) == Began("r", DECISION)
    output = {"stream": "stdout", "offset": 3, "data": "/w==", "encoding": "base64"}
    assert parsed(("2", "output", json.dumps(output).encode())) == Written("stdout", 3, b"\xff")
    asked = {"id": "ask-1", "reason": "why", "rules": ["r"], "expires": "2026-01-01T00:00:00Z"}
    assert parsed(("3", "asked", json.dumps(asked).encode())) == WaitsForAnswer(
        "ask-1", "why", ("r",), "2026-01-01T00:00:00Z"
    )
    usage = dict.fromkeys(Usage.__slots__)
    assert parsed(("4", "usage", json.dumps(usage).encode())) == Used(Usage())
    assert parsed(("5", "dropped", b'{"from":1,"to":2}')) == Missed()
    assert parsed(("6", "of another version", b"{}")) is None
    with pytest.raises(ProfileError, match="it is wrong"):
        parsed(("end", "error", b'{"code": "bad_profile", "message": "it is wrong"}'))
    for wrong in (
        {**output, "stream": "stdin"}, {**output, "data": "?"}, {**output, "encoding": "x"},
        {**output, "offset": "3"}, {**output, "more": 1},
    ):  # fmt: skip
        with pytest.raises(AnswerError):
            parsed(("2", "output", json.dumps(wrong).encode()))


def test_errors_come_back_as_what_they_were():
    kinds: list[type[RunnerError]] = [RunnerError]
    codes = set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind is ProtectionMissingError or not kind.__module__.startswith("runner"):
            continue
        codes.add(kind.code)
        again = error_of(kind.code, "it is wrong")
        assert again.code == kind.code
        assert (
            issubclass(type(again), kind)
            or kind.code in vars(type(again)).values()
            or (type(again) is RequestError)
        )
        assert str(again) == "it is wrong"
    assert {"bad_request", "busy", "not_found", "unreachable"} <= codes
    assert type(error_of("bad_request", "x")) is RequestError
    assert type(error_of("busy", "x")) is BusyError
    first = ProtectionMissingError("seccomp", "it is withheld")
    again = error_of(first.code, str(first))
    assert type(again) is ProtectionMissingError
    assert (str(again), again.protection) == (str(first), "seccomp")
    assert str(error_of("of_tomorrow", "x")) == "x (of_tomorrow)"
    assert errors.RunnerError.outcome is None


@pytest.mark.parametrize(
    "where",
    [
        "", "unix:", "unix:\0", "serve.sock", "ftp://h", "http://example.org:1", "https://",
        "https://h/path", "https://h?x", "https://u:p@h", "https://h:port", "http://10.0.0.1:80",
        "http://[::2]:1",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(where):
    with pytest.raises(RequestError):
        place_of(where)


def test_places():
    assert place_of("unix:x/../y").path is not None
    assert place_of("http://localhost:8000").host == "127.0.0.1"
    assert place_of("http://[::1]:8000").port == 8000
    over_tls = place_of("https://example.org")
    assert (over_tls.port, over_tls.tls is not None) == (443, True)
    with pytest.raises(RequestError, match="https"):
        place_of("http://127.0.0.1:1", "ca.pem")
    with pytest.raises(RequestError, match="can't be used"):
        place_of("https://h", "/dev/null")
    assert with_query("/v1", {"a": ["x", "y"], "b": None, "c": 1}) == "/v1?a=x&a=y&c=1"


def test_a_socket_that_others_could_have_put_there_is_not_trusted(tmp_path):
    import socket

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        tmp_path.chmod(0o700)
        check_own(str(path))
        tmp_path.chmod(0o770)
        with pytest.raises(UnreachableError, match="alone"):
            check_own(str(path))
        tmp_path.chmod(0o700)
    path.unlink()
    with pytest.raises(UnreachableError):
        check_own(str(path))
    path.write_text("")
    with pytest.raises(UnreachableError, match="no socket"):
        check_own(str(path))


def test_what_refuses_here_as_well_and_what_does_not():
    from runner.surfaces.cli.served import Place, _HereError

    auto, always = Place("/s", "auto"), Place("/s", "always")
    for error, elsewhere in (
        (error_of("busy", "x"), True),
        (error_of("stopping", "x"), True),
        (error_of("other_server", "x"), True),
        (error_of("unauthenticated", "x"), True),
        (error_of("too_large", "x"), True),
        (error_of("bad_request", "x"), False),
        (error_of("state_unusable", "x"), False),
        (UnreachableError("x"), True),
    ):
        with pytest.raises(_HereError if elsewhere else type(error)), auto.or_here():
            raise error
        with pytest.raises(type(error)), always.or_here():
            raise error
    begun = error_of("busy", "x")
    begun.run_id = "run-1"
    sent = UnreachableError("x")
    sent.sent = True
    for error in (begun, sent):
        with pytest.raises(type(error)), auto.or_here():
            raise error


LIGHT = """
import sys
import runner
from runner import connect, RemoteRunner, AsyncRunner
import runner.client.changed
heavy = ["pydantic", "fastapi", "cryptography", "yaml", "rich", "typer", "orjson", "sqlite3",
         "anyio", "psutil", "runner.app", "runner.settings", "runner.schema", "runner.stores"]
print([name for name in heavy if name in sys.modules])
"""


def test_the_client_loads_little():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
