"""A run as the log has it: what is left to tell when no server remembers it any more.

The log names rules and not their messages, and 200 changes at most; secrets are redacted in it.
"""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

import orjson

from runner.audit.canonical import unescape
from runner.errors import RunnerError, StateError
from runner.model.event import AuditEvent, EventKind
from runner.model.outcome import Termination
from runner.model.usage import Usage
from runner.ports import Store
from runner.schema.api_answers import RunStatus
from runner.schema.outcome import printable
from runner.stores.listing import ListedRun


def run_document(store: Store, run: ListedRun) -> dict[str, Any]:
    """A run as `RunAnswer` has it. StateError: its events are damaged."""
    events = list(store.events(run.run_id))
    try:
        outcome = None if run.open else _outcome(store, run, events)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(
            f"the events of {run.run_id} are damaged; `runner audit verify` tells how"
        ) from error
    return {
        "id": run.run_id,
        "status": RunStatus.RUNNING if run.open else RunStatus.ENDED,
        "agent": printable(run.agent),
        "parent": _text(run.parent),
        "session": _text(run.session),
        "tenant": _text(run.tenant),
        "profile": printable(run.profile),
        "began": run.opened,
        "usage": None if outcome is None else outcome["usage"],
        "outcome": outcome,
        "error": None if outcome is None else outcome["error"],
    }


def decision_told(store: Store, run_id: str) -> dict[str, Any] | None:
    """The decision on a run as the log has it; None: its events went to an archive."""
    for event in store.events(run_id):
        if event.kind == EventKind.RUN_DECIDED:
            return _decision(orjson.loads(event.body)["data"]["decision"])
    return None


def _outcome(store: Store, run: ListedRun, events: list[AuditEvent]) -> dict[str, Any] | None:
    """As `outcome_document` has it; None: what it needs is archived."""
    told = {event.kind: orjson.loads(event.body)["data"] for event in events}
    decided, started = told.get(EventKind.RUN_DECIDED), told.get(EventKind.RUN_STARTED, {})
    ended = told.get(EventKind.RUN_ENDED, told.get(EventKind.RUN_RECOVERED))
    if decided is None or ended is None:
        return None
    last = max(e.seq for e in events if e.kind in (EventKind.RUN_ENDED, EventKind.RUN_RECOVERED))
    changes = ended.get("changes") or {"first": [], "count": 0, "truncated": False}
    error = ended.get("error")
    if ended["termination"] == Termination.UNKNOWN:
        error = {"code": RunnerError.code, "message": ended["reason"]}
    return {
        "run_id": run.run_id,
        "decision": _decision(decided["decision"]),
        "termination": ended["termination"],
        "limit": ended.get("limit"),
        "exit_code": ended.get("exit_code"),
        "signal": ended.get("signal"),
        "error": error and {"code": error["code"], "message": _plain(error["message"])},
        "usage": asdict(Usage(**(ended.get("usage") or {}))),
        "backend": _plain(decided["backend"]),
        "profile": printable(run.profile),
        "protections": started.get("protections", []),
        "degraded": started.get("degraded", []),
        **_stream(store, run.run_id, "stdout", ended.get("stdout")),
        **_stream(store, run.run_id, "stderr", ended.get("stderr")),
        "workspace": {
            "mode": started.get("workspace"),
            "changes": [_change(each) for each in changes["first"]],
            "truncated": changes["truncated"] or changes["count"] > len(changes["first"]),
        },
        "budget": _texts(ended.get("budget")),
        "killed": _texts(ended.get("killed")),
        "left": [_plain(line) for line in ended.get("left", [])],
        "audit": {
            "first_seq": events[0].seq,
            "last_seq": last,
            "head": next(e.leaf_hash.hex() for e in events if e.seq == last),
        },
    }


def _decision(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "effect": told["effect"],
        "rules": [_rule(each) for each in told["rules"]],
        "observed": [_rule(each) for each in told.get("observed", ())],
        "reason": _plain(told["reason"]),
        "policy_digest": told["policy_digest"],
        "enforced": told["enforced"],
        "rewrite": told["rewrite"] and [_plain(word) for word in told["rewrite"]],
        "ask": told["ask"],
        "approved": _texts(told.get("approved")),
    }


def _rule(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": told["id"],
        "layer": _plain(told["layer"]),
        "effect": told["effect"],
        "message": "",
        "matched": _plain(told.get("matched", "")),
    }


def _change(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": _plain(told["path"]),
        "kind": told["kind"],
        "type": told["type"],
        "sha256": told["sha256"],
        "size_bytes": told["size_bytes"],
        "executable": told.get("executable", False),
        "withheld": told.get("withheld"),
    }


def _stream(store: Store, run_id: str, name: str, told: dict[str, Any] | None) -> dict[str, Any]:
    kept = store.kept_output(run_id, name) or b""
    try:
        document = {name: kept.decode(), f"{name}_encoding": "utf-8"}
    except UnicodeDecodeError:
        document = {name: base64.b64encode(kept).decode(), f"{name}_encoding": "base64"}
    told = told or {"bytes": 0, "truncated": False, "sha256": None}
    return document | {
        f"{name}_bytes": told["bytes"],
        # What was kept may be discarded meanwhile.
        f"{name}_truncated": told["truncated"] or (told["bytes"] > 0 and not kept),
        f"{name}_sha256": told["sha256"],
    }


def _texts(told: dict[str, Any] | None) -> dict[str, Any] | None:
    if told is None:
        return None
    return {name: _plain(v) if isinstance(v, str) else v for name, v in told.items()}


def _plain(text: str) -> str:
    return printable(unescape(text))


def _text(name: str | None) -> str | None:
    return None if name is None else printable(name)
