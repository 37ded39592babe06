"""The ledger once more, from the events: what runs there were, and what they cost.

For a log that is built of events (`building.py`), whose ledger nobody has to believe. What flows
through a budget is charged at the run's end, all at once: when each part of it was, no event tells.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runner.audit.canonical import canonical_again, unescape
from runner.errors import RecordError
from runner.metering import microseconds, windows
from runner.metering.slices import used_of
from runner.model.budget import Account, Calendar, Override, Resource, Sliding, Window
from runner.model.event import EventKind
from runner.model.kill import Kill, KillScope
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.stores import kills, ledger
from runner.stores.transaction import charge

NOBODY = "replayed"
"""Who holds a run that has not ended: no supervisor that lives, so recovery closes it."""

_ENDS = frozenset({EventKind.RUN_ENDED.value, EventKind.RUN_RECOVERED.value})


class Replay:
    """Charges a new database's ledger with events, in order."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._budgets: dict[str, list[_Budget]] = {}
        """Of the runs that have not ended."""
        self.api_keys: dict[str, None] = {}
        """Ids of keys of the API that the events tell were made and not revoked."""
        self.left_out = 0
        """Events whose part in the ledger could not be read."""

    def add(self, body: bytes) -> None:
        """An event's bytes, verified. sqlite3.Error: the database can't be written."""
        event = json.loads(body)
        try:
            if event["kind"] == EventKind.RUN_DECIDED:
                self._begin(event)
            elif event["kind"] in _ENDS:
                self._end(event)
            elif event["kind"] == EventKind.BUDGET_RESET:
                self._reset(event["data"])
            elif event["kind"] == EventKind.BUDGET_SET:
                self._set(event["data"])
            elif event["kind"] == EventKind.KILL_ORDERED:
                self._kill(event)
            elif event["kind"] == EventKind.KILL_LIFTED:
                data = event["data"]
                kills.lift(self._connection, KillScope(data["scope"]), unescape(data["name"]))
            elif event["kind"] == EventKind.APIKEY_CREATED:
                self.api_keys[event["data"]["id"]] = None
            elif event["kind"] == EventKind.APIKEY_REVOKED:
                self.api_keys.pop(event["data"]["id"], None)
        except (KeyError, TypeError, ValueError, RecordError, sqlite3.IntegrityError):
            self.left_out += 1

    def _begin(self, event: Mapping[str, Any]) -> None:
        who, data = event["principal"], event["data"]
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            (
                event["run"],
                NOBODY,
                *(who[name] for name in ("agent", "parent", "session", "tenant", "uid")),
                data["profile"],
                data["backend"],
                event["time"],
            ),
        )
        charge(self._connection, _principal(who), calls=1, wall_us=0)
        held = [_Budget.of(each) for each in data.get("budgets", [])]
        if held:
            self._budgets[event["run"]] = held
        for each in held:
            self._charge(each, Resource.CALLS, 1, event["time"])

    def _end(self, event: Mapping[str, Any]) -> None:
        usage = event["data"].get("usage")
        wall_us = microseconds(usage["wall_s"]) if usage else 0
        changed = self._connection.execute(
            "UPDATE runs SET state = 'closed', closed = ?, usage = ? "
            "WHERE run_id = ? AND state = 'open' RETURNING agent, parent, uid",
            (event["time"], canonical_again(usage).decode() if usage else None, event["run"]),
        ).fetchone()
        kills.lift(self._connection, KillScope.RUN, event["run"])
        if changed is not None:
            agent, parent, uid = changed
            who = {"agent": agent, "parent": parent, "uid": uid}
            charge(self._connection, _principal(who), calls=0, wall_us=wall_us)
        for each in self._budgets.pop(event["run"], []):
            for resource, amount in _amounts(event["data"], each):
                self._charge(each, resource, amount, event["time"])

    def _charge(self, budget: _Budget, resource: Resource, amount: int, time: str) -> None:
        if resource in budget.resources and isinstance(budget.window, Sliding | Calendar):
            at_s = datetime.fromisoformat(time).timestamp()
            into = windows.place(budget.window, at_s), windows.history(at_s)
            ledger.charge(self._connection, budget.account(resource), into, amount)

    def _reset(self, data: Mapping[str, Any]) -> None:
        # An earlier version's event tells no layers; it is left out: anybody's may be meant.
        budgets = {unescape(f"{layer}#{data['budget']}") for layer in data["layers"]}
        scopes = {unescape(scope) for scope in data["scopes"]}
        for account in ledger.accounts(self._connection):
            if account.budget in budgets and account.scope in scopes:
                ledger.forget(self._connection, account)

    def _kill(self, event: Mapping[str, Any]) -> None:
        data = event["data"]
        since_s = datetime.fromisoformat(event["time"]).timestamp()
        name, by, reason = (unescape(data[key]) for key in ("name", "by", "reason"))
        kills.set_kill(self._connection, Kill(KillScope(data["scope"]), name, by, reason, since_s))

    def _set(self, data: Mapping[str, Any]) -> None:
        name, scope = unescape(f"{data['layer']}#{data['budget']}"), unescape(data["scope"])
        until = data["until"]
        until_s = 0.0 if until is None else datetime.fromisoformat(until).timestamp()
        for resource in Resource:
            amount = data["amounts"].get(resource.value)
            account = Account(name, scope, resource)
            if amount is not None:
                ledger.set_override(self._connection, account, Override(amount, until_s))
            elif not data["amounts"]:
                ledger.set_override(self._connection, account, None)


@dataclass(frozen=True, slots=True)
class _Budget:
    """One that a run is charged to, as its first event tells."""

    name: str
    scope: str
    window: Window | None
    resources: frozenset[Resource]

    @staticmethod
    def of(told: Mapping[str, Any]) -> _Budget:
        return _Budget(
            unescape(f"{told['layer']}#{told['id']}"),
            unescape(told["scope"]),
            windows.decoded(told["window"]),
            frozenset(map(Resource, told["resources"])),
        )

    def account(self, resource: Resource) -> Account:
        return Account(self.name, self.scope, resource)


def _amounts(data: Mapping[str, Any], budget: _Budget) -> Iterator[tuple[Resource, int]]:
    """What a run's last event says that it used of what flows, or was charged for not knowing."""
    for charged in data.get("charged", []):
        if (unescape(charged["budget"]), unescape(charged["scope"])) == (budget.name, budget.scope):
            yield Resource(charged["resource"]), charged["amount"]
    if data.get("usage"):
        usage = Usage(**data["usage"])
        for resource in (Resource.WALL, Resource.CPU):
            if (used := used_of(resource, usage)) is not None:
                yield resource, used


def _principal(who: Mapping[str, Any]) -> Principal:
    parent = who["parent"]
    return Principal(
        uid=who["uid"],
        agent=unescape(who["agent"]),
        parent=None if parent is None else unescape(parent),
    )
