"""Approvals at work: what a question is about, and what its answer makes of a decision.

A question is bound to a digest over all that decides what would run: the request, the policy, the
sandbox. Where any of it changes it is another question. An answer is for one run, which takes it in
the transaction that opens it.
"""

from __future__ import annotations

import hashlib
import secrets
import select
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from runner import operator_records, records
from runner.audit.canonical import canonical, escape
from runner.audit.event import rfc3339
from runner.audit.redaction import Redactor
from runner.caller import Caller
from runner.compile import compile_spec, spec_digest
from runner.deciding import Decided, Policy
from runner.model.approval import Approval, ApprovalState
from runner.model.decision import Approved, AskTerms, Effect
from runner.model.request import ExecRequest
from runner.ports import CancelToken, Clock, Store, Transaction

MOST_OPEN = 100
"""Questions of one agent, tenant and user that wait at once; more nobody reads."""
KEPT_S = 30 * 86_400.0
"""What was asked is looked at for so long after it expired; the log has it for good."""
PROGRAM_CHARACTERS = 4_000
LOOK_EVERY_S = 0.2
"""An answer is seen within this time."""


class Questions:
    """What one run asks before it begins; used by the thread that wants the run."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        policy: Policy,
        caller: Caller,
        *,
        inherited: Mapping[str, str],
        redactor: Redactor | None,
    ) -> None:
        """Nothing is asked yet."""
        self._store = store
        self._clock = clock
        self._policy = policy
        self._caller = caller
        self._inherited = inherited
        self._redactor = redactor
        self._approval: Approval | None = None
        """What was asked, or found, last."""
        self._used: Approval | None = None
        self._given_up: str | None = None
        """Why it is waited for no longer; empty: nobody has answered in time."""
        self._cancelled = False
        """Whether that is because the run was cancelled."""
        self.cancelled = False
        """Whether nothing but that keeps it from beginning, as far as `answered` told last."""
        self._overtaken = False
        self._until_s: float | None = None
        """On the monotonic clock; None: nothing was waited for yet."""
        self._fresh: list[str] = []
        self._told: str | None = None
        """The question that the caller knows of."""

    def answered(self, tx: Transaction, decided: Decided) -> Decided | None:
        """What holds, with the answer if one was needed; None: wait for it, then decide anew.

        RequestError, BackendError: what is asked about could not be built.
        """
        self._used, self.cancelled = None, False
        if self._overtaken:
            why = "the policy changed while it waited for an answer; asked again it is decided anew"
            denied = replace(decided.decision, effect=Effect.DENY, rewrite=None)
            return _refused(replace(decided, decision=denied), None, why)
        return self._answered(tx, decided)

    def _answered(self, tx: Transaction, decided: Decided) -> Decided | None:
        if decided.permitted or decided.decision.effect is not Effect.ASK:
            return decided
        now_s = self._clock.now()
        digest = tx.fingerprint(subject(decided, self._policy, self._inherited, self._caller.stdin))
        found = tx.latest_approval(digest, now_s)
        if found is None or not found.open_at(now_s):
            if self._given_up is not None:
                self.cancelled = self._cancelled
                return _refused(decided, self._approval, self._given_up)
            found = self._ask(tx, digest, decided, now_s)
            if found is None:
                why = f"{MOST_OPEN} questions of this agent wait already: not asked"
                return _refused(decided, None, why)
        self._approval = found
        if found.state is ApprovalState.APPROVED and found.answer is not None:
            self._used = found
            approved = Approved(found.id, found.answer.by, found.answer.reason)
            return replace(decided, decision=replace(decided.decision, approved=approved))
        if found.state is ApprovalState.REFUSED or self._given_up is not None:
            self.cancelled = self._cancelled and found.state is not ApprovalState.REFUSED
            return _refused(decided, found, self._given_up or "")
        return None

    def use(self, tx: Transaction, run_id: str) -> None:
        """That run begins by the yes that was found, if one was needed: no other will."""
        if self._used is not None:
            used = replace(self._used, state=ApprovalState.USED, run_id=run_id)
            tx.keep_approval(used)

    def fresh(self) -> Sequence[str]:
        """Ids of what was asked since this was last called, durable by then."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def overtake(self) -> None:
        """The policy is another by now: what was asked, and any answer, was about the old one."""
        self._overtaken = True

    def wait(self, cancel: CancelToken) -> None:
        """Until there is an answer, or there will be none, or the caller has no more patience."""
        approval, caller = self._approval, self._caller
        if approval is None:  # pragma: no cover  (`answered` has set it)
            return
        if self._until_s is None:
            self._until_s = self._clock.monotonic() + caller.ask_wait_s
        if caller.observer is not None and caller.ask_wait_s > 0 and self._told != approval.id:
            caller.observer.asked(approval)
            self._told = approval.id
        poll = select.poll()  # not select(): descriptors may be above 1023
        poll.register(cancel.fileno(), select.POLLIN)
        while self._goes_on(approval, cancel):
            left_s = self._until_s - self._clock.monotonic()
            poll.poll(1000 * max(0.0, min(left_s, LOOK_EVERY_S)))

    def _goes_on(self, approval: Approval, cancel: CancelToken) -> bool:
        found = self._store.approval(approval.id)
        if found is None or found.state is not ApprovalState.ASKED:
            return False
        if self._store.killed(approval.principal) is not None:
            return False
        if not found.open_at(self._clock.now()):
            self._given_up = "nobody answered before it expired"
        elif cancel.is_set:
            self._cancelled = True
            self._given_up = "it was cancelled while it waited for an answer"
        elif self._until_s is None or self._clock.monotonic() >= self._until_s:
            self._given_up = ""
        return self._given_up is None

    def _ask(self, tx: Transaction, digest: str, decided: Decided, now_s: float) -> Approval | None:
        """Ask now; None: too much is asked."""
        if tx.open_approvals(decided.request.principal, now_s) >= MOST_OPEN:
            return None
        decision, request = decided.decision, decided.request
        terms = decision.ask or AskTerms()
        asked = Approval(
            id=f"ask-{secrets.token_hex(8)}",
            digest=digest,
            principal=request.principal,
            profile=self._policy.profile.name,
            directory=request.directory,
            program=_shown(request, self._redactor),
            reason=decision.reason,
            rules=tuple(rule.id for rule in decision.rules if rule.effect is Effect.ASK),
            approvers=terms.approvers,
            asked_s=now_s,
            expires_s=now_s + terms.expires_s,
        )
        tx.forget_approvals(now_s - KEPT_S)
        tx.keep_approval(asked)
        tx.append(operator_records.approval_asked(asked))
        self._fresh.append(asked.id)
        return asked


def subject(
    decided: Decided, policy: Policy, inherited: Mapping[str, str], stdin: int | bytes | None
) -> bytes:
    """What a yes would be to, as bytes for a keyed digest: they may hold secrets.

    RequestError, BackendError: it could not be built, so there is nothing to ask.
    """
    request = decided.request
    spec = compile_spec(request, policy.profile, decided.decision.obligations, inherited)
    return canonical(
        {
            "principal": asdict(request.principal),
            "labels": [list(label) for label in request.labels],
            "policy": decided.decision.policy_digest,
            "rules": [f"{rule.layer}#{rule.id}" for rule in decided.decision.rules],
            "spec": spec_digest(spec),
            "stdin": _told(stdin),
        }
    )


def terms_of(approval: Approval) -> AskTerms:
    """Who may answer it."""
    return AskTerms(approval.approvers, approval.expires_s - approval.asked_s)


def _refused(decided: Decided, approval: Approval | None, why: str) -> Decided:
    """What holds without a yes; it says what can be done about it."""
    if approval is None:
        told = why
    elif approval.state is ApprovalState.REFUSED and approval.answer is not None:
        told = f"{approval.answer.by} refused it ({approval.id}): {approval.answer.reason}"
    else:
        until = f"{rfc3339(approval.expires_s)[:19]}Z"
        told = (
            f"nobody has approved {approval.id} yet, which stands until {until}: once somebody "
            "has, the very same request runs, once"
        )
        if why:
            told = f"{why} ({approval.id})"
    reason = f"{decided.decision.reason}; {told}"
    return replace(decided, decision=replace(decided.decision, reason=reason))


def _shown(request: ExecRequest, redactor: Redactor | None) -> str:
    """What would run, whole as far as it is not too long."""
    told = records.program_text(request.program, redactor)
    if len(told) <= PROGRAM_CHARACTERS:
        return told
    digest = hashlib.sha256(escape(told).encode()).hexdigest()
    return f"{told[:PROGRAM_CHARACTERS]}… ({len(told)} characters, sha256 {digest})"


def _told(stdin: int | bytes | None) -> str:
    """What is read from a descriptor nobody can tell beforehand."""
    if stdin is None:
        return "none"
    return "stream" if isinstance(stdin, int) else hashlib.sha256(stdin).hexdigest()
