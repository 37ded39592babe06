"""Decides by policies in Rego (https://www.openpolicyagent.org), by the extra `[rego]`.

All files of a folder are one policy. Each simple command is one `input` document (docs/
foreign-policies.md lists its keys), and package `runner` answers it:

- `decision`: `"allow"`, `"ask"` or `"deny"`, or an object with `effect` and `reason`;
- `deny`, `ask`: sets of messages; one message is enough;
- `allow`: true, or a set that is not empty.

The strictest of these counts. Nothing at all, an error, a timeout and an effect that is not known
are denials. `handles` says what else the policy is ready to see; without it, that is a denial:
`dynamic_command` (a name that only running would tell), `dynamic_arguments` (lists that are left
out for such words), `escaped_text` (texts with quotes, backslashes or control characters, which
rego-cpp 1.5 keeps in their JSON spelling: `==` compares them rightly, its functions do not).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import rfc8785

from runner.errors import PolicyError
from runner.model.action import Action, Exec
from runner.model.decision import STRICTNESS, Decision, Effect, MatchedRule
from runner.model.intent import Word
from runner.model.policy_text import PolicyTexts
from runner.model.rule import CountOf
from runner.policy.questions import Question, UnaskableError, questions
from runner.policy.subject import SHELL_LANGUAGES
from runner.policy.verdict import Finding, Verdict
from runner.policy_points.rego_process import INSTALL, EvaluationError, RegoProcess

_KEYS = frozenset({"effect", "reason"})
_EFFECTS = {"allow": Effect.ALLOW, "ask": Effect.ASK, "deny": Effect.DENY}
_VERBS = {Effect.ALLOW: "allows", Effect.ASK: "asks about", Effect.DENY: "denies"}
_IMPURE = re.compile(
    r"\b(http\.send|opa\.runtime|rand\.intn|uuid\.rfc4122|net\.lookup_ip_addr|time\.now_ns)\b"
)
_PACKAGE = re.compile(r"(?m)^\s*package\s+runner\s*(?:#.*)?$")
_MESSAGE_LIMIT = 500
_MESSAGES_LIMIT = 3


def create(texts: PolicyTexts) -> RegoDecisionPoint:
    """The decision point over these policies; PolicyError when they can't be used."""
    return RegoDecisionPoint(texts)


class RegoDecisionPoint:
    """Decides by Rego policies; implements `runner.ports.DecisionPoint`."""

    def __init__(self, texts: PolicyTexts) -> None:
        """PolicyError: a policy that does not compile, or regopy is missing."""
        self._name = texts.name
        _check(texts)
        try:
            self._process = RegoProcess([(_path(name), text) for name, text in texts.files])
        except ImportError:
            first = _path(texts.files[0][0]) if texts.files else texts.name
            raise PolicyError(f"{first} needs Rego; {INSTALL}, or remove the file") from None
        except EvaluationError as error:
            raise PolicyError(f"{_path(texts.name)}: {_clause(str(error))}") from None
        except OSError as error:
            raise PolicyError(f"{texts.name}: its process can't be started: {error}") from None
        plain = ["rego", texts.name, [list(each) for each in texts.files]]
        self._digest = "sha256:" + hashlib.sha256(rfc8785.dumps(plain)).hexdigest()

    @property
    def name(self) -> str:
        """What it is called where several points are told of."""
        return f"Rego policy of {self._name}"

    @property
    def digest(self) -> str:
        """`sha256:` and hex over the policies' names and texts."""
        return self._digest

    @property
    def counted(self) -> frozenset[tuple[CountOf, float]]:
        """Nothing: Rego policies count no runs."""
        return frozenset()

    @property
    def follows_links(self) -> bool:
        """They do: Rego modules may ask for paths."""
        return True

    def decide(self, action: Action) -> Decision:
        """Never raises; what can't be evaluated is a deny that says so."""
        try:
            return self._decide(action)
        except UnaskableError as error:
            return self._refusal(f"the request {error}, so Rego policies can't be asked about it")
        except EvaluationError as error:
            return self._refusal(f"the Rego policy of '{self._name}' gave no decision: {error}")
        except Exception as error:
            return self._refusal(
                f"the Rego policy could not be evaluated ({type(error).__name__}), so it is "
                "denied; report this as a fault of runner"
            )

    def close(self) -> None:
        """End the process that evaluates; the next decision starts another."""
        self._process.close()

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
        documents = [json.dumps(_document(each), ensure_ascii=False) for each in asked]
        for question, raw in zip(asked, self._process.ask(documents), strict=True):
            finding = self._finding(question, _answer(raw))
            if finding is not None:
                verdict.add(finding)
        return verdict.decision(self._digest)

    def _finding(self, question: Question, answer: _Answer) -> Finding | None:
        """What the policy says; None: nothing about what only matters when it does."""
        if answer.problem is not None:
            return self._denied(question, f"gave no decision on '{question.shown}'", answer.problem)
        if answer.effect is Effect.DENY:
            return self._said(question, answer)
        if question.stated_only and answer.effect is not Effect.ASK:
            return None
        if answer.effect is None:
            why = "it defines neither decision, deny, ask nor allow for it, so it is denied"
            return self._denied(question, f"says nothing about '{question.shown}'", why)
        missing = next((each for each in _needs(question) if each[0] not in answer.handles), None)
        if missing is not None:
            what, because = missing
            why = f'{because}, and the policy does not say handles contains "{what}"'
            return self._denied(question, f"can't judge '{question.shown}'", why)
        return self._said(question, answer)

    def _said(self, question: Question, answer: _Answer) -> Finding:
        effect = answer.effect or Effect.DENY
        message = "; ".join(answer.messages[:_MESSAGES_LIMIT])
        told = f": {message}" if message else ""
        return Finding(
            effect,
            f"the Rego policy of '{self._name}' {_VERBS[effect]} '{question.shown}'{told}",
            matched=MatchedRule(answer.rule, self._name, effect, message, question.shown),
        )

    def _denied(self, question: Question, what: str, why: str) -> Finding:
        return Finding(
            Effect.DENY,
            f"the Rego policy of '{self._name}' {what}: {why}",
            matched=MatchedRule("undecided", self._name, Effect.DENY, "", question.shown),
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the worker said, checked."""

    effect: Effect | None = None
    messages: tuple[str, ...] = ()
    handles: frozenset[str] = frozenset()
    rule: str = ""
    """Which of the package's rules spoke."""
    problem: str | None = None


def _answer(raw: object) -> _Answer:
    """An answer read with suspicion: whatever is not as expected is a problem."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("value"), Mapping):
        told = raw.get("error") if isinstance(raw, Mapping) else None
        return _Answer(problem=str(told or "its answer can't be read")[:_MESSAGE_LIMIT])
    value: Mapping[str, Any] = raw["value"]
    try:
        texts = {
            key: [_decoded(each) for each in value[key]]
            for key in ("words", "keys", "effects", "reasons", "deny", "ask", "allows", "handles")
        }
        flags = {key: list(value[key]) for key in ("odd", "allow")}
    except (KeyError, TypeError, ValueError, binascii.Error):
        return _Answer(problem="its answer can't be read")
    unknown = [key for key in texts["keys"] if key not in _KEYS]
    named = texts["words"] + texts["effects"]
    if flags["odd"] or (texts["keys"] and not texts["effects"]):
        return _Answer(problem="decision is no effect and no object with one")
    if unknown or any(name not in _EFFECTS for name in named):
        odd = (unknown + [name for name in named if name not in _EFFECTS])[0]
        return _Answer(problem=f"decision holds {odd!r}, which runner does not know")
    said: list[tuple[Effect, str, list[str]]] = [
        (_EFFECTS[name], "decision", texts["reasons"]) for name in named
    ]
    said += [(Effect.DENY, "deny", texts["deny"])] if texts["deny"] else []
    said += [(Effect.ASK, "ask", texts["ask"])] if texts["ask"] else []
    if texts["allows"] or any(each is True for each in flags["allow"]):
        said.append((Effect.ALLOW, "allow", texts["allows"]))
    handles = frozenset(texts["handles"])
    if not said:
        return _Answer(handles=handles)
    effect, rule, messages = max(said, key=lambda each: STRICTNESS[each[0]])
    return _Answer(effect, tuple(messages), handles, rule)


def _decoded(value: object) -> str:
    """Base64 of a text that stands as JSON spells it."""
    if not isinstance(value, str):
        raise ValueError("no text")
    inner = base64.b64decode(value, validate=True).decode("utf-8", "replace")
    try:
        text = json.loads(f'"{inner}"')
    except ValueError:
        text = inner  # a quote that a policy's raw string holds
    return " ".join(str(text).split())[:_MESSAGE_LIMIT]


def _document(question: Question) -> dict[str, Any]:
    who = question.principal
    stated = {"parent": who.parent, "session": who.session, "tenant": who.tenant}
    dynamic = question.kind == "DynamicCommand"
    context = dict(question.context)
    if (now_s := context.get("now_s")) is not None:
        context["now_ns"] = int(now_s * 1_000_000_000)
    return {
        "action": question.action,
        "principal": {
            "agent": who.agent,
            "uid": who.uid,
            **{key: value for key, value in stated.items() if value is not None},
        },
        "resource": {
            "kind": question.kind,
            "source" if dynamic else "name": question.name,
            **({"server": question.server} if question.server else {}),
        },
        "context": {**context, "words": [_word(word) for word in question.words]},
    }


def _word(word: Word) -> dict[str, Any]:
    """A literal word has a `text`; of a dynamic one only its ends are known."""
    if not word.dynamic:
        return {"text": word.text}
    return {
        "source": word.text,
        "prefix": word.prefix,
        "suffix": word.suffix,
        "many": word.many,
    }


def _needs(question: Question) -> Iterator[tuple[str, str]]:
    """What a policy must say that it handles before it can allow this, and why."""
    if question.kind == "DynamicCommand":
        yield "dynamic_command", "its name can't be told before it runs"
    if question.incomplete:
        yield "dynamic_arguments", "some of its words can't be told before it runs"
    if _escaped(question):
        yield "escaped_text", "it holds quotes, backslashes or control characters"


def _escaped(question: Question) -> bool:
    """Whether any text that the policy sees as literal is spelled with escapes in JSON."""
    name = "" if question.kind == "DynamicCommand" else question.name
    return "\\" in json.dumps([name, question.server, question.context], ensure_ascii=False)


def _check(texts: PolicyTexts) -> None:
    """What is wrong before anything is compiled."""
    for name, text in texts.files:
        if found := _IMPURE.search(text):
            hint = "input.context.now_ns" if found[1] == "time.now_ns" else "what input holds"
            raise PolicyError(
                f"{_path(name)} uses {found[1]}, but the same action must get the same answer; "
                f"use {hint}"
            )
        if "\0" in text:
            raise PolicyError(f"{_path(name)} holds a NUL character")
    if not any(_PACKAGE.search(text) for _, text in texts.files):
        raise PolicyError(
            f"{_path(texts.files[0][0])}: no file beside it says 'package runner', so all would be "
            "denied"
        )


def _path(name: str) -> str:
    """The file of a policy's name (`organisation:/etc/…`)."""
    return name.partition(":")[2] or name


def _clause(message: str) -> str:
    """What rego-cpp found, without its tree."""
    found = re.findall(r"\(errormsg \d+:([^)]*)\)", message)
    place = message.partition(":")[0]
    if not found:
        return " ".join(message.split())[:300]
    return f"{place}: does not compile: {', '.join(dict.fromkeys(found))[:300]}"
