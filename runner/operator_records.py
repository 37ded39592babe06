"""Events of what people do about runs: answering what rules ask, and ending them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner.audit.event import rfc3339
from runner.model.approval import Answer, Approval
from runner.model.event import EventDraft, EventKind
from runner.model.kill import Kill, KillScope, OpenRun
from runner.model.principal import Principal
from runner.records import kill_data

KILLED_LISTED = 200
"""Runs that a kill ends, written out."""


def approval_asked(approval: Approval) -> EventDraft:
    """What is asked, about what, until when, and who may answer."""
    data = {
        "id": approval.id,
        "digest": approval.digest,
        "profile": approval.profile,
        "directory": approval.directory,
        "program": approval.program,
        "reason": approval.reason,
        "rules": list(approval.rules),
        "approvers": [list(group) for group in approval.approvers],
        "expires": rfc3339(approval.expires_s),
    }
    return EventDraft(EventKind.APPROVAL_ASKED, data, approval.principal)


def approval_answered(approval: Approval, answer: Answer, who: Principal) -> EventDraft:
    """Yes or no, by whom, and why."""
    data = {
        "id": approval.id,
        "answer": approval.state.value,
        "by": answer.by,
        "reason": answer.reason,
        "agent": approval.principal.agent,
    }
    return EventDraft(EventKind.APPROVAL_ANSWERED, data, who)


def kill_ordered(kill: Kill, runs: Sequence[OpenRun], who: Principal) -> EventDraft:
    """Whom it stops, and the runs that it ends."""
    data = {
        **kill_data(kill),
        "runs": {"count": len(runs), "first": [each.run_id for each in runs[:KILLED_LISTED]]},
    }
    return EventDraft(EventKind.KILL_ORDERED, data, who)


def kill_lifted(scope: KillScope, name: str, by: str, reason: str, who: Principal) -> EventDraft:
    """Who may begin runs again, who says so, and why."""
    data = {"scope": scope.value, "name": name, "by": by, "reason": reason}
    return EventDraft(EventKind.KILL_LIFTED, data, who)


def approval_untold(identity: str, to: str, why: str) -> EventDraft:
    """Who was not told of a question, and why."""
    return EventDraft(EventKind.APPROVAL_UNTOLD, {"id": identity, "to": to, "why": why})
