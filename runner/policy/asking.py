"""Who may answer a question, and until when."""

from __future__ import annotations

from collections.abc import Iterable

from runner.model.decision import AskTerms
from runner.policy.globs import glob


def strictest(terms: Iterable[AskTerms]) -> AskTerms:
    """All of them at once: who answers satisfies each, within the shortest time."""
    every = [*terms]
    groups = {tuple(sorted({*group})) for each in every for group in each.approvers if group}
    shortest_s = min((each.expires_s for each in every), default=AskTerms().expires_s)
    return AskTerms(tuple(sorted(groups)), shortest_s)


def may_answer(terms: AskTerms, *names: str) -> bool:
    """Whether somebody who may approve at all, and goes by these names, may answer this."""
    return all(
        any(glob(pattern).matches(name) for pattern in group for name in names)
        for group in terms.approvers
    )
