"""What the log and the ledger say of each other when no run is open: violations, a sentence each.

Written from docs/budgets.md, not from the code that charges.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from runner.model.budget import HISTORY, Bucket, Resource
from runner.model.event import AuditEvent, EventKind
from runner.ports import Store

BUDGETS = """\
budgets:
  - {id: calls, of: all, per: 30d, calls: 1000000}
  - {id: time, of: all, per: 30d, wall: 1000h, cpu: 1000h}
  - {id: crowd, of: all, at_once: 1000}
"""
"""For a profile whose runs are judged here: what they take, and that never ends them."""
ROUNDED_US = 1
"""A run's time is charged in whole microseconds."""


def violations(store: Store, events: Iterable[AuditEvent]) -> list[str]:
    """`events`: all of the log. Runs under `BUDGETS` count, and budgets of all alone are looked at.

    Nobody holds anything; each run that was let begin was charged one call; time is what the
    outcomes tell, and of runs whose supervisor died, what their last event says was charged.
    """
    found: list[str] = []
    begun = 0
    told_us: Counter[Resource] = Counter()
    ended = 0
    for event in events:
        data = json.loads(event.body)["data"]
        if event.kind == EventKind.RUN_DECIDED:
            begun += data["decision"]["effect"] == "allow"
        elif event.kind == EventKind.RUN_ENDED and data["termination"] != "denied":
            ended += 1
            usage = data["usage"]
            told_us[Resource.WALL] += _microseconds(usage["wall_s"])
            told_us[Resource.CPU] += _microseconds(usage["cpu_user_s"], usage["cpu_system_s"])
        elif event.kind == EventKind.RUN_RECOVERED:
            for charged in data["charged"]:
                told_us[Resource(charged["resource"])] += charged["amount"]
    for account in (each for each in store.accounts() if each.scope == "all"):
        if held := store.held(account):
            found.append(f"{held} of {account} stays held, and no run is open")
        used = store.spent(account, Bucket(HISTORY, 0))
        if account.resource is Resource.CALLS and used != begun:
            found.append(f"{begun} runs were let begin, and {used} calls are charged")
        if account.resource in (Resource.WALL, Resource.CPU):
            told = told_us[account.resource]
            if not told <= used + ended * ROUNDED_US or not used <= told + ended * ROUNDED_US:
                found.append(f"{used} of {account} is charged, and events tell of {told}")
    return found


def _microseconds(*seconds: float | None) -> int:
    return round(sum(each or 0.0 for each in seconds) * 1e6)
