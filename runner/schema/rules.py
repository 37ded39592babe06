"""Rules as profiles and policy files spell them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.model.decision import Effect
from runner.model.rule import Match, OnDoubt, OnUnknown, PolicyLayer, Rule
from runner.schema.base import Identifier, Strict, Words
from runner.schema.problems import Path, Problem, unknown
from runner.schema.yaml import Document


def _only(words: tuple[str, ...]) -> tuple[BeforeValidator, WithJsonSchema]:
    """Fewer words than the enumeration has."""

    def check(value: object) -> object:
        if isinstance(value, str) and value not in words:
            raise ValueError(unknown("value", value, words))
        return value

    return BeforeValidator(check), WithJsonSchema({"type": "string", "enum": list(words)})


RuleEffect = Annotated[Effect, *_only(("allow", "ask", "deny"))]
"""`rewrite` is a decision's word; no rule can say it yet."""
OnUnreadable = Annotated[OnUnknown, *_only(("ask", "deny"))]
"""`defer` has no meaning for a text that can't be read."""


class MatchFile(Strict):
    """`match:` of a rule: conditions on one command, each a pattern or a list; all must hold."""

    command: Words | None = Field(default=None, description="The command's name is one of these.")
    args: Words | None = Field(default=None, description="Each pattern matches some argument.")
    any_args: Words | None = Field(default=None, description="At least one matches some argument.")
    paths: Words | None = Field(default=None, description="Some path that it names matches.")
    writes: Words | None = Field(default=None, description="Some path that it writes matches.")
    hosts: Words | None = Field(default=None, description="Some host that it names matches.")
    environment: Words | None = Field(
        default=None, description="Some variable that is set matches."
    )
    via: Words | None = Field(default=None, description="It stands behind one of these wrappers.")

    def to_model(self) -> Match:
        """As the policy engine takes it."""
        stated: dict[str, Any] = {
            "commands" if name == "command" else name: value
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }
        return Match(**stated)


class RuleFile(Strict):
    """One rule."""

    id: Identifier = Field(
        description="Unique within the file and what it extends; decisions name it."
    )
    effect: RuleEffect = Field(description="The strictest of all rules that match wins.")
    match: MatchFile
    message: str = Field(default="", description="What to do instead; needed for deny and ask.")
    on_doubt: OnDoubt | None = Field(
        default=None, description="As rules.on_doubt, for this rule; only for deny and ask."
    )

    def to_model(self) -> Rule:
        """As the policy engine takes it."""
        match = self.match.to_model()
        return Rule(self.id, self.effect, match, self.message.strip(), self.on_doubt)


class RulesFile(Strict):
    """`rules:` of a policy file."""

    default: RuleEffect | None = Field(
        default=None, description="What a command that no rule matches gets."
    )
    on_dynamic: OnUnknown | None = Field(
        default=None, description="What a command gets whose name only running would tell."
    )
    on_unreadable: OnUnreadable | None = Field(
        default=None, description="What a text gets that does not parse."
    )
    on_doubt: OnDoubt | None = Field(
        default=None,
        description="Whether deny and ask match what only running would tell: matches, or passes.",
    )
    list: tuple[RuleFile, ...] = ()

    def to_layer(self, name: str) -> PolicyLayer:
        """As one layer of the policy."""
        return PolicyLayer(
            name=name,
            rules=tuple(rule.to_model() for rule in self.list),
            default=self.default,
            on_dynamic=self.on_dynamic,
            on_unreadable=self.on_unreadable,
            on_doubt=self.on_doubt or OnDoubt.MATCHES,
        )


def check_rules(document: Document) -> Iterator[Problem]:
    """What a rule set must hold beyond its fields' types; reads the plain data."""
    rules = _at(document.data, "rules")
    entries = _at(rules, "list")
    seen: dict[str, int] = {}
    for index, rule in enumerate(entries if isinstance(entries, list) else ()):
        path: Path = ("rules", "list", index)
        identity = _at(rule, "id")
        if isinstance(identity, str):
            if identity in seen:
                message = f"{identity!r} is the id of rules.list[{seen[identity]}] already"
                yield document.problem((*path, "id"), f"{message}; give each rule its own")
            seen.setdefault(identity, index)
        yield from _check_rule(document, rule, path)


def _check_rule(document: Document, rule: object, path: Path) -> Iterator[Problem]:
    effect = _at(rule, "effect")
    message_given = _at(rule, "message")
    if effect in {"deny", "ask"} and (
        message_given is None or (isinstance(message_given, str) and not message_given.strip())
    ):
        yield document.problem(
            (*path, "message"), f"is missing; a rule that says {effect} tells what to do instead"
        )
    if effect == "allow" and _at(rule, "on_doubt") is not None:
        message = "says nothing for allow, which never matches on doubt; leave it out"
        yield document.problem((*path, "on_doubt"), message)
    if _at(rule, "match") == {}:
        message = "states no condition and would match all; use rules.default for that"
        yield document.problem((*path, "match"), message)


def _at(data: object, key: str) -> object:
    return data.get(key) if isinstance(data, dict) else None
