"""Events as rows of CSV (RFC 4180), for tables. A view: what proves something is the JSON.

Columns are only ever added, at the end. A cell is one line: characters that don't print are escaped
as in Python (`\\n`, `\\x1b`, `\\u202e`). What a spreadsheet would take for a formula gets an
apostrophe in front (https://owasp.org/www-community/attacks/CSV_Injection).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable

from runner.audit.canonical import canonical_again
from runner.model.event import AuditEvent

COLUMNS = (
    "seq", "time", "kind", "run", "agent", "parent", "session", "tenant", "uid", "profile",
    "effect", "enforced", "rules", "reason", "program", "programs", "hosts", "labels",
    "termination", "limit", "exit_code", "signal", "error", "wall_s", "cpu_s", "memory_peak_bytes",
    "stdout_bytes", "stderr_bytes", "changes", "message", "leaf_hash",
)  # fmt: skip

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last ones are full-width
_PROGRAM_CHARACTERS = 1_000  # of a command line; a cell of a spreadsheet holds 32,767


def header() -> bytes:
    """The first row."""
    return _row(COLUMNS)


def csv_row(event: AuditEvent) -> bytes:
    """The row of an event. One that is damaged has only what the log's columns say of it."""
    cells: dict[str, object] = {
        "seq": event.seq, "time": event.time, "kind": event.kind, "run": event.run_id,
        "leaf_hash": _hex(event.leaf_hash),
    }  # fmt: skip
    try:
        said = json.loads(event.body)
    except (ValueError, TypeError, RecursionError):
        said = None
    who, data = _object(said, "principal"), _object(said, "data")
    cells |= {name: who.get(name) for name in ("agent", "parent", "session", "tenant", "uid")}
    cells |= {
        name: data.get(name)
        for name in ("profile", "termination", "limit", "exit_code", "signal", "message")
    }
    cells |= _of_the_decision(data) | _of_the_end(data)
    return _row(_cell(cells.get(name)) for name in COLUMNS)


def _of_the_decision(data: dict[str, object]) -> dict[str, object]:
    decision, intent = _object(data, "decision"), _object(data, "intent")
    program = _object(data, "program")
    told = program.get("argv") or program.get("text") or program.get("name")
    text = " ".join(map(str, told)) if isinstance(told, list) else told
    rules = decision.get("rules")
    named = [_object({"rule": each}, "rule").get("id") for each in _list(rules)]
    return {
        "effect": decision.get("effect"),
        "enforced": decision.get("enforced"),
        "rules": " ".join(map(str, named)),
        "reason": decision.get("reason"),
        "program": text[:_PROGRAM_CHARACTERS] if isinstance(text, str) else None,
        "programs": " ".join(map(str, _list(intent.get("programs")))),
        "hosts": " ".join(map(str, _list(intent.get("hosts")))),
        "labels": data.get("labels") or None,
    }


def _of_the_end(data: dict[str, object]) -> dict[str, object]:
    usage, changes = _object(data, "usage"), _object(data, "changes")
    parts = [usage.get("cpu_user_s"), usage.get("cpu_system_s")]
    spent = [each for each in parts if isinstance(each, int | float)]
    return {
        "error": _object(data, "error").get("code"),
        "wall_s": usage.get("wall_s"),
        "cpu_s": round(sum(spent), 6) if len(spent) == len(parts) else None,
        "memory_peak_bytes": usage.get("memory_peak_bytes"),
        "stdout_bytes": _object(data, "stdout").get("bytes"),
        "stderr_bytes": _object(data, "stderr").get("bytes"),
        "changes": changes.get("count"),
    }


def _hex(value: object) -> str | None:
    return value.hex() if isinstance(value, bytes) else None


def _object(value: object, name: str) -> dict[str, object]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    text = value if isinstance(value, str) else canonical_again(value).decode()
    harmless = f"'{text}" if text.startswith(_FORMULA) else text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in harmless)


class _Line:
    """What a `csv.writer` writes to."""

    text = ""

    def write(self, text: str) -> None:
        self.text += text


def _row(cells: Iterable[str]) -> bytes:
    line = _Line()
    csv.writer(line).writerow(cells)  # the dialect's line ends are CRLF, as RFC 4180 has them
    return line.text.encode()
