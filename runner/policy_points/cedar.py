"""Decides by policies in Cedar (https://cedarpolicy.com), by the extra `[cedar]`.

Each simple command is one authorization request; runner.cedarschema says of what. Cedar evaluates
in a time that is bounded by the size of policies and request, so it is asked in this process. All
data goes in as JSON that fits the schema, never as text of a policy.

What runner adds to Cedar's own semantics:

- a `forbid` whose evaluation fails is a denial; Cedar by itself would leave it out. A `permit` that
  fails permits nothing, as in Cedar.
- `@effect("ask")` on a `forbid`: it asks instead, where the rest of the policies permits.
- `@message("…")`: what to do instead, told with a refusal. `@id("…")` names a policy in decisions.
- a command whose name only running would tell is permitted only by a policy whose scope says
  `resource is DynamicCommand`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any, NoReturn

import rfc8785

from runner.errors import PolicyError
from runner.model.action import Action, Exec
from runner.model.decision import Decision, Effect, MatchedRule
from runner.model.policy_text import PolicyTexts
from runner.model.rule import CountOf
from runner.policy.questions import Question, UnaskableError, address, domains, questions
from runner.policy.subject import SHELL_LANGUAGES
from runner.policy.verdict import Finding, Verdict

INSTALL = "install runner-sandbox[cedar]"
_NESTING_LIMIT = 100
"""Deepest nesting of brackets in a policy: Cedar's parser overflows its stack at some thousands."""
_BATCH = 256
"""Requests handed over at once; Cedar answers each in some 50 µs, and other threads wait."""
_DYNAMIC = "DynamicCommand"
_EFFECTS = ("ask", "deny")


def create(texts: PolicyTexts) -> CedarDecisionPoint:
    """The decision point over these policies; PolicyError with a line for each problem."""
    return CedarDecisionPoint(texts)


@dataclass(frozen=True, slots=True)
class _Policy:
    """What runner needs to know of a policy."""

    name: str
    place: str
    """The file it stands in."""
    forbids: bool
    asks: bool
    message: str
    explicit: bool
    """Its scope speaks about dynamic commands by their type."""


class CedarDecisionPoint:
    """Decides by Cedar policies; implements `runner.ports.DecisionPoint`."""

    def __init__(self, texts: PolicyTexts) -> None:
        """PolicyError: a policy that does not parse or fit the schema, or cedarpy is missing."""
        self._cedar = _module(texts)
        schema = resources.files("runner.policy_points").joinpath("runner.cedarschema").read_text()
        static: dict[str, Any] = {}
        for path, text in texts.files:
            static |= _parsed(self._cedar, path, text, schema)
        self._policies = {key: _policy(key, value) for key, value in static.items()}
        self._all = _policy_set(self._cedar, static)
        firm = {key: value for key, value in static.items() if not self._policies[key].asks}
        self._firm = self._all if len(firm) == len(static) else _policy_set(self._cedar, firm)
        self._digest = _digest(texts)

    @property
    def digest(self) -> str:
        """`sha256:` and hex over the policies' names and texts."""
        return self._digest

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """Nothing: Cedar policies count no runs."""
        return frozenset()

    def decide(self, action: Action) -> Decision:
        """Never raises; what can't be evaluated is a deny that says so."""
        try:
            return self._decide(action)
        except UnaskableError as error:
            return self._refusal(f"the request {error}, so Cedar policies can't be asked about it")
        except BaseException as error:
            # A panic in Cedar is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            return self._refusal(
                f"the Cedar policies could not be evaluated ({type(error).__name__}), so it is "
                "denied; report this as a fault of runner"
            )

    def _refusal(self, reason: str) -> Decision:
        return Decision(Effect.DENY, reason, self._digest)

    def _decide(self, action: Action) -> Decision:
        verdict = Verdict()
        intent = action.intent if isinstance(action, Exec) else None
        if intent is not None and intent.unreadable and intent.language in SHELL_LANGUAGES:
            verdict.add(
                Finding(Effect.DENY, f"the text can't be read for a decision ({intent.unreadable})")
            )
        asked = questions(action)
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            for question, finding in zip(batch, self._answers(batch, action), strict=True):
                if finding is not None:
                    verdict.add(finding)
                elif not question.stated_only:
                    verdict.add(Finding(Effect.ALLOW, "Cedar policies permit it"))
        return verdict.decision(self._digest)

    def _answers(self, batch: Sequence[Question], action: Action) -> Iterator[Finding | None]:
        """What is said against each; None: nothing is."""
        requests = [_request(each) for each in batch]
        entities = json.dumps(list(_entities(batch, action)))
        everything = self._asked(requests, entities, self._all)
        firm = everything
        if self._firm is not self._all:
            firm = self._asked(requests, entities, self._firm)
        for question, whole, without in zip(batch, everything, firm, strict=True):
            yield self._finding(question, whole, without)

    def _asked(self, requests: list[dict[str, Any]], entities: str, policies: Any) -> list[Any]:
        answers: list[Any] = self._cedar.is_authorized_batch(requests, policies, entities)
        return answers

    def _finding(self, question: Question, whole: Any, firm: Any) -> Finding | None:
        failed = [key for key in self._policies if _names(whole.diagnostics.errors, key)]
        broken = [self._policies[key] for key in failed if self._policies[key].forbids]
        decided = whole.decision.value
        if decided not in {"Allow", "Deny"} or (whole.diagnostics.errors and not failed):
            told = "; ".join(whole.diagnostics.errors)[:300] or "no answer"
            return Finding(Effect.DENY, f"Cedar could not decide about '{question.shown}': {told}")
        if broken:
            return self._could_not(question, broken[0], whole.diagnostics.errors)
        reasons = [self._policies[key] for key in whole.diagnostics.reasons]
        if firm.decision.value == "Allow":
            if decided == "Deny":
                return self._against(question, reasons, Effect.ASK)
            return self._permitted(question, reasons)
        against = [self._policies[key] for key in firm.diagnostics.reasons]
        if against:
            return self._against(question, against, Effect.DENY)
        if question.stated_only:
            return None
        hint = " (a policy that might could not be evaluated)" if failed else ""
        return Finding(
            Effect.DENY,
            f"no Cedar policy permits '{question.shown}'{hint}, and what none permits is denied",
            matched=MatchedRule("default", "cedar", Effect.DENY, "", question.shown),
        )

    def _permitted(self, question: Question, reasons: Sequence[_Policy]) -> Finding | None:
        if question.kind != _DYNAMIC or any(policy.explicit for policy in reasons):
            return None
        return Finding(
            Effect.DENY,
            f"what '{question.shown}' runs can't be told before it runs, and no Cedar policy "
            "permits that by name (resource is DynamicCommand); write the command's name literally",
            matched=MatchedRule("dynamic", "cedar", Effect.DENY, "", question.shown),
        )

    def _against(self, question: Question, policies: Sequence[_Policy], effect: Effect) -> Finding:
        policy = sorted(policies, key=lambda each: (each.place, each.name))[0]
        verb = "asks about" if effect is Effect.ASK else "forbids"
        told = f": {policy.message}" if policy.message else ""
        return Finding(
            effect,
            f"policy '{policy.name}' of '{policy.place}' {verb} '{question.shown}'{told}",
            matched=MatchedRule(policy.name, policy.place, effect, policy.message, question.shown),
        )

    def _could_not(self, question: Question, policy: _Policy, errors: Sequence[str]) -> Finding:
        why = "some of its words are known only when it runs" if question.incomplete else errors[0]
        told = f": {policy.message}" if policy.message else ""
        return Finding(
            Effect.DENY,
            f"policy '{policy.name}' of '{policy.place}' forbids by what can't be told about "
            f"'{question.shown}' ({why[:200]}){told}",
            matched=MatchedRule(
                policy.name, policy.place, Effect.DENY, policy.message, question.shown
            ),
        )


def _names(errors: Sequence[str], key: str) -> bool:
    return any(f"policy `{key}`" in error for error in errors)


def _module(texts: PolicyTexts) -> ModuleType:
    try:
        import cedarpy  # noqa: PLC0415  (an extra, and five megabytes)
    except ImportError:
        path = texts.files[0][0] if texts.files else texts.name
        raise PolicyError(f"{path} needs Cedar; {INSTALL}, or remove the file") from None
    return cedarpy


def _parsed(cedar: ModuleType, path: str, text: str, schema: str) -> dict[str, Any]:
    """The policies of a file in Cedar's JSON, by a name of their own."""
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    if deepest > _NESTING_LIMIT or text.count("!!!!!!!!!") or text.count("---------"):
        _refuse(path, f"nests more than {_NESTING_LIMIT} deep")
    try:
        found = json.loads(cedar.policies_to_json_str(text))
        problems = [_line(str(each)) for each in cedar.validate_policies(text, schema).errors]
    except ValueError as error:
        _refuse(path, f"is no Cedar policy: {_line(str(error))}")
    if problems:
        raise PolicyError("\n".join(f"{path}: {problem}" for problem in dict.fromkeys(problems)))
    if found["templates"]:
        _refuse(path, "holds a template, which nothing links; write a principal and a resource")
    if not found["staticPolicies"]:
        _refuse(path, "holds no policy, so all would be denied; write one, or remove the file")
    for key, value in found["staticPolicies"].items():
        effect = value.get("annotations", {}).get("effect")
        if effect is not None and (effect not in _EFFECTS or value["effect"] != "forbid"):
            _refuse(path, f'{key}: @effect is "ask" or "deny", and stands on a forbid')
    return {f"{path}#{key}": value for key, value in found["staticPolicies"].items()}


def _refuse(path: str, message: str) -> NoReturn:
    raise PolicyError(f"{path}: {message}")


def _line(message: str) -> str:
    return " ".join(message.split())[:300]


def _policy(key: str, value: Mapping[str, Any]) -> _Policy:
    notes = value.get("annotations", {})
    path, _, own = key.rpartition("#")
    scope = value["resource"]
    kinds = {scope.get("entity_type"), scope.get("entity", {}).get("type")}
    return _Policy(
        name=notes.get("id") or own,
        place=path,
        forbids=value["effect"] == "forbid",
        asks=notes.get("effect") == "ask",
        message=notes.get("message") or "",
        explicit=_DYNAMIC in kinds,
    )


def _policy_set(cedar: ModuleType, static: Mapping[str, Any]) -> Any:
    text = json.dumps({"templates": {}, "staticPolicies": static, "templateLinks": []})
    return cedar.PolicySet.from_json_str(text)


def _request(question: Question) -> dict[str, Any]:
    return {
        "principal": _uid("Agent", question.principal.agent),
        "action": _uid("Action", question.action),
        "resource": _uid(question.kind, question.name),
        "context": _context(question),
    }


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _context(question: Question) -> dict[str, Any]:
    """The question's as the schema has it; its keys are all ours, so none can be an escape."""
    context = dict(question.context)
    for name in ("labels", "domains" if question.action != "exec" else "labels", "arguments"):
        context.pop(name, None)
    if (ip := context.pop("ip", None)) is not None:
        context["ip"] = {"__extn": {"fn": "ip", "arg": ip}}
    if (now_s := context.pop("now_s", None)) is not None:
        context["now"] = {"__extn": {"fn": "datetime", "arg": _spelled(now_s)}}
    return context


def _spelled(now_s: float) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise UnaskableError("comes at no time that there is") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _entities(batch: Sequence[Question], action: Action) -> Iterator[dict[str, Any]]:
    """Every entity that the requests of a batch name, once."""
    labels = dict(action.labels) if isinstance(action, Exec) else {}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for each in batch:
        who = each.principal
        if ("Agent", who.agent) not in found:
            own = {"uid": who.uid, "session": who.session, "tenant": who.tenant}
            parents = [_uid("Tenant", who.tenant)] if who.tenant is not None else []
            if who.parent is not None and who.parent != who.agent:
                parents.append(_uid("Agent", who.parent))
            stated = {name: value for name, value in own.items() if value is not None}
            found["Agent", who.agent] = _entity("Agent", who.agent, stated, parents, labels)
        if each.kind == "Host" and (each.kind, each.name) not in found:
            above = [_uid("Host", name) for name in domains(each.name)[1:]]
            found["Host", each.name] = _entity("Host", each.name, {}, above)
        if each.kind == "Tool":
            server = [_uid("Server", each.server)]
            tags = each.context["arguments"]
            found["Tool", each.name] = _entity("Tool", each.name, {}, server, tags)
    yield from found.values()


def _entity(
    kind: str,
    name: str,
    attributes: Mapping[str, Any],
    parents: Sequence[Mapping[str, str]],
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    entity = {"uid": _uid(kind, name), "attrs": attributes, "parents": parents}
    return entity | ({"tags": tags} if tags else {})


def _digest(texts: PolicyTexts) -> str:
    plain = ["cedar", texts.name, [list(each) for each in texts.files]]
    return "sha256:" + hashlib.sha256(rfc8785.dumps(plain)).hexdigest()


__all__ = ["CedarDecisionPoint", "address", "create"]
