"""Outcomes and decisions from their JSON (`runner.schema.outcome`), as the library has them.

What JSON does not tell is what it is without: `Change.original`, `Decision.obligations`. A path
whose bytes are no UTF-8 is spelled as there.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

from runner.client.parsing import Fields, member, refuse, text
from runner.errors import error_of
from runner.model.approval import Answer as Said
from runner.model.approval import Approval, ApprovalState
from runner.model.budget import Resource, Spent, Window
from runner.model.decision import Approved, AskTerms, Decision, Effect, MatchedRule
from runner.model.kill import Kill, KillScope
from runner.model.limits import LimitName
from runner.model.outcome import (
    AuditRange,
    Change,
    ChangeKind,
    Failure,
    Original,
    Outcome,
    Output,
    Termination,
)
from runner.model.principal import Principal
from runner.model.profile import WorkspaceMode
from runner.model.usage import Usage

_INTEGERS = (
    "memory_peak_bytes", "processes", "execs", "connections", "requests", "bytes_in", "bytes_out",
    "tokens",
)  # fmt: skip
_NUMBERS = ("wall_s", "cpu_user_s", "cpu_system_s", "cost_usd")


def outcome_of(value: object, where: str = "the outcome") -> Outcome:
    """An `OutcomeDocument`. AnswerError: it is none."""
    f = Fields(value, where)
    changes, truncated, mode = f.inner("workspace", _workspace)
    found = Outcome(
        run_id=f.text("run_id"),
        decision=f.inner("decision", decision_of),
        termination=f.member("termination", Termination),
        usage=f.inner("usage", usage_of),
        backend=f.text("backend"),
        profile=f.text("profile"),
        audit=f.inner("audit", _audit),
        limit=f.maybe_inner("limit", lambda v, w: member(v, LimitName, w)),
        exit_code=f.maybe("exit_code", f.integer),
        signal=f.maybe("signal", f.integer),
        failure=f.maybe_inner("error", failure_of),
        protections=f.texts("protections"),
        degraded=f.texts("degraded"),
        stdout=_output(f, "stdout", where),
        stderr=_output(f, "stderr", where),
        workspace=mode,
        changes=changes,
        changes_truncated=truncated,
        left=f.texts("left"),
        kill=f.maybe_inner("killed", _kill),
        budget=f.maybe_inner("budget", spent_of),
    )
    f.done()
    return found


def check_failed(outcome: Outcome) -> None:
    """Raise what runner failed in, as the library does: with the outcome that was recorded."""
    if outcome.termination is Termination.RUNNER_FAILED and outcome.failure is not None:
        error = error_of(outcome.failure.code, outcome.failure.message)
        error.outcome = outcome
        raise error


def decision_of(value: object, where: str = "the decision") -> Decision:
    """A `DecisionDocument`."""
    f = Fields(value, where)
    found = Decision(
        effect=f.member("effect", Effect),
        reason=f.text("reason"),
        policy_digest=f.text("policy_digest"),
        rules=f.each("rules", _rule),
        enforced=f.flag("enforced"),
        rewrite=f.maybe("rewrite", f.texts),
        ask=f.maybe_inner("ask", _ask),
        approved=f.maybe_inner("approved", _approved),
        observed=f.each("observed", _rule),
    )
    f.done()
    return found


def usage_of(value: object, where: str = "the usage") -> Usage:
    """A `UsageDocument`."""
    f = Fields(value, where)
    found: dict[str, Any] = {name: f.maybe(name, f.integer) for name in _INTEGERS}
    found |= {name: f.maybe(name, f.number) for name in _NUMBERS}
    f.done()
    return Usage(**found)


def failure_of(value: object, where: str = "the error") -> Failure:
    """An `ErrorDocument`."""
    f = Fields(value, where)
    found = Failure(f.text("code"), f.text("message"))
    f.done()
    return found


def spent_of(value: object, where: str = "the budget") -> Spent:
    """A `BudgetDocument`."""
    f = Fields(value, where)
    found = Spent(
        layer=f.text("layer"),
        budget_id=f.text("id"),
        scope=f.text("scope"),
        resource=f.member("resource", Resource),
        amount=f.integer("amount"),
        window=f.maybe_inner("window", _window) if f.has("window") else None,
        used=f.maybe("used", f.integer),
        free_at_s=f.maybe_inner("free_at", moment_of),
    )
    f.done()
    return found


def change_of(f: Fields) -> Change:
    """The fields of a `ChangeDocument`, with those of a `ChangeRow` where they are there."""
    return Change(
        path=f.text("path"),
        kind=f.member("kind", ChangeKind),
        type=f.text("type"),
        sha256=f.maybe("sha256", f.text),
        size_bytes=f.maybe("size_bytes", f.integer),
        executable=f.flag("executable"),
        original=f.maybe_inner("original", _original) if f.has("original") else None,
        withheld=f.maybe("withheld", f.text),
    )


def moment_of(value: object, where: str) -> float:
    """RFC 3339 as seconds since the epoch."""
    try:
        found = datetime.fromisoformat(text(value, where))
        if found.tzinfo is not None:
            return found.timestamp()
    except (ValueError, OverflowError):
        pass
    refuse(where, "is no time as RFC 3339 has it")


def _workspace(value: object, where: str) -> tuple[tuple[Change, ...], bool, WorkspaceMode | None]:
    f = Fields(value, where)
    changes = f.each("changes", _change)
    mode = f.maybe_inner("mode", lambda v, w: member(v, WorkspaceMode, w))
    truncated = f.flag("truncated")
    f.done()
    return changes, truncated, mode


def _change(value: object, where: str) -> Change:
    f = Fields(value, where)
    found = change_of(f)
    f.done()
    return found


def _original(value: object, where: str) -> Original:
    f = Fields(value, where)
    found = Original(f.text("type"), f.maybe("sha256", f.text), bool(f.maybe("executable", f.flag)))
    f.done()
    return found


def _output(f: Fields, stream: str, where: str) -> Output:
    data = b""
    if f.has(stream):
        kept, encoding = f.maybe(stream, f.text), f.maybe(f"{stream}_encoding", f.text)
        data = b"" if kept is None else bytes_of(kept, encoding, f"{where}.{stream}")
    return Output(
        bytes_total=f.integer(f"{stream}_bytes"),
        sha256=f.maybe(f"{stream}_sha256", f.text),
        truncated=f.flag(f"{stream}_truncated"),
        data=data,
    )


def bytes_of(data: str, encoding: str | None, where: str) -> bytes:
    """Output as JSON has it."""
    try:
        if encoding == "utf-8":
            return data.encode()
        if encoding == "base64":
            return base64.b64decode(data, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        pass
    refuse(where, f"is not {str(encoding)[:20]!r}")


def _window(value: object, where: str) -> Window | None:
    from runner.metering.windows import decoded  # noqa: PLC0415  (zones are rarely needed)

    try:
        return decoded(text(value, where))
    except ValueError:
        refuse(where, "is no window")


def _rule(value: object, where: str) -> MatchedRule:
    f = Fields(value, where)
    found = MatchedRule(
        id=f.text("id"),
        layer=f.text("layer"),
        effect=f.member("effect", Effect),
        message=f.text("message"),
        matched=f.text("matched"),
    )
    f.done()
    return found


def _ask(value: object, where: str) -> AskTerms:
    f = Fields(value, where)
    found = AskTerms(f.each("approvers", texts_of), f.number("expires_s"))
    f.done()
    return found


def texts_of(value: object, where: str) -> tuple[str, ...]:
    """A list of texts."""
    return Fields({"list": value}, where).texts("list")


def _approved(value: object, where: str) -> Approved:
    f = Fields(value, where)
    found = Approved(f.text("id"), f.text("by"), f.text("reason"))
    f.done()
    return found


def _kill(value: object, where: str) -> Kill:
    """Of an outcome, which does not tell since when: 0."""
    f = Fields(value, where)
    found = Kill(f.member("scope", KillScope), f.text("name"), f.text("by"), f.text("reason"), 0.0)
    f.done()
    return found


def _audit(value: object, where: str) -> AuditRange:
    f = Fields(value, where)
    found = AuditRange(f.integer("first_seq"), f.integer("last_seq"), f.text("head"))
    f.done()
    return found


def approval_of(value: object, where: str) -> Approval:
    """A question from its JSON. AnswerError: it is none."""
    f = Fields(value, where)
    found = Approval(
        id=f.text("id"),
        digest="",
        principal=Principal(
            uid=f.integer("uid"),
            agent=f.text("agent"),
            parent=f.maybe("parent", f.text),
            session=f.maybe("session", f.text),
            tenant=f.maybe("tenant", f.text),
        ),
        profile=f.text("profile"),
        directory=f.text("directory"),
        program=f.text("program"),
        reason=f.text("reason"),
        rules=f.texts("rules"),
        approvers=f.each("approvers", texts_of),
        asked_s=f.inner("asked", moment_of),
        expires_s=f.inner("expires", moment_of),
        state=f.member("state", ApprovalState),
        answer=f.maybe_inner("answer", _said),
        run_id=f.maybe("run_id", f.text),
    )
    f.done()
    return found


def _said(value: object, where: str) -> Said:
    f = Fields(value, where)
    found = Said(f.text("by"), f.text("reason"), f.inner("at", moment_of))
    f.done()
    return found
