"""What is written down of each step of a run: model objects to the data of audit events.

Pure. Command lines stand in the log as they were asked for; of a script, of a variable's value
and of a program's output only name, size and digest do, so that more people may read the log than
the runs.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner.audit.canonical import canonical
from runner.audit.named import named
from runner.audit.redaction import Redactor, is_mark
from runner.compile import spec_digest
from runner.metering.windows import encoded
from runner.model.api_key import ApiKey
from runner.model.budget import Account, Charge, Override, Resource
from runner.model.decision import Decision, MatchedRule
from runner.model.event import EventDraft, EventKind
from runner.model.intent import Intent
from runner.model.keeping import KeepBounds, Kept
from runner.model.kill import Kill
from runner.model.limits import LIMIT_KEYS, Unlimited, spelled
from runner.model.loop_guard import Looped
from runner.model.outcome import Change, Output
from runner.model.principal import Principal
from runner.model.request import Argv, ExecRequest, Hold, Program, ShellText
from runner.model.spec import SandboxSpec
from runner.model.swept import Swept

TEXT_BYTES = 16 * 1024
"""Of a command line this much is written out; a digest covers all of it."""
MATCHED_CHARACTERS = 160
"""Of what a rule matched that was only observed; longer ones are told by their beginning."""
CHANGES_LISTED = 200
"""Changed paths written out; a digest covers all of them."""
SWEPT_LISTED = 200
"""Things that a sweep removed, or could not remove, written out."""
COMMANDS_LISTED = 200


def decided(
    run_id: str,
    request: ExecRequest,
    *,
    intent: Intent,
    decision: Decision,
    spec: SandboxSpec | None,
    backend: str,
    links: Mapping[str, str] | None = None,
    program: Mapping[str, object] | None = None,
    charged: Sequence[Charge] = (),
    redactor: Redactor | None = None,
    caller: str | None = None,
) -> EventDraft:
    """The first event of a run: what was asked, what reading told, what was decided.

    `program`: what `program_data` made of it; None: it is made here. `charged`: the budgets that
    it is charged to, if it may start. `caller`: who called a server for it; left out if nobody did.
    """
    if program is None:
        program = program_data(request.program, redactor)
    return EventDraft(
        EventKind.RUN_DECIDED,
        {
            **_asked(request, intent, links, program, redactor),
            "backend": backend,
            "decision": decision_data(decision, redactor),
            "spec_digest": spec_digest(spec) if spec is not None else None,
            "limits": _limits(spec) if spec is not None else None,
            "budgets": [_charge(each) for each in charged] if spec is not None else [],
            **({} if caller is None else {"caller": caller}),
        },
        request.principal,
        run_id,
    )


def _charge(charge: Charge) -> dict[str, object]:
    """What the ledger can be made anew of: whose counters, and in which window they count."""
    return {
        "id": charge.budget.id,
        "layer": charge.layer,
        "scope": charge.scope,
        "window": encoded(charge.budget.window),
        "resources": [resource.value for resource, _ in charge.budget.amounts],
    }


def checked(
    request: ExecRequest,
    intent: Intent,
    decision: Decision,
    *,
    links: Mapping[str, str] | None = None,
    redactor: Redactor | None = None,
) -> EventDraft:
    """A decision that was asked for without a run."""
    program = program_data(request.program, redactor)
    data = {
        **_asked(request, intent, links, program, redactor),
        "decision": decision_data(decision, redactor),
    }
    return EventDraft(EventKind.DECISION_CHECKED, data, request.principal)


def started(
    run_id: str,
    request: ExecRequest,
    spec: SandboxSpec,
    protections: Sequence[str],
    degraded: Sequence[str],
) -> EventDraft:
    """The sandbox stands; the program starts once this is durable."""
    return EventDraft(
        EventKind.RUN_STARTED,
        {
            "spec_digest": spec_digest(spec),
            "workspace": spec.workspace.mode.value,
            "protections": list(protections),
            "degraded": list(degraded),
        },
        request.principal,
        run_id,
    )


def ended(run_id: str, request: ExecRequest, outcome: Mapping[str, Any]) -> EventDraft:
    """The last event of a run; `outcome` as `outcome_data` makes it."""
    return EventDraft(EventKind.RUN_ENDED, outcome, request.principal, run_id)


def charged(found: Iterable[tuple[Account, int]]) -> list[dict[str, Any]]:
    """What a run was charged of what flows, where its usage does not tell."""
    return [
        {**asdict(account), "resource": account.resource.value, "amount": amount}
        for account, amount in found
    ]


def outcome_data(
    *,
    termination: str,
    limit: str | None = None,
    exit_code: int | None = None,
    signal: int | None = None,
    failure: tuple[str, str] | None = None,
    usage: Mapping[str, Any] | None = None,
    stdout: Output | None = None,
    stderr: Output | None = None,
    changes: Sequence[Change] = (),
    changes_truncated: bool = False,
    kept: tuple[str, int] | None = None,
    left: Sequence[str] = (),
    budget: Mapping[str, object] | None = None,
    killed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An outcome as the log has it. `kept`: the digest of the list of kept contents, and bytes."""
    listed = [change_data(change) for change in changes]
    return {
        "termination": termination,
        "limit": limit,
        "exit_code": exit_code,
        "signal": signal,
        "error": None if failure is None else {"code": failure[0], "message": failure[1]},
        "usage": dict(usage) if usage is not None else None,
        "stdout": _output(stdout),
        "stderr": _output(stderr),
        "changes": {
            "count": len(listed),
            "truncated": changes_truncated,
            "sha256": hashlib.sha256(canonical(listed)).hexdigest(),
            "first": listed[:CHANGES_LISTED],
            "kept": None if kept is None else {"manifest_sha256": kept[0], "bytes": kept[1]},
        },
        "left": list(left),
        "budget": budget,
        "killed": dict(killed) if killed is not None else None,
    }


def change_data(change: Change) -> dict[str, Any]:
    """A change as the log has it."""
    return {**asdict(change), "kind": change.kind.value}


def discarded(runs: Sequence[Kept], bounds: KeepBounds) -> EventDraft:
    """Whose output goes, and by which bounds."""
    data = {
        "runs": [each.run_id for each in runs],
        "size_bytes": sum(each.size_bytes for each in runs),
        "days": "unlimited" if isinstance(bounds.days, Unlimited) else bounds.days,
        "total_bytes": bounds.total_bytes,
    }
    return EventDraft(EventKind.OUTPUT_DISCARDED, data)


def swept(backend: str | None, found: Swept) -> EventDraft:
    """What a clean-up did to this machine; `backend`: None for the state folder's."""
    data = {
        "backend": backend,
        "removed": {"count": len(found.removed), "first": list(found.removed[:SWEPT_LISTED])},
        "left": {"count": len(found.left), "first": list(found.left[:SWEPT_LISTED])},
    }
    return EventDraft(EventKind.MACHINE_SWEPT, data)


def budget_warned(
    run_id: str,
    who: Principal,
    charge: Charge,
    *,
    resource: Resource,
    amount: int,
    percent: int,
    used: int,
) -> EventDraft:
    """So much of a budget is used, with the run that used it."""
    data = {
        "id": charge.budget.id,
        "layer": charge.layer,
        "scope": charge.scope,
        "resource": resource.value,
        "amount": amount,
        "percent": percent,
        "used": used,
        "soft": charge.budget.soft,
    }
    return EventDraft(EventKind.BUDGET_WARNED, data, who, run_id)


def budget_set(
    charge: Charge,
    overrides: Mapping[Resource, Override],
    until: str | None,
    reason: str,
    who: Principal,
    *,
    by: str,
) -> EventDraft:
    """Which amounts of a budget hold until when; none: what is stated holds again."""
    data = {
        "budget": charge.budget.id,
        "layer": charge.layer,
        "scope": charge.scope,
        "amounts": {resource.value: each.amount for resource, each in overrides.items()},
        "until": until,
        "by": by,
        "reason": reason,
    }
    return EventDraft(EventKind.BUDGET_SET, data, who)


def budget_reset(
    budget: str,
    layers: Sequence[str],
    scopes: Sequence[str],
    reason: str,
    who: Principal,
    *,
    by: str,
) -> EventDraft:
    """Whose windows of a budget of which layers began anew, by whom, and why."""
    data = {
        "budget": budget,
        "layers": list(layers),
        "scopes": list(scopes),
        "by": by,
        "reason": reason,
    }
    return EventDraft(EventKind.BUDGET_RESET, data, who)


def guard_paused(
    run_id: str | None,
    who: Principal,
    key: str,
    *,
    layer: str,
    looped: Looped,
    until: str | None,
) -> EventDraft:
    """A pause begins with this run; the command itself stands in the run's own events."""
    data = {
        "command": key,
        "trigger": looped.trigger.value,
        "count": looped.count,
        "pauses": looped.pauses,
        "layer": layer,
        "until": until,
    }
    return EventDraft(EventKind.GUARD_PAUSED, data, who, run_id)


def guard_reset(keys: Sequence[str], reason: str, who: Principal) -> EventDraft:
    """Which commands begin anew, by whom, and why."""
    data = {
        "commands": {"count": len(keys), "first": list(keys[:COMMANDS_LISTED])},
        "reason": reason,
    }
    return EventDraft(EventKind.GUARD_RESET, data, who)


def program_text(program: Program, redactor: Redactor | None = None) -> str:
    """A program as text for people, without its secrets; a script's content too."""
    if isinstance(program, Argv):
        words = program.words if redactor is None else redactor.words(program.words)
        return shlex.join(words)
    if isinstance(program, ShellText):
        text = program.text if redactor is None else redactor.text(program.text)
        return f"{program.language}: {text}"
    if isinstance(program, Hold):
        return "a session"
    content = program.content if redactor is None else redactor.data(program.content)
    args = program.args if redactor is None else redactor.words(program.args)
    called = shlex.join([*program.interpreter, program.name, *args])
    return f"{called}\n{content.decode('utf-8', 'surrogateescape')}"


def kill_data(kill: Kill) -> dict[str, str]:
    """A kill as events and outcomes have it."""
    return {"scope": kill.scope.value, "name": kill.name, "by": kill.by, "reason": kill.reason}


def apikey_created(key: ApiKey, expires: str | None, who: Principal) -> EventDraft:
    """Which key of the API was made; `expires`: RFC 3339, None: it does not end by itself."""
    identity = key.identity
    data = {
        "id": key.id,
        "name": key.name,
        "expires": expires,
        "verbs": sorted(identity.verbs),
        "agent": identity.agent,
        "agents": list(identity.agents),
        "tenants": list(identity.tenants),
        "profiles": list(identity.profiles),
    }
    return EventDraft(EventKind.APIKEY_CREATED, data, who)


def apikey_revoked(key_id: str, name: str | None, reason: str, who: Principal | None) -> EventDraft:
    """Which key of the API is not taken any more, and why."""
    data = {"id": key_id, "name": name, "reason": reason}
    return EventDraft(EventKind.APIKEY_REVOKED, data, who)


def decision_data(decision: Decision, redactor: Redactor | None = None) -> dict[str, Any]:
    """A decision as the log has it; secrets go before anything is cut."""

    def observed(rule: MatchedRule) -> dict[str, Any]:
        """With what it matched, for whoever finds out whether it may be enforced."""
        matched = rule.matched if redactor is None else redactor.text(rule.matched)
        return {**_rule(rule), "matched": matched[:MATCHED_CHARACTERS]}

    return {
        "effect": decision.effect.value,
        "enforced": decision.enforced,
        "reason": decision.reason,
        "policy_digest": decision.policy_digest,
        "obligations": list(decision.obligations),
        "rewrite": list(decision.rewrite) if decision.rewrite is not None else None,
        "ask": asdict(decision.ask) if decision.ask is not None else None,
        **({"approved": asdict(decision.approved)} if decision.approved is not None else {}),
        "rules": [_rule(rule) if decision.enforced else observed(rule) for rule in decision.rules],
        **({"observed": [*map(observed, decision.observed)]} if decision.observed else {}),
    }


def _rule(rule: MatchedRule) -> dict[str, Any]:
    return {"id": rule.id, "layer": rule.layer, "effect": rule.effect.value}


def _asked(
    request: ExecRequest,
    intent: Intent,
    links: Mapping[str, str] | None,
    program: Mapping[str, object],
    redactor: Redactor | None,
) -> dict[str, Any]:
    found = {"links": [list(each) for each in links.items()]} if links else {}
    return {
        "profile": request.profile,
        "program": program,
        "directory": request.directory,
        "labels": dict(request.labels),
        "environment": [name for name, _ in request.environment],
        "terminal": request.terminal,
        **({} if request.within is None else {"within": request.within}),
        "intent": {
            "language": intent.language,
            "commands": len(intent.commands),
            "dynamic_commands": len(intent.dynamic_commands),
            "unreadable": intent.unreadable,
            **named(intent, _told(request.program, program, redactor)),
        },
        **found,
    }


def program_data(program: Program, redactor: Redactor | None = None) -> dict[str, Any]:
    """A program as the log has it; secrets go before it is cut, and from its digest."""
    if isinstance(program, Argv):
        words = list(program.words)
        digest = hashlib.sha256(canonical(words)).hexdigest()
        if redactor is not None and (told := redactor.words(words)) != words:
            words, digest = told, redactor.digest_of(digest)
        shown, used = [], 0
        for word in words:
            used += len(word)
            if used > TEXT_BYTES:
                break
            shown.append(word)
        return {"kind": "argv", "argv": shown, "words": len(words), "sha256": digest}
    if isinstance(program, ShellText):
        raw = program.text.encode("utf-8", "surrogateescape")
        text, digest = program.text, hashlib.sha256(raw).hexdigest()
        if redactor is not None and (without := redactor.text(text)) != text:
            text, digest = without, redactor.digest_of(digest)
        return {
            "kind": "shell",
            "language": program.language,
            "text": text[:TEXT_BYTES],
            "bytes": len(raw),
            "sha256": digest,
        }
    if isinstance(program, Hold):
        bounds = {"lifetime_s": program.lifetime_s, "idle_s": program.idle_s}
        digest = hashlib.sha256(canonical(bounds)).hexdigest()
        return {"kind": "session", **bounds, "sha256": digest}
    digest = hashlib.sha256(program.content).hexdigest()
    if redactor is not None and redactor.data(program.content) != program.content:
        digest = redactor.digest_of(digest)
    return {
        "kind": "script",
        "language": program.language,
        "name": program.name,
        "path": program.path,
        "interpreter": list(program.interpreter),
        "args": list(program.args),
        "bytes": len(program.content),
        "sha256": digest,
    }


def _told(program: Program, data: Mapping[str, object], redactor: Redactor | None) -> str | None:
    """The whole of a program without its secrets, if it held any; `data`: what is told of it."""
    if redactor is None or not is_mark(data["sha256"]):
        return None
    if isinstance(program, Argv):
        return "\n".join(redactor.words(program.words))
    if isinstance(program, ShellText):
        return redactor.text(program.text)
    if isinstance(program, Hold):
        return None
    return redactor.data(program.content).decode("utf-8", "surrogateescape")


def program_to_keep(program: Program, redactor: Redactor | None = None) -> bytes | None:
    """What the log does not hold of a program, to the byte that its digest is over.

    None: the log holds it whole. A script's content, a long command line's text, the canonical JSON
    of many words; without the secrets that were in it, and then nothing can be decided by it again.
    """
    if isinstance(program, Argv):
        whole = sum(map(len, program.words)) <= TEXT_BYTES
        words = program.words if redactor is None or whole else redactor.words(program.words)
        return None if whole else canonical(list(words))
    if isinstance(program, ShellText):
        whole = len(program.text) <= TEXT_BYTES
        text = program.text if redactor is None or whole else redactor.text(program.text)
        return None if whole else text.encode("utf-8", "surrogateescape")
    if isinstance(program, Hold):
        return None
    return program.content if redactor is None else redactor.data(program.content)


def _limits(spec: SandboxSpec) -> dict[str, str]:
    return {key: spelled(field, getattr(spec.limits, field)) for key, field in LIMIT_KEYS.items()}


def _output(output: Output | None) -> dict[str, Any] | None:
    if output is None:
        return None
    return {"bytes": output.bytes_total, "sha256": output.sha256, "truncated": output.truncated}
