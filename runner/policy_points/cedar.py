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
from runner.policy.questions import Question, UnaskableError, domains, questions
from runner.policy.subject import SHELL_LANGUAGES
from runner.policy.verdict import Finding, Verdict

INSTALL = "install runner-sandbox[cedar]"
_NESTING_LIMIT = 100
"""Deepest nesting of brackets in a policy: Cedar's parser overflows its stack at some thousands."""
_BATCH = 256
"""Requests handed over at once; Cedar answers each in some 50 µs, and other threads wait."""
_DYNAMIC = "DynamicCommand"
_EFFECTS = ("ask", "deny")
_VERBS = {Effect.ALLOW: "permits", Effect.ASK: "asks about", Effect.DENY: "forbids"}


def create(texts: PolicyTexts) -> CedarDecisionPoint:
    """The decision point over these policies; PolicyError with a line for each problem."""
    return CedarDecisionPoint(texts)


@dataclass(frozen=True, slots=True)
class _Policy:
    """What runner needs to know of a policy."""

    name: str
    place: str
    """The file it stands in, e.g. `organisation:/etc/runner/policy.d/10.cedar`."""
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
        self._policies: dict[str, _Policy] = {}
        for index, (name, text) in enumerate(texts.files):
            for own, value in _parsed(self._cedar, name.partition(":")[2], text, schema).items():
                # A key without characters that a message could spell differently.
                static[f"{index}-{own}"] = value
                self._policies[f"{index}-{own}"] = _policy(name, own, value)
        self._all = _policy_set(self._cedar, static)
        firm = {key: value for key, value in static.items() if not self._policies[key].asks}
        self._firm = self._all if len(firm) == len(static) else _policy_set(self._cedar, firm)
        self._digest = _digest(texts)
        self._name = f"Cedar policies of {texts.name}"

    @property
    def name(self) -> str:
        """What it is called where several points are told of."""
        return self._name

    @property
    def digest(self) -> str:
        """`sha256:` and hex over the policies' names and texts."""
        return self._digest

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """Nothing: Cedar policies count no runs."""
        return frozenset()

    @property
    def follows_links(self) -> bool:
        """They do: Cedar policies may ask for paths."""
        return True

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
                # Of what only matters when a policy speaks about it, a permit says nothing.
                if finding is not None and not (
                    question.stated_only and finding.effect is Effect.ALLOW
                ):
                    verdict.add(finding)
        return verdict.decision(self._digest)

    def _answers(self, batch: Sequence[Question], action: Action) -> Iterator[Finding | None]:
        """What the policies say about each; None: nothing about what only matters when they do."""
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
        """By the answers of all policies, and of those that do not ask."""
        problem = self._problem(question, whole)
        if problem is not None:
            return problem
        if firm.allowed:
            reasons = [self._policies[key] for key in whole.diagnostics.reasons]
            if not whole.allowed:
                return self._said(question, reasons, Effect.ASK)
            return self._permitted(question, reasons)
        against = [self._policies[key] for key in firm.diagnostics.reasons]
        if against:
            return self._said(question, against, Effect.DENY)
        if question.stated_only:
            return None
        hint = " (one that might could not be evaluated)" if whole.diagnostics.errors else ""
        return Finding(
            Effect.DENY,
            f"no Cedar policy permits '{question.shown}'{hint}, and what none permits is denied",
            matched=MatchedRule("default", "cedar", Effect.DENY, "", question.shown),
        )

    def _problem(self, question: Question, answer: Any) -> Finding | None:
        """A denial where Cedar could not evaluate it, or a policy that forbids."""
        errors: Sequence[str] = answer.diagnostics.errors
        failed = [each for key, each in self._policies.items() if _names(errors, key)]
        broken = [policy for policy in failed if policy.forbids]
        if broken:
            return self._could_not(question, broken[0], errors)
        if answer.decision.value in {"Allow", "Deny"} and bool(errors) == bool(failed):
            return None
        told = "; ".join(errors)[:300] or "it gave no answer"
        return Finding(Effect.DENY, f"Cedar could not decide about '{question.shown}': {told}")

    def _permitted(self, question: Question, reasons: Sequence[_Policy]) -> Finding:
        if question.kind != _DYNAMIC or any(policy.explicit for policy in reasons):
            return self._said(question, reasons, Effect.ALLOW)
        return Finding(
            Effect.DENY,
            f"what '{question.shown}' runs can't be told before it runs, and no Cedar policy "
            "permits that by name (resource is DynamicCommand); write the command's name literally",
            matched=MatchedRule("dynamic", "cedar", Effect.DENY, "", question.shown),
        )

    def _said(self, question: Question, policies: Sequence[_Policy], effect: Effect) -> Finding:
        policy = sorted(policies, key=lambda each: (each.place, each.name))[0]
        verb = _VERBS[effect]
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
        first = texts.files[0][0] if texts.files else texts.name
        raise PolicyError(
            f"{first.partition(':')[2]} needs Cedar; {INSTALL}, or remove the file"
        ) from None
    return cedarpy


def _parsed(cedar: ModuleType, path: str, text: str, schema: str) -> dict[str, Any]:
    """The policies of a file in Cedar's JSON, by the names that Cedar gives them."""
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
    return dict(found["staticPolicies"])


def _refuse(path: str, message: str) -> NoReturn:
    raise PolicyError(f"{path}: {message}")


def _line(message: str) -> str:
    return " ".join(message.split())[:300]


def _policy(place: str, own: str, value: Mapping[str, Any]) -> _Policy:
    notes = value.get("annotations", {})
    scope = value["resource"]
    kinds = {scope.get("entity_type"), scope.get("entity", {}).get("type")}
    return _Policy(
        name=notes.get("id") or own,
        place=place,
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
    for name in ("labels", "arguments"):  # the tags of their entities
        context.pop(name, None)
    if (ip := context.pop("ip", None)) is not None:
        context["ip"] = {"__extn": {"fn": "ip", "arg": ip}}
    if (now_s := context.pop("now_s", None)) is not None:
        context["now"] = {"__extn": {"fn": "datetime", "arg": _spelled(now_s)}}
    return context


def _spelled(now_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
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
