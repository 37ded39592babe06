"""Events as rows of a table, with hostile texts in them."""

from __future__ import annotations

import csv
import io
import json

import pytest

from runner.audit.csv_rows import COLUMNS, csv_row, header
from runner.audit.event import NO_PREVIOUS, seal
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.principal import Principal

FORMULAS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last ones are full-width
FIRST_COLUMNS = (
    "seq,time,kind,run,agent,parent,session,tenant,uid,profile,effect,enforced,rules,reason,"
    "program,programs,hosts,labels,termination,limit,exit_code,signal,error,wall_s,cpu_s,"
    "memory_peak_bytes,stdout_bytes,stderr_bytes,changes,message,leaf_hash"
)


def read(*events: AuditEvent) -> list[dict[str, str]]:
    """As a spreadsheet would, from bytes."""
    text = (header() + b"".join(map(csv_row, events))).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def event(data: dict[str, object], agent: str = "a", kind: str = "run.decided") -> AuditEvent:
    draft = EventDraft(EventKind(kind), data, Principal(7, agent), "run-1")
    return seal(draft, 3, 1_800_000_000.0, NO_PREVIOUS)


def test_columns_stay_where_they_are():
    assert header().decode() == FIRST_COLUMNS + "\r\n"
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_a_decision_and_an_end():
    decided = event(
        {
            "profile": "ci",
            "program": {"kind": "argv", "argv": ["grep", 'a"b', "x,y"]},
            "labels": {"task": "7"},
            "intent": {"programs": ["grep"], "hosts": ["h.example"]},
            "decision": {
                "effect": "deny", "enforced": True, "reason": "no", "rules": [{"id": "r"}]
            },
        }
    )  # fmt: skip
    usage = {"wall_s": 1.5, "cpu_user_s": 0.25, "cpu_system_s": 0.5, "memory_peak_bytes": 9}
    ended = event(
        {
            "termination": "exited", "limit": None, "exit_code": 0, "signal": None,
            "error": {"code": "runner_failed", "message": "m"}, "usage": usage,
            "stdout": {"bytes": 4}, "stderr": None, "changes": {"count": 2},
        },
        kind="run.ended",
    )  # fmt: skip
    first, second = read(decided, ended)
    assert first["seq"] == "3"
    assert first["time"] == "2027-01-15T08:00:00.000000Z"
    assert (first["agent"], first["uid"], first["run"]) == ("a", "7", "run-1")
    assert first["program"] == 'grep a"b x,y'
    assert (first["effect"], first["enforced"], first["rules"]) == ("deny", "true", "r")
    assert (first["programs"], first["hosts"]) == ("grep", "h.example")
    assert json.loads(first["labels"]) == {"task": "7"}
    assert first["leaf_hash"] == decided.leaf_hash.hex()
    assert (second["exit_code"], second["wall_s"], second["cpu_s"]) == ("0", "1.5", "0.75")
    assert (second["error"], second["limit"]) == ("runner_failed", "")
    assert (second["stdout_bytes"], second["stderr_bytes"], second["changes"]) == ("4", "", "2")


@pytest.mark.parametrize("first", FORMULAS)
def test_no_cell_is_a_formula(first):
    hostile = f'{first}HYPERLINK("http://evil","x")'
    data = {
        "profile": hostile,
        "program": {"kind": "shell", "text": hostile},
        "intent": {"programs": [hostile], "hosts": [hostile]},
        "labels": {hostile: hostile},
        "decision": {"effect": hostile, "reason": hostile, "rules": [{"id": hostile}]},
        "termination": hostile, "message": hostile, "exit_code": hostile,
    }  # fmt: skip
    (row,) = read(event(data, agent=hostile))
    formulas = [f"{n}: {cell}" for n, cell in row.items() if cell[:1] in {*FORMULAS}]
    assert not formulas
    assert row["agent"].startswith("'")
    assert "HYPERLINK" in row["agent"]


def test_an_event_is_one_line_and_moves_no_cursor():
    hostile = 'a\r\nb\x1b[2J\u202ec\x00"d\u2028'
    raw = csv_row(event({"message": hostile}))
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\r\n")
    (row,) = read(event({"message": hostile}))
    assert row["message"] == 'a\\r\\nb\\x1b[2J\\u202ec\\x00"d\\u2028'


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"data":[],"principal":7}', b"\xff", b"1"])
def test_a_damaged_event_has_a_row(body):
    (row,) = read(AuditEvent(1, "t", "k", None, body, bytes(32), bytes(32)))
    assert (row["seq"], row["time"], row["kind"]) == ("1", "t", "k")
    assert row["leaf_hash"] == "0" * 64
