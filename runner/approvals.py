"""Questions that rules ask, for people: looking at them, and answering."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from dataclasses import replace

from runner import operator_records
from runner.approving import terms_of
from runner.errors import RequestError
from runner.model.approval import Answer, Approval, ApprovalState
from runner.model.principal import Principal
from runner.policy.asking import may_answer
from runner.ports import Clock, Store

SHORTEST_ID = 8
"""Characters by which a question may be named: `ask-` and four digits."""


class Approvals:
    """All questions of who shares the state folder."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def all(self) -> Sequence[Approval]:
        """Those of the last thirty days, the oldest first. StateError: they can't be read."""
        return self._store.approvals()

    def waiting(self) -> Sequence[Approval]:
        """Those that can be answered now. StateError: they can't be read."""
        now_s = self._clock.now()
        return [
            each
            for each in self._store.approvals(now_s)
            if each.state is ApprovalState.ASKED and each.open_at(now_s)
        ]

    def get(self, identity: str) -> Approval:
        """By its id, or the beginning of that. RequestError: there is none, or more than one."""
        return self._store.approval(identity) or _one(self._store.approvals(), identity)

    def answer(
        self, identity: str, reason: str, *, yes: bool, by: Sequence[str] | None = None
    ) -> Approval:
        """Say yes or no; the question as it stands then. Recorded as `approval.answered`.

        `by`: the names of who answers, the first one for the log; else this process's user, as
        `uid:N` and `user:NAME`. Never an agent's. RequestError: it can't be answered, by this one,
        or any more.
        """
        names = _operator() if by is None else tuple(by)
        if not reason.strip():
            raise RequestError("a question is answered for a reason: say which, it is recorded")
        with self._store.transaction() as tx:
            now_s = self._clock.now()  # not before: it may have been waited for the log
            found = tx.approval(identity)
            if found is None or found.expires_s < now_s:
                found = _one(tx.approvals(now_s), identity)
            if found.state is not ApprovalState.ASKED and found.answer is not None:
                raise RequestError(
                    f"{found.id} was answered already: {found.answer.by} said "
                    f"'{found.state.value}': {found.answer.reason}"
                )
            terms = terms_of(found)
            if not may_answer(terms, *names):
                groups = "; and ".join(" or ".join(group) for group in terms.approvers)
                raise RequestError(f"{names[0]} may not answer {found.id}, which is for {groups}")
            answer = Answer(names[0], reason, now_s)
            state = ApprovalState.APPROVED if yes else ApprovalState.REFUSED
            answered = replace(found, state=state, answer=answer)
            tx.keep_approval(answered)
            who = Principal(uid=os.getuid(), agent="default")
            tx.append(operator_records.approval_answered(answered, answer, who))
        return answered


def _one(approvals: Sequence[Approval], identity: str) -> Approval:
    if len(identity) < SHORTEST_ID:
        raise RequestError(
            f"{identity!r} is too short for a question's id: give {SHORTEST_ID} characters or more"
        )
    found = [each for each in approvals if each.id.startswith(identity)]
    if len(found) != 1:
        what = "none" if not found else "more than one"
        raise RequestError(
            f"of the questions that are open {what} begins with {identity!r}; `runner approvals "
            "list --all` has the others too"
        )
    return found[0]


def _operator() -> tuple[str, ...]:
    uid = os.getuid()
    try:
        return f"uid:{uid}", f"user:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return (f"uid:{uid}",)
