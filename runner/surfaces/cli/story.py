"""The story of one run, as its events tell it, for people."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from runner.model.event import AuditEvent
from runner.surfaces.cli.event_lines import shown

_LABEL = 14  # width of the column of labels
_WIDTH = 100
_LISTED = 20  # changes and rules that are listed; `--json` has all that the log has
_PROGRAM_CHARACTERS = 2_000

Rows = Iterator[tuple[str, str]]


def story(events: Sequence[AuditEvent]) -> Iterator[str]:
    """Lines of text: who asked for what, and then each event with the time since the first."""
    began: datetime | None = None
    ended = False
    for event in events:
        try:
            said: dict[str, Any] = json.loads(event.body)
            at = datetime.fromisoformat(said["time"])
            rows = [*_rows(said["kind"], said["data"])]
            if began is None:
                began = at
                yield from _head(said)
            heading = shown(said["kind"])
            ended = ended or heading in ("run.ended", "run.recovered")
            passed_s = (at - began).total_seconds()
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            yield f"event {event.seq} is damaged; `runner audit verify` tells more"
            continue
        yield ""
        yield f"{heading:<{_LABEL}}  event {event.seq}, {passed_s:+.3f} s"
        for label, text in rows:
            yield from _wrapped(label, text)
    if not ended:
        yield ""
        yield "It has not ended: it goes on, or its supervisor died; the next start closes it then."


def _head(said: dict[str, Any]) -> Iterator[str]:
    who = said["principal"] or {}
    names = [("agent", who.get("agent")), ("started by", who.get("parent"))]
    names += [(name, who.get(name)) for name in ("session", "tenant", "uid")]
    yield f"{shown(str(said['run']))}, {shown(said['time'])}"
    told = ", ".join(f"{name} {value}" for name, value in names if value is not None)
    yield from _wrapped("who", told)


def _rows(kind: str, data: dict[str, Any]) -> Rows:
    match kind:
        case "run.decided":
            yield from _decided(data)
        case "run.started":
            yield "workspace", data["workspace"]
            yield "protections", f"{len(data['protections'])}: {', '.join(data['protections'])}"
            yield "degraded", ", ".join(data["degraded"]) or "nothing"
        case "run.ended":
            yield from _ended(data)
        case "run.recovered":
            yield "outcome", f"{data['termination']}: {data['reason']}"
            for each in data.get("charged", ()):
                amount = _amount(each["resource"], each["amount"])
                yield "charged", f"{amount} to {each['budget']} of {each['scope']}"
        case "budget.warned":
            used = " of ".join(_amount(data["resource"], data[n]) for n in ("used", "amount"))
            soft = ", which only warns" if data["soft"] else ""
            yield "budget", f"{data['percent']} % of {data['id']} of {data['scope']}: {used}{soft}"
        case "guard.paused":
            often = f"{data['trigger']} {data['count']} times"
            yield "pause", f"{often}; not tried again before {data['until']}"
        case "changes.applying":
            yield "changes", f"{data['count']} are about to be applied"
        case "changes.applied":
            applied, not_applied = data["applied"]["count"], data["not_applied"]["count"]
            yield "changes", f"{applied} applied, {not_applied} not"
        case "changes.discarded":
            yield "changes", f"thrown away: {data['why']}"
        case _:
            yield "", json.dumps(data, ensure_ascii=False)[:_PROGRAM_CHARACTERS]


def _decided(data: dict[str, Any]) -> Rows:
    yield "asked for", _program(data["program"])
    yield "in", data["directory"]
    yield "profile", f"{data['profile']}, backend {data['backend']}"
    if data["labels"]:
        yield "labels", ", ".join(f"{name}={value}" for name, value in data["labels"].items())
    if data["environment"]:
        yield "sets", ", ".join(data["environment"])
    intent = data["intent"]
    read = f"{intent['language']}, {intent['commands']} commands"
    if intent["dynamic_commands"]:
        read += f", of which {intent['dynamic_commands']} only running would tell"
    yield "read", read
    for label in ("programs", "hosts"):
        if intent.get(label):
            yield label, ", ".join(intent[label])
    if intent["unreadable"]:
        yield "unreadable", intent["unreadable"]
    decision = data["decision"]
    observed = "" if decision["enforced"] else " (only observed)"
    yield "decision", f"{decision['effect']}{observed}: {decision['reason']}"
    for rule in decision["rules"][:_LISTED]:
        yield "rule", f"{rule['effect']} by {rule['layer']} / {rule['id']}"
    if decision["obligations"]:
        yield "obligations", ", ".join(decision["obligations"])
    if data["limits"]:
        yield "limits", ", ".join(f"{name} {value}" for name, value in data["limits"].items())


def _program(program: dict[str, Any]) -> str:
    if program["kind"] == "argv":
        text = shlex.join(program["argv"])
    elif program["kind"] == "shell":
        text = f"{program['language']}: {program['text']}"
    elif program["kind"] == "session":
        text = f"a session of {program['lifetime_s']:g} s, {program['idle_s']:g} s idle"
    else:
        args = shlex.join(program["args"])
        text = f"{program['language']} script {program['name']}, {program['bytes']} bytes {args}"
    return text if len(text) <= _PROGRAM_CHARACTERS else f"{text[:_PROGRAM_CHARACTERS]}…"


def _ended(data: dict[str, Any]) -> Rows:
    outcome = data["termination"]
    for name, told in (("limit", "{}"), ("exit_code", "with {}"), ("signal", "by signal {}")):
        if data[name] is not None:
            outcome += f" {told.format(data[name])}"
    yield "outcome", outcome
    if data["error"] is not None:
        yield "error", f"{data['error']['code']}: {data['error']['message']}"
    if (killed := data.get("killed")) is not None:
        whose = f"{killed['scope']} {killed['name']}".rstrip()
        yield "killed", f"with {whose}, by {killed['by']}: {killed['reason']}"
    if (budget := data.get("budget")) is not None:
        free = budget["free_at"] or "not by itself"
        yield "budget", f"{budget['id']} of {budget['scope']} is used up; free again: {free}"
    used = {name: value for name, value in (data["usage"] or {}).items() if value is not None}
    if used:
        yield "used", ", ".join(map(_measured, used.items()))
    for stream in ("stdout", "stderr"):
        if data[stream] is not None:
            more = ", not all of it kept" if data[stream]["truncated"] else ""
            yield stream, f"{data[stream]['bytes']} bytes{more}"
    yield from _changes(data["changes"])
    for each in data["left"]:
        yield "left behind", each


def _changes(changes: dict[str, Any]) -> Rows:
    if not changes["count"]:
        return
    more = " and more" if changes["truncated"] else ""
    kept = "" if changes.get("kept") is None else "; their contents were kept"
    yield "changes", f"{changes['count']}{more}{kept}"
    for each in changes["first"][:_LISTED]:
        yield "", f"{each['kind']} {each['path']}"
    if (left := changes["count"] - _LISTED) > 0:
        yield "", f"and {left} more"


def _measured(item: tuple[str, Any]) -> str:
    """`wall_s`, 0.5 as `wall 0.5 s`."""
    name, value = item
    value = round(value, 3) if isinstance(value, float) else value
    for end, unit in (("_s", " s"), ("_bytes", " bytes"), ("_usd", " USD")):
        if name.endswith(end):
            return f"{name.removesuffix(end).replace('_', ' ')} {value}{unit}"
    return f"{name.replace('_', ' ')} {value}"


def _amount(resource: str, of_it: int) -> str:
    from runner.charging import amount  # noqa: PLC0415
    from runner.model.budget import Resource  # noqa: PLC0415

    return amount(Resource(resource), of_it)


def _wrapped(label: str, text: str) -> Iterator[str]:
    head = f"  {label:<{_LABEL}}"
    lines = textwrap.wrap(
        shown(str(text)),
        _WIDTH - len(head),
        break_long_words=True,
        break_on_hyphens=False,
    )
    for number, line in enumerate(lines or [""]):
        yield f"{head if number == 0 else ' ' * len(head)}{line}".rstrip()
