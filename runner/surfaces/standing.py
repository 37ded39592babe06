"""Questions and kills as JSON, the same from the command line and the API."""

from __future__ import annotations

from runner.audit.event import rfc3339
from runner.model.approval import Approval
from runner.model.kill import Ended, Kill
from runner.schema.outcome import printable


def approval_document(approval: Approval) -> dict[str, object]:
    """All of a question, and its answer."""
    who, answer = approval.principal, approval.answer
    names = {"parent": who.parent, "session": who.session, "tenant": who.tenant}
    return {
        "id": approval.id,
        "state": approval.state.value,
        "agent": printable(who.agent),
        **{key: None if name is None else printable(name) for key, name in names.items()},
        "uid": who.uid,
        "profile": printable(approval.profile),
        "directory": printable(approval.directory),
        "program": printable(approval.program),
        "reason": printable(approval.reason),
        "rules": [printable(rule) for rule in approval.rules],
        "approvers": [[printable(each) for each in group] for group in approval.approvers],
        "asked": rfc3339(approval.asked_s),
        "expires": rfc3339(approval.expires_s),
        "answer": (
            None
            if answer is None
            else {
                "by": printable(answer.by),
                "reason": printable(answer.reason),
                "at": rfc3339(answer.at_s),
            }
        ),
        "run_id": approval.run_id,
    }


def kill_document(kill: Kill) -> dict[str, object]:
    """What is stopped, by whom, and why."""
    return {
        "scope": kill.scope.value,
        "name": printable(kill.name),
        "by": printable(kill.by),
        "reason": printable(kill.reason),
        "since": rfc3339(kill.since_s),
    }


def ended_document(ended: Ended) -> dict[str, object]:
    """What a kill came to."""
    return {
        "runs": [run.run_id for run in ended.runs],
        "forced": list(ended.forced),
        "unrecorded": list(ended.unrecorded),
        "alive": list(ended.alive),
    }
