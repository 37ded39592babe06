"""What a decision may depend on beside the request: the time, and runs that began earlier."""

from __future__ import annotations

from runner.books import Books, Counter
from runner.charging import charges
from runner.deciding import Policy
from runner.model.action import Facts
from runner.model.grant import CallBudget
from runner.model.principal import Principal
from runner.model.request import ExecRequest
from runner.model.rule import CountOf
from runner.pausing import paused
from runner.spending import used_up


def count(books: Books, request: ExecRequest, policy: Policy, now_s: float) -> Facts:
    """As they are now. `books`: a transaction, where the run is opened in that transaction.

    RecordError, StateError: it could not be counted.
    """
    who = request.principal
    runs = {
        (of, window_s): books.runs_since(who, of, now_s - window_s)
        for of, window_s in policy.counted
    }
    free_at_s = {
        (of, budget): _free_at_s(books, who, of, budget, now_s)
        for budget in policy.call_budgets
        for of in (CountOf.AGENT, CountOf.PARENT)
        if runs[of, budget.window_s] >= budget.calls
    }
    charged = charges(policy.budgets, request, policy.profile)
    spent = used_up(books, charged, policy.profile.network, now_s)
    pause = paused(books, request, policy.profile, policy.loop_guard, now_s)
    return Facts(
        now_s,
        runs,
        free_at_s=free_at_s,
        spent=spent,
        paused=pause,
        killed=books.killed(who),
    )


def _free_at_s(
    counter: Counter, who: Principal, of: CountOf, budget: CallBudget, now_s: float
) -> float:
    """When fewer than `calls` runs are left in the window, if one that is denied now is the last.

    That one counts as well: of it and the `calls - 1` before it the first has to leave the window.
    """
    before, since_s = budget.calls - 1, now_s - budget.window_s
    began_s = counter.began_s(who, of, since_s, before) if before else None
    return (now_s if began_s is None else began_s) + budget.window_s
