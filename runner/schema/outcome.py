"""An outcome as JSON: what `--json` prints, `--result` writes and the API answers.

`outcome_document` builds it; the models below it state it, for the published JSON Schema and
for whoever wants to read it back.
"""

from __future__ import annotations

import base64
import codecs
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from runner import charging, records
from runner.metering import windows
from runner.model.budget import Spent
from runner.model.decision import Decision, MatchedRule
from runner.model.outcome import Outcome, Output

if TYPE_CHECKING:
    from runner.schema.base import JsonSchema

_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates other than U+DC80..U+DCFF, which stand for the bytes 0x80..0xFF."""


def outcome_document(outcome: Outcome, with_output: bool) -> dict[str, object]:
    """The outcome as JSON values; `with_output`: with what was kept of stdout and stderr.

    A stream is text when it is valid UTF-8 and base64 when not; `stdout_encoding` tells which. A
    path that is not UTF-8 has `\\xNN` for each byte that isn't, and then `\\\\` for a backslash.
    """
    return {
        "run_id": outcome.run_id,
        "decision": decision_document(outcome.decision),
        "termination": outcome.termination.value,
        "limit": outcome.limit.value if outcome.limit else None,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "error": (
            {"code": outcome.failure.code, "message": printable(outcome.failure.message)}
            if outcome.failure
            else None
        ),
        "usage": asdict(outcome.usage),
        "backend": outcome.backend,
        "profile": printable(outcome.profile),
        "protections": list(outcome.protections),
        "degraded": list(outcome.degraded),
        **_stream("stdout", outcome.stdout, with_output),
        **_stream("stderr", outcome.stderr, with_output),
        "workspace": {
            "mode": outcome.workspace.value if outcome.workspace else None,
            "changes": [
                {
                    "path": printable(change.path),
                    "kind": change.kind.value,
                    "type": change.type,
                    "sha256": change.sha256,
                    "size_bytes": change.size_bytes,
                    "executable": change.executable,
                    "withheld": change.withheld,
                }
                for change in outcome.changes
            ],
            "truncated": outcome.changes_truncated,
        },
        "budget": spent_document(outcome.budget) if outcome.budget else None,
        "killed": (
            {name: printable(value) for name, value in records.kill_data(outcome.kill).items()}
            if outcome.kill is not None
            else None
        ),
        "left": [printable(line) for line in outcome.left],
        "audit": asdict(outcome.audit),
    }


def decision_document(decision: Decision) -> dict[str, object]:
    """A decision as JSON values; the same in `runner run`, `runner check` and `--dry-run`."""
    ask = decision.ask
    return {
        "effect": decision.effect.value,
        "rules": [*map(_rule, decision.rules)],
        "observed": [*map(_rule, decision.observed)],
        "reason": printable(decision.reason),
        "policy_digest": decision.policy_digest,
        "enforced": decision.enforced,
        "rewrite": (
            [printable(word) for word in decision.rewrite] if decision.rewrite is not None else None
        ),
        "ask": (
            {
                "approvers": [[printable(each) for each in group] for group in ask.approvers],
                "expires_s": ask.expires_s,
            }
            if ask is not None
            else None
        ),
        "approved": (
            {name: printable(value) for name, value in asdict(decision.approved).items()}
            if decision.approved is not None
            else None
        ),
    }


def spent_document(spent: Spent) -> dict[str, object]:
    """A budget, and how it stands."""
    told = {**charging.data(spent), "window": windows.encoded(spent.window) or None}
    return {k: printable(value) if isinstance(value, str) else value for k, value in told.items()}


def _rule(rule: MatchedRule) -> dict[str, object]:
    return {
        "id": rule.id,
        "layer": printable(rule.layer),
        "effect": rule.effect.value,
        "message": printable(rule.message),
        "matched": printable(rule.matched),
    }


def printable(text: str) -> str:
    """The text itself, or where it holds bytes that are not UTF-8 (PEP 383) an escaped spelling."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # '?' for half a surrogate pair that stands for no byte: no path of Linux holds one.
        doubled = _NO_BYTE.sub("?", text.replace("\\", "\\\\"))
        return doubled.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text


def _stream(name: str, output: Output, with_data: bool) -> dict[str, object]:
    document: dict[str, object] = {}
    if with_data:
        try:
            # A character that the cut went through is left off, not a reason for base64.
            decoder = codecs.getincrementaldecoder("utf-8")()
            text = decoder.decode(output.data, final=not output.truncated)
            document = {name: text, f"{name}_encoding": "utf-8"}
        except UnicodeDecodeError:
            data = base64.b64encode(output.data).decode("ascii")
            document = {name: data, f"{name}_encoding": "base64"}
    return document | {
        f"{name}_bytes": output.bytes_total,
        f"{name}_truncated": output.truncated,
        f"{name}_sha256": output.sha256,
    }


def outcome_json_schema() -> JsonSchema:
    """The JSON Schema (draft 2020-12) of `outcome_document`."""
    # Imported late: a run needs the document, not the models.
    from runner.schema.base import published  # noqa: PLC0415
    from runner.schema.outcome_model import OutcomeDocument  # noqa: PLC0415

    return published(OutcomeDocument, "outcome.json", "The outcome of one run")
