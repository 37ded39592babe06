"""What a rule asked about, and what somebody answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.model.principal import Principal


class ApprovalState(StrEnum):
    """Where a question stands; closed list."""

    ASKED = "asked"
    APPROVED = "approved"
    """Yes, for one run that has not begun yet."""
    REFUSED = "refused"
    """No; it stands until the question would have expired."""
    USED = "used"
    """Yes, and a run began by it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody said."""

    by: str
    """Who, `uid:1000`."""
    reason: str
    at_s: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A question: may this very thing run, as it is decided now?"""

    id: str
    """`ask-` and 16 hexadecimal digits."""
    digest: str
    """A keyed digest over the request, the policy and the sandbox that would be built."""
    principal: Principal
    profile: str
    directory: str
    program: str
    """What would run, for who is asked; secrets are redacted, and it may be cut."""
    reason: str
    """Why it is asked: the decision's."""
    rules: tuple[str, ...]
    """Ids of the rules that ask."""
    approvers: tuple[tuple[str, ...], ...]
    """As `AskTerms.approvers`."""
    asked_s: float
    expires_s: float
    """When it is a denial, or the yes no longer good; seconds since the epoch."""
    state: ApprovalState = ApprovalState.ASKED
    answer: Answer | None = None
    run_id: str | None = None
    """The run that began by it."""

    def open_at(self, now_s: float) -> bool:
        """Whether it can still be answered, or the answer still holds."""
        return self.state is not ApprovalState.USED and self.asked_s <= now_s < self.expires_s
