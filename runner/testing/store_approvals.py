"""What every store must do for approvals; a part of `store_contract`."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import replace

from runner.model.approval import Answer, Approval, ApprovalState
from runner.model.principal import Principal
from runner.ports import Store

_WHO = Principal(uid=7, agent="co\ufffder \udcff", parent="boss", session="s", tenant="acme")
_ASKED = Approval(
    id="ask-00",
    digest="d1",
    principal=_WHO,
    profile="agent",
    directory="/home/\udcff",
    program="rm -r build\n\x1b[2J",
    reason="rule 'x' asks",
    rules=("x", "y"),
    approvers=(("uid:0", "user:*"), ("key:ops",)),
    asked_s=100.25,
    expires_s=200.5,
)


class ApprovalContract(ABC):
    """Subclass `StoreContract`."""

    @abstractmethod
    def make_store(self) -> Store:
        """Open the log of this test; the first call of a test makes it."""

    def test_a_question_is_there_as_it_was_asked_for_all_openings(self) -> None:
        with closing(self.make_store()) as first, closing(self.make_store()) as second:
            with first.transaction() as tx:
                tx.keep_approval(_ASKED)
                _same(tx.approval("ask-00"), _ASKED)
                _same(second.approval("ask-00"), None)
            _same(second.approval("ask-00"), _ASKED)
            _same(second.approval("ask-0"), None)
            answered = replace(
                _ASKED, state=ApprovalState.APPROVED, answer=Answer("uid:0", "why \udc80", 150.0)
            )
            with second.transaction() as tx:
                tx.keep_approval(answered)
            _same(list(first.approvals()), [answered])
            used = replace(answered, state=ApprovalState.USED, run_id="run-1")
            with first.transaction() as tx:
                tx.keep_approval(used)
            _same(second.latest_approval("d1", 150.0), used)

    def test_the_latest_of_a_digest_is_the_one_that_was_asked_last(self) -> None:
        with closing(self.make_store()) as store:
            with store.transaction() as tx:
                tx.keep_approval(replace(_ASKED, id="ask-b", asked_s=120.0))
                tx.keep_approval(replace(_ASKED, id="ask-a", asked_s=110.0))
                tx.keep_approval(replace(_ASKED, id="ask-c", asked_s=130.0, digest="d2"))
                _same(_id(tx.latest_approval("d1", 150.0)), "ask-b")
            _same(_id(store.latest_approval("d2", 150.0)), "ask-c")
            _same(store.latest_approval("d3", 150.0), None)
            # The clock was set back: what stands in the future hides nothing.
            _same(_id(store.latest_approval("d1", 115.0)), "ask-a")

    def test_open_ones_are_counted_for_their_agent_tenant_and_user(self) -> None:
        with closing(self.make_store()) as store:
            with store.transaction() as tx:
                tx.keep_approval(_ASKED)
                tx.keep_approval(replace(_ASKED, id="ask-01", state=ApprovalState.REFUSED))
                tx.keep_approval(replace(_ASKED, id="ask-02", principal=Principal(7, "other")))
                tx.keep_approval(replace(_ASKED, id="ask-03", principal=replace(_WHO, uid=8)))
                elsewhere = replace(_WHO, tenant="elsewhere")
                tx.keep_approval(replace(_ASKED, id="ask-04", principal=elsewhere))
            _same(store.open_approvals(_WHO, 150.0), 1)
            _same(store.open_approvals(_WHO, 200.5), 0)
            _same(store.open_approvals(Principal(7, "nobody"), 150.0), 0)

    def test_what_expired_long_ago_is_forgotten(self) -> None:
        with closing(self.make_store()) as store:
            with store.transaction() as tx:
                tx.keep_approval(_ASKED)
                tx.keep_approval(replace(_ASKED, id="ask-01", expires_s=300.0))
            _same([each.id for each in store.approvals(250.0)], ["ask-01"])
            with store.transaction() as tx:
                tx.forget_approvals(250.0)
            _same([each.id for each in store.approvals()], ["ask-01"])


def _id(approval: Approval | None) -> str | None:
    return None if approval is None else approval.id


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}")
