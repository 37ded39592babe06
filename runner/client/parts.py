"""Budgets, questions, kills and the log of a server, as `Runner` has them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from runner.client.channel import Answer, Channel
from runner.client.outcomes import approval_of, moment_of, spent_of
from runner.client.parsing import Fields, refuse
from runner.errors import RunnerError
from runner.model.approval import Approval
from runner.model.budget import Spent
from runner.model.event import AuditEvent
from runner.model.kill import Kill, KillScope

_ROW = re.compile(rb'\{"leaf_hash":"([0-9a-f]{64})","event":')


class RemoteBudgets:
    """How a server's budgets stand, of those in the caller's reach."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def standing(self, profile: str | None = None) -> tuple[Spent, ...]:
        """How each counter stands that anything was charged to."""
        return _spent(self._channel.call("GET", "/v1/budgets", query={"profile": profile}))

    def set(
        self,
        budget_id: str,
        amounts: Mapping[str, str],
        reason: str,
        *,
        lasting: str,
        scope: str | None = None,
        profile: str | None = None,
    ) -> tuple[Spent, ...]:
        """Let other amounts hold for a time, see `Runner.budgets`; how its counters stand then."""
        more = {"amounts": dict(amounts), "lasting": lasting}
        return self._changed("set", budget_id, reason, scope, profile, more)

    def unset(
        self, budget_id: str, reason: str, *, scope: str | None = None, profile: str | None = None
    ) -> tuple[Spent, ...]:
        """Let what is stated hold again."""
        return self._changed("set", budget_id, reason, scope, profile, {})

    def reset(
        self, budget_id: str, reason: str, *, scope: str | None = None, profile: str | None = None
    ) -> tuple[Spent, ...]:
        """Begin its windows anew; what is counted of it then."""
        return self._changed("reset", budget_id, reason, scope, profile, {})

    def _changed(  # noqa: PLR0917
        self,
        what: str,
        budget_id: str,
        reason: str,
        scope: str | None,
        profile: str | None,
        more: Mapping[str, object],
    ) -> tuple[Spent, ...]:
        body: dict[str, object] = {"budget": budget_id, "reason": reason, **more}
        body |= {k: v for k, v in (("scope", scope), ("profile", profile)) if v is not None}
        return _spent(self._channel.call("POST", f"/v1/budgets/{what}", body))


def _spent(answer: Answer) -> tuple[Spent, ...]:
    f = Fields(answer.document(), "the budgets")
    found = f.each("budgets", spent_of)
    f.done()
    return found


class RemoteApprovals:
    """What rules ask on a server, of agents in the caller's reach; `Approval.digest` is empty."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def all(self) -> Sequence[Approval]:
        """Those of the last thirty days, the oldest first."""
        return self._list({"all": "true"})

    def waiting(self) -> Sequence[Approval]:
        """Those that can be answered now."""
        return self._list({})

    def get(self, identity: str) -> Approval:
        """By its whole id. NotFoundError."""
        answer = self._channel.call("GET", f"/v1/approvals/{quote(identity, safe='')}")
        return approval_of(answer.document(), "the question")

    def answer(self, identity: str, reason: str, *, yes: bool) -> Approval:
        """Say yes or no, in the name of who calls; the question as it stands then."""
        body = {"answer": "approve" if yes else "deny", "reason": reason}
        path = f"/v1/approvals/{quote(identity, safe='')}"
        return approval_of(self._channel.call("POST", path, body).document(), "the question")

    def _list(self, query: dict[str, object]) -> Sequence[Approval]:
        answer = self._channel.call("GET", "/v1/approvals", query=query)
        f = Fields(answer.document(), "the questions")
        found = f.each("approvals", approval_of)
        f.done()
        return found


class RemoteKills:
    """A server's kill switch."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def all(self) -> Sequence[Kill]:
        """Those that hold, the oldest first."""
        return _kills(self._channel.call("GET", "/v1/kills"))

    def kill(self, scope: KillScope, name: str, reason: str) -> tuple[str, ...]:
        """End runs, keep more from beginning, and wait for the end; ids of those that were open.

        RunnerError: the end of some is not recorded, or they could not be ended.
        """
        body = {"scope": scope.value, "name": name, "reason": reason}
        f = Fields(self._channel.call("POST", "/v1/kills", body).document(), "the kill")
        f.raw("scope"), f.raw("name")
        runs, _, unrecorded = f.texts("runs"), f.texts("forced"), f.texts("unrecorded")
        alive = f.texts("alive")
        f.done()
        if alive or unrecorded:
            raise RunnerError(
                "not all runs that were to be killed have ended: "
                + "; ".join((*alive, *unrecorded))
            )
        return runs

    def lift(self, scope: KillScope, name: str, reason: str) -> None:
        """Let runs begin again."""
        body = {"scope": scope.value, "name": name, "reason": reason}
        self._channel.call("POST", "/v1/kills/lift", body)


class RemoteAudit:
    """A server's log, as far as it is in the caller's reach."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def events(
        self,
        *,
        run: str | None = None,
        since: str | None = None,
        until: str | None = None,
        newest_first: bool = False,
        **texts: str | Sequence[str],
    ) -> Iterator[AuditEvent]:
        """Events that match all that is given; see `Runner.audit.events`.

        Each has the leaf hash of its bytes, or AnswerError: the answer is not what the log holds.
        """
        query: dict[str, object] = {"run": run, "since": since, "until": until}
        query |= {"newest_first": "true" if newest_first else "false", "limit": 500}
        query |= {name: [t] if isinstance(t, str) else list(t) for name, t in texts.items()}
        while True:
            answer = self._channel.call("GET", "/v1/audit/events", query=query)
            f = Fields(answer.document(), "the events")
            events = _events(answer.body, len(f.each("events", lambda v, _: v)))
            after = f.maybe("next", f.text)
            f.done()
            yield from events
            if after is None:
                return
            query["cursor"] = after

    def checkpoint(self) -> tuple[str, str]:
        """The newest one, a C2SP signed note over all events, and the vkey that signed it."""
        answer = self._channel.call("GET", "/v1/audit/checkpoint")
        f = Fields(answer.document(), "the checkpoint")
        found = f.text("checkpoint"), f.text("key")
        f.done()
        return found

    def proof(self, run_id: str) -> bytes:
        """The proof that a run that has ended is in the log, for `runner audit verify-proof`."""
        path = f"/v1/audit/proofs/{quote(run_id, safe='')}"
        return self._channel.call("GET", path).body


def _events(body: bytes, count: int) -> list[AuditEvent]:
    """With the very bytes that were hashed."""
    text = body.decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    found: list[AuditEvent] = []
    at = text.find("[") + 1
    while len(found) < count:
        row = re.compile(_ROW.pattern.decode()).match(text, at)
        if row is None:
            refuse("the events", f"are not as they are written, at {len(found)}")
        value, end = decoder.raw_decode(text, row.end())
        found.append(_event(value, text[row.end() : end].encode(), bytes.fromhex(row[1])))
        at = end + len("},")
    return found


def _event(value: object, body: bytes, leaf: bytes) -> AuditEvent:
    if hashlib.sha256(b"\0" + body).digest() != leaf:
        refuse("an event", "does not have the hash that is told with it")
    f = Fields(value, "an event")
    return AuditEvent(
        seq=f.integer("seq"),
        time=f.text("time"),
        kind=f.text("kind"),
        run_id=f.maybe("run", f.text),
        body=body,
        leaf_hash=leaf,
        previous=_hash(f.text("prev")),
    )


def _hash(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        refuse("an event", "names no hash as the one before it")


def _kills(answer: Answer) -> tuple[Kill, ...]:
    f = Fields(answer.document(), "the kills")
    found = f.each("kills", _kill)
    f.done()
    return found


def _kill(value: object, where: str) -> Kill:
    f = Fields(value, where)
    found = Kill(
        scope=f.member("scope", KillScope),
        name=f.text("name"),
        by=f.text("by"),
        reason=f.text("reason"),
        since_s=f.inner("since", moment_of),
    )
    f.done()
    return found
