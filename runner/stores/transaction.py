"""One transaction: events go to the log's end, runs and what they cost to the ledger.

Everything here happens inside a database transaction that `writer.py` begins and commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import NamedTuple

from runner.audit.canonical import canonical, escape, unescape
from runner.audit.event import NO_PREVIOUS, data_of, rfc3339, seal
from runner.audit.merkle import HASH_BYTES, Tree
from runner.audit.redaction import Redactor
from runner.errors import RecordError
from runner.metering import microseconds
from runner.model.api_key import ApiKey
from runner.model.approval import Approval
from runner.model.budget import Account, Bucket, Override, Window
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.kill import Kill, KillScope
from runner.model.loop_guard import Guarded
from runner.model.principal import Principal
from runner.model.rule import CountOf
from runner.model.usage import Usage
from runner.ports import Clock
from runner.stores import api_keys, approvals, counting, kills, ledger, loops
from runner.stores.books import SqliteBooks
from runner.stores.kept import check_run_id
from runner.stores.stored_checkpoint import StoredCheckpoint, newest

_BEFORE_THE_PROGRAM = frozenset({EventKind.RUN_DECIDED, EventKind.RUN_STARTED})
_ENDS = frozenset({EventKind.RUN_ENDED, EventKind.RUN_RECOVERED})

DAMAGED = (
    "the log is damaged; `runner audit verify` tells where, `runner audit repair` recovers the rest"
)


class End(NamedTuple):
    """Where a log ends."""

    tree: Tree
    previous: bytes
    """The hash of the last event."""
    checkpoint: StoredCheckpoint | None = None
    """The newest one; None: nobody looked."""

    @staticmethod
    def read(connection: sqlite3.Connection) -> End:
        """As the database has it. RecordError: it is damaged."""
        row = connection.execute("SELECT size, peaks FROM tree WHERE id = 0").fetchone()
        try:
            size = int(row[0])
            tree = Tree.from_bytes(size, row[1])
        except (TypeError, ValueError):
            raise RecordError(DAMAGED) from None
        if size == 0:
            return End(tree, NO_PREVIOUS)
        last = connection.execute(
            # The last event may be an archived one: after a repair that found none behind it.
            "SELECT leaf_hash FROM events WHERE seq = ?1 - 1 "
            "UNION ALL SELECT last_hash FROM pruned WHERE size = ?1",
            (size,),
        ).fetchone()
        if last is None or not isinstance(last[0], bytes) or len(last[0]) != HASH_BYTES:
            raise RecordError(DAMAGED)
        return End(tree, last[0])


class LogEnd:
    """The log's end inside a database transaction: where the next event goes."""

    def __init__(
        self, connection: sqlite3.Connection, redactor: Redactor | None, known: End | None = None
    ) -> None:
        """`redactor`: what every event passes; None: it says nothing that came from outside.

        `known`: the end, where nobody else can have written since it was the end; else it is read.
        """
        self.connection = connection
        self.redactor = redactor
        self.end = End.read(connection) if known is None else known
        self.stored_size = self.tree.size
        self.checkpoint_wanted = False
        """Whether one is to be made with this commit, however few events are past the last one."""
        self.starting: set[str] = set()
        """Runs whose program starts once this is durable."""

    @property
    def end(self) -> End:
        """Where it is now; set it to go back to where it was."""
        return End(self.tree, self.previous, self.checkpoint)

    @end.setter
    def end(self, end: End) -> None:
        self.tree, self.previous, self.checkpoint = end

    def newest_checkpoint(self) -> StoredCheckpoint | None:
        """The one over the most events; None: there is none."""
        if self.checkpoint is None:
            self.checkpoint = newest(self.connection)
        return self.checkpoint

    def append(self, draft: EventDraft, now_s: float) -> AuditEvent:
        """Write the next event. RecordError: the draft can't be recorded.

        One that ends a run is told how many the run has, so that a proof of it can't leave one out.
        """
        if draft.run_id is not None and draft.kind in _ENDS:
            count = self._events_of(draft.run_id) + 1
            draft = replace(draft, data={**draft.data, "events": count})
        written = data_of(draft)
        if self.redactor is not None:
            told = self.redactor.draft(draft, written)
            if told is not draft:
                draft, written = told, None
        event = seal(draft, self.tree.size, now_s, self.previous, written)
        agent = None if draft.principal is None else escape(draft.principal.agent)
        self.connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.seq,
                event.time,
                event.kind,
                event.run_id,
                agent,
                event.leaf_hash,
                event.previous,
                event.body,
            ),
        )
        self.tree = self.tree.appended(event.leaf_hash)
        self.previous = event.leaf_hash
        if draft.run_id is not None:
            if draft.kind in _BEFORE_THE_PROGRAM:
                self.starting.add(draft.run_id)
            else:
                self.starting.discard(draft.run_id)
        return event

    def _events_of(self, run_id: str) -> int:
        """All are here: those of a run that has not ended are never archived."""
        (count,) = self.connection.execute(
            "SELECT count(*) FROM events WHERE run_id = ?", (escape(run_id),)
        ).fetchone()
        return int(count)

    def told(self, principal: Principal) -> Principal:
        """Who it is, as events and the ledger name it."""
        return principal if self.redactor is None else self.redactor.principal(principal)

    def told_text(self, text: str) -> str:
        """A name or a reason, as events and the ledger have it."""
        return text if self.redactor is None else self.redactor.text(text)

    def fingerprint(self, data: bytes) -> str:
        """A digest with the redactor's key. RecordError: it can't be read or made."""
        if self.redactor is None:
            raise RecordError("a log without a redactor has no key to digest with")
        return self.redactor.fingerprint(data)

    def store_tree(self) -> None:
        """Write the tree that belongs to the events; the last step of a transaction."""
        changed = self.connection.execute(
            "UPDATE tree SET size = ?, peaks = ? WHERE id = 0 AND size = ?",
            (self.tree.size, self.tree.to_bytes(), self.stored_size),
        )
        if changed.rowcount != 1:
            raise RecordError(DAMAGED)


def write_first_event(connection: sqlite3.Connection, draft: EventDraft, now_s: float) -> None:
    """Append to a new log what runner alone has to say, in the transaction that made its tables."""
    log = LogEnd(connection, None)
    log.append(draft, now_s)
    log.store_tree()


class SqliteTransaction(SqliteBooks):
    """`ports.Transaction`; usable inside its `with` block only."""

    def __init__(
        self,
        log: LogEnd,
        clock: Clock,
        supervisor_id: Callable[[], str],
        check_key: Callable[[sqlite3.Connection], None],
    ) -> None:
        """`check_key`: raises RecordError when a run must not start, for want of a signature."""
        self._log: LogEnd | None = log
        self._clock = clock
        self._supervisor_id = supervisor_id
        self._check_key = check_key

    def append(self, draft: EventDraft) -> AuditEvent:
        """Give the event its place in the log. RecordError: it can't be recorded."""
        log = self._open()
        if draft.run_id is not None:
            check_run_id(draft.run_id)
        return log.append(draft, self._clock.now())

    def open_run(self, run_id: str, principal: Principal, profile: str, backend: str) -> None:
        """Note the run as this supervisor's; charge the call to agent, parent and uid."""
        log = self._open()
        connection = log.connection
        check_run_id(run_id)
        self._check_key(connection)
        if connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
            raise RecordError(f"run {run_id} is in the log already: a run id is used once")
        p = principal = log.told(principal)
        profile, backend = map(log.told_text, (profile, backend))
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            (
                run_id,
                self._supervisor_id(),
                escape(p.agent),
                *(None if text is None else escape(text) for text in (p.parent, p.session)),
                None if p.tenant is None else escape(p.tenant),
                p.uid,
                escape(profile),
                escape(backend),
                rfc3339(self._clock.now()),
            ),
        )
        charge(connection, principal, calls=1, wall_us=0)

    def runs_since(self, principal: Principal, of: CountOf, since_s: float) -> int:
        """Runs that began at `since_s` or later; those that wait for this commit are among them."""
        log = self._open()
        return counting.runs_since(log.connection, log.told(principal), of, since_s)

    def began_s(
        self, principal: Principal, of: CountOf, since_s: float, latest: int
    ) -> float | None:
        """When the `latest`-th latest of them began; None: there are fewer."""
        log = self._open()
        try:
            return counting.began_s(log.connection, log.told(principal), of, since_s, latest)
        except ValueError:
            raise RecordError(DAMAGED) from None

    def charge(
        self,
        account: Account,
        buckets: Sequence[Bucket],
        amount: int,
        run_id: str | None = None,
    ) -> None:
        """Add to a budget's counter, for an open run. RecordError: less than nothing."""
        told = self.told_account(account)
        ledger.charge(self._open().connection, told, buckets, amount)
        if run_id is not None:
            ledger.note(self._open().connection, run_id, told, amount)

    def hold(self, run_id: str, account: Account, window: Window | None, amount: int) -> None:
        """Set what a run holds of a budget. RecordError: the run is not open."""
        ledger.hold(self._open().connection, run_id, self.told_account(account), window, amount)

    def warned(self, account: Account, percent: int) -> None:
        """Note that it was warned now."""
        ledger.warned(
            self._open().connection, self.told_account(account), percent, self._clock.now()
        )

    def set_override(self, account: Account, override: Override | None) -> None:
        """Let it hold; None: what is stated."""
        ledger.set_override(self._open().connection, self.told_account(account), override)

    def forget(self, account: Account) -> None:
        """Begin its windows anew."""
        ledger.forget(self._open().connection, self.told_account(account))

    def forget_outdated(self) -> int:
        """Drop what nothing counts any more; how many."""
        connection, now_s = self._open().connection, self._clock.now()
        loops.forget_outdated(connection, now_s)
        return ledger.forget_outdated(connection, now_s)

    def fingerprint(self, data: bytes) -> str:
        """A keyed digest."""
        return self._open().fingerprint(data)

    def remember_loop(self, guarded: Guarded, forgotten_s: float) -> None:
        """Set how a command stands."""
        log = self._open()
        guarded = replace(guarded, whose=log.told_text(guarded.whose))
        now_s = self._clock.now()
        loops.remember(log.connection, guarded, forgotten_s=forgotten_s, now_s=now_s)

    def forget_loop(self, key: str) -> None:
        """Begin a command anew."""
        loops.forget(self._open().connection, key)

    def keep_approval(self, approval: Approval) -> None:
        """Write it, in the place of what stood there under its id."""
        log = self._open()
        answer = approval.answer
        told = replace(
            approval,
            principal=log.told(approval.principal),
            profile=log.told_text(approval.profile),
            directory=log.told_text(approval.directory),
            program=log.told_text(approval.program),
            reason=log.told_text(approval.reason),
            answer=None if answer is None else replace(answer, reason=log.told_text(answer.reason)),
        )
        approvals.keep(log.connection, told)

    def forget_approvals(self, before_s: float) -> None:
        """Drop those that expired before that."""
        approvals.forget(self._open().connection, before_s)

    def set_kill(self, kill: Kill) -> None:
        """Let it hold."""
        log = self._open()
        told = replace(
            kill,
            name=log.told_text(kill.name),
            by=log.told_text(kill.by),
            reason=log.told_text(kill.reason),
        )
        kills.set_kill(log.connection, told)

    def lift_kill(self, scope: KillScope, name: str) -> bool:
        """Let it hold no more; False: there is none."""
        log = self._open()
        return kills.lift(log.connection, scope, log.told_text(name))

    def add_api_key(self, key: ApiKey, event: AuditEvent) -> None:
        """Keep a new one."""
        api_keys.add(self._open().connection, key, event.seq)

    def revoke_api_key(self, key_id: str, event: AuditEvent) -> None:
        """It is not taken from now on."""
        api_keys.revoke(self._open().connection, key_id, self._clock.now(), event.seq)

    def close_run(self, run_id: str, usage: Usage) -> None:
        """The run is over; charge its wall time, and all that it still holds of budgets.

        RecordError: no such run is open.
        """
        connection = self._open().connection
        found = connection.execute(
            "SELECT agent, parent, session, tenant, uid FROM runs "
            "WHERE run_id = ? AND state = 'open'",
            (run_id,),
        ).fetchone()
        if found is None:
            raise RecordError(f"run {run_id!r} can't be closed: no run by that id is open")
        try:
            wall_us = microseconds(usage.wall_s)
        except ValueError as error:
            raise RecordError(f"run {run_id} can't be closed: {error}") from None
        charge(connection, _principal(*found), calls=0, wall_us=wall_us)
        ledger.settle_whole(connection, run_id, self._clock.now())
        kills.lift(connection, KillScope.RUN, run_id)
        connection.execute(
            "UPDATE runs SET state = 'closed', closed = ?, usage = ? WHERE run_id = ?",
            (rfc3339(self._clock.now()), canonical(asdict(usage)).decode(), run_id),
        )

    def recover_runs(self, supervisor_id: str) -> list[str]:
        """Close every run that a dead supervisor left open, each with an event of its own."""
        log = self._open()
        rows = log.connection.execute(
            "SELECT run_id, profile, backend, opened, agent, parent, session, tenant, uid "
            "FROM runs WHERE state = 'open' AND supervisor = ? ORDER BY rowid",
            (supervisor_id,),
        ).fetchall()
        for run_id, profile, backend, opened, *who in rows:
            # Nobody knows what it used since it was last looked at: no more than it held. With what
            # it was charged before, so that the event tells all that the ledger knows.
            charged = ledger.settle_whole(log.connection, run_id, self._clock.now())
            data = {
                "termination": "unknown",
                "reason": "its supervisor died",
                "supervisor": supervisor_id,
                "profile": unescape(profile),
                "backend": unescape(backend),
                "opened": opened,
                "charged": [
                    {**asdict(account), "resource": account.resource.value, "amount": amount}
                    for account, amount in charged
                ],
            }
            self.append(EventDraft(EventKind.RUN_RECOVERED, data, _principal(*who), run_id))
            self.close_run(run_id, Usage())
        return [row[0] for row in rows]

    @property
    def connection(self) -> sqlite3.Connection:
        """The database inside this transaction. RecordError: it has ended."""
        return self._open().connection

    @property
    def log(self) -> LogEnd:
        """The log's end inside this transaction. RecordError: it has ended."""
        return self._open()

    def end(self) -> None:
        """Refuse all further use."""
        self._log = None

    def told(self, principal: Principal) -> Principal:
        """Who it is, as events and the ledger name it."""
        return self._open().told(principal)

    def told_text(self, text: str) -> str:
        """A name or a reason, as events and the ledger have it."""
        return self._open().told_text(text)

    def _connected(self) -> AbstractContextManager[sqlite3.Connection]:
        return nullcontext(self._open().connection)

    def _now_s(self) -> float:
        return self._clock.now()

    def _open(self) -> LogEnd:
        if self._log is None:
            raise RecordError("a transaction was used after its end: open another one")
        return self._log


def _principal(
    agent: str, parent: str | None, session: str | None, tenant: str | None, uid: int
) -> Principal:
    """Who a row of `runs` names."""
    return Principal(
        uid=uid,
        agent=unescape(agent),
        parent=None if parent is None else unescape(parent),
        session=None if session is None else unescape(session),
        tenant=None if tenant is None else unescape(tenant),
    )


def charge(connection: sqlite3.Connection, who: Principal, calls: int, wall_us: int) -> None:
    """Charge the agent, its parent and the uid, each once."""
    agents = {who.agent} if who.parent is None else {who.agent, who.parent}
    scopes = [("agent", escape(agent)) for agent in sorted(agents)] + [("uid", str(who.uid))]
    connection.executemany(
        "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT (scope, key) DO UPDATE SET "
        "calls = calls + excluded.calls, wall_us = wall_us + excluded.wall_us",
        [(scope, key, calls, wall_us) for scope, key in scopes],
    )
