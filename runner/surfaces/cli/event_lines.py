"""An event as a line for people; what an agent wrote can't move the reader's cursor."""

from __future__ import annotations

import json
import sys
from io import TextIOWrapper
from typing import Any

from runner.model.event import AuditEvent

_LINE = 80  # characters of what an agent wrote, in a line


def line(event: AuditEvent) -> str:
    """Number, time, run, kind, agent, and what it says."""
    try:
        says = _summary(event.body)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        says = f"{shown(str(event.kind)):17} damaged; `runner audit verify` tells more"
    run = "-" if event.run_id is None else shown(str(event.run_id))
    return f"{event.seq:>6}  {shown(str(event.time))}  {run:24}  {says}"


def program(event: AuditEvent) -> str:
    """What a run's first event says that it runs."""
    try:
        return _program(json.loads(event.body)["data"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "damaged"


def take_any_text() -> None:
    """Let stdout escape characters that its encoding does not have, instead of failing."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def shown(text: str) -> str:
    """A text whose control characters, line ends and turned directions of writing are escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _summary(body: bytes) -> str:
    event: dict[str, Any] = json.loads(body)
    data = event["data"]
    principal = event["principal"] or {}
    agent = principal.get("agent", "-")
    match event["kind"]:
        case "run.decided" | "decision.checked":
            says = f"{data['decision']['effect']}: {_program(data)}"
        case "run.ended":
            parts = [data["termination"], data["limit"], data["exit_code"], data["signal"]]
            says = " ".join(str(part) for part in parts if part is not None)
        case "run.started":
            says = f"degraded: {', '.join(data['degraded'])}" if data["degraded"] else ""
        case "run.recovered":
            says = f"{data['termination']}: {data['reason']}"
        case "changes.applying":
            says = f"{data['count']} changes"
        case "changes.applied":
            says = f"{data['applied']['count']} applied, {data['not_applied']['count']} not"
        case "changes.discarded":
            says = data["why"]
        case "machine.swept":
            removed, left = data["removed"]["count"], data["left"]["count"]
            says = f"removed {removed}, left {left}"
        case "output.discarded":
            says = f"of {len(data['runs'])} runs, {data['size_bytes']} bytes"
        case "request.refused" | "checkpoint.failed":
            says = _one_line(data["message"])
        case kind:
            says = _of_the_log(kind, data)
    return f"{shown(event['kind']):17} {shown(agent):12} {shown(says)}".rstrip()


def _of_the_log(kind: str, data: dict[str, Any]) -> str:
    """Of events that are not about one run."""
    match kind:
        case "log.archived" | "log.restored":
            says = f"events {data['from']} to {data['to']['size'] - 1}: {data['file']}"
        case "log.repaired":
            gap = data["missing"]
            says = f"events {gap['from']} to {gap['to'] - 1} are missing" if gap else ""
        case "budget.warned":
            says = f"{data['percent']} % of {data['resource']} of {data['id']} for {data['scope']}"
        case "budget.reset":
            says = _one_line(f"{data['budget']}: {data['reason']}")
        case "guard.paused":
            says = f"{data['trigger']} {data['count']} times: until {data['until']}"
        case "guard.reset":
            says = _one_line(f"{data['commands']['count']} commands: {data['reason']}")
        case "apikey.created" | "apikey.revoked":
            says = _one_line(f"{data['name'] or ''} {data['id']}".strip())
        case "auth.failed":
            told = ", ".join(f"{why} {count}" for why, count in data["why"].items())
            says = _one_line(f"{data['count']} times: {told}")
        case "key.created" | "key.rotated" | "key.replaced":
            says = _one_line(data["key"])
        case "checkpoint.sent" | "checkpoint.unsent":
            says = _one_line(f"{data['size']} events to {data['to']}")
        case _:
            says = _of_people(kind, data)
    return says


def _of_people(kind: str, data: dict[str, Any]) -> str:
    """Of what somebody decided by hand."""
    says = ""
    match kind:
        case "approval.asked":
            says = _one_line(f"{data['id']}: {data['program']}")
        case "approval.untold":
            says = _one_line(f"{data['id']} to {data['to']}: {data['why']}")
        case "approval.answered":
            says = _one_line(f"{data['id']}: {data['answer']} by {data['by']}: {data['reason']}")
        case "kill.ordered" | "kill.lifted":
            says = f"{data['scope']} {data['name']}".rstrip() + f" by {data['by']}"
    return says


def _program(data: dict[str, Any]) -> str:
    told = data["program"]
    if told.get("kind") == "session":
        return "a session"
    return _one_line(told.get("argv") or told.get("text") or told.get("name"))


def _one_line(told: object) -> str:
    text = " ".join(told) if isinstance(told, list) else str(told)
    escaped = shown(text)
    return escaped if len(escaped) <= _LINE else f"{escaped[: _LINE - 3]}..."
