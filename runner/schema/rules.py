"""Rules as profiles and policy files spell them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from runner.model.decision import AskTerms, Effect
from runner.model.rule import OnDoubt, OnUnknown, PolicyLayer, Rewrite, Rule
from runner.policy.rewriting import ARGUMENTS
from runner.schema.base import Identifier, NonEmpty, Strict, Words
from runner.schema.matches import BoundedDuration, MatchFile
from runner.schema.problems import Path, Problem, unknown
from runner.schema.yaml import Document

MATCH_DEPTH_LIMIT = 8
"""Levels of `any`, `all` and `not` in each other; more is a riddle."""
MATCH_NODES_LIMIT = 1_000
"""Matches within one rule, itself among them."""
_PARTS = ("any", "all", "not")
_OF_COMMANDS = ("command", "args", "any_args", "args_in_order", "exact_args", "paths",
                "reads", "writes", "hosts", "environment", "via")  # fmt: skip
"""What is stated of commands, so that `constructs` can't hold beside it."""


def _only(words: tuple[str, ...]) -> tuple[BeforeValidator, WithJsonSchema]:
    """Fewer words than the enumeration has."""

    def check(value: object) -> object:
        if isinstance(value, str) and value not in words:
            raise ValueError(unknown("value", value, words))
        return value

    return BeforeValidator(check), WithJsonSchema({"type": "string", "enum": list(words)})


def _command(value: object) -> object:
    """The words of a command, given as text or as a list."""
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{value!r} is no command ({str(error).lower()})") from None
    if words in ([], ()):
        raise ValueError("is empty; write the command to use instead")
    if isinstance(words, list):
        if words[0] == ARGUMENTS:
            raise ValueError(f"must begin with the command's name, not with {ARGUMENTS}")
        if words.count(ARGUMENTS) > 1:
            raise ValueError(f"holds {ARGUMENTS} more than once")
        if any(isinstance(w, str) and ARGUMENTS in w and w != ARGUMENTS for w in words):
            raise ValueError(f"{ARGUMENTS} must be a word of its own")
    return words


Default = Annotated[Effect, *_only(("allow", "ask", "deny"))]
"""Nothing could be put in a command's place by default."""
OnUnreadable = Annotated[OnUnknown, *_only(("ask", "deny"))]
"""`defer` has no meaning for a text that can't be read."""
Command = Annotated[
    tuple[NonEmpty, ...],
    BeforeValidator(_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]


class AskFile(Strict):
    """`ask:` of a rule that asks."""

    approvers: Words | None = Field(
        default=None, description="Globs over who may answer; anyone who may approve at all."
    )
    expires: BoundedDuration | None = Field(
        default=None, description="How long the question stands; 15m."
    )

    def to_model(self) -> AskTerms:
        """As the policy engine takes it."""
        default = AskTerms()
        return AskTerms(
            approvers=(self.approvers,) if self.approvers is not None else (),
            expires_s=self.expires if self.expires is not None else default.expires_s,
        )


class RewriteFile(Strict):
    """`rewrite:` of a rule that rewrites."""

    to: Command = Field(
        description="The command to use instead, as text or as words; {args} stands for the "
        "arguments that it was given."
    )
    without: Words | None = Field(default=None, description="Arguments that {args} leaves out.")

    def to_model(self) -> Rewrite:
        """As the policy engine takes it."""
        return Rewrite(self.to, self.without or ())


class ExamplesFile(Strict):
    """Shell texts that show what a rule is for; `runner policy test` holds it to them."""

    catches: Words | None = Field(default=None, description="The rule speaks about each of these.")
    passes: Words | None = Field(default=None, description="The rule lets each of these be.")


class RuleFile(Strict):
    """One rule. `reason` and `examples` are for people and tests: they change no decision."""

    id: Identifier = Field(
        description="Unique within the file and what it extends; decisions name it."
    )
    effect: Effect = Field(description="The strictest of all rules that match wins.")
    match: MatchFile
    message: str = Field(default="", description="What to do instead; needed for deny and ask.")
    on_doubt: OnDoubt | None = Field(
        default=None, description="As rules.on_doubt, for this rule; not for allow."
    )
    ask: AskFile | None = Field(default=None, description="Who may answer; only for ask.")
    rewrite: RewriteFile | None = Field(
        default=None, description="The command to use instead; needed for rewrite."
    )
    observe: bool = Field(
        default=False, description="true: what it would decide is recorded, and has no effect."
    )
    reason: NonEmpty | None = Field(default=None, description="Why the rule exists, for people.")
    examples: ExamplesFile = ExamplesFile()

    def to_model(self) -> Rule:
        """As the policy engine takes it."""
        return Rule(
            id=self.id,
            effect=self.effect,
            match=self.match.to_model(),
            message=self.message.strip(),
            on_doubt=self.on_doubt,
            ask=self.ask.to_model() if self.ask is not None else None,
            rewrite=self.rewrite.to_model() if self.rewrite is not None else None,
            observe=self.observe or None,
        )


class RulesFile(Strict):
    """`rules:` of a policy file."""

    default: Default | None = Field(
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
        description="Whether all but allow match what only running would tell: matches, or passes.",
    )
    include: tuple[Identifier, ...] = Field(
        default=(), description="Rule sets of the library that are asked as well."
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
        yield from check_rule(document, rule, path)


def check_rule(document: Document, rule: object, path: Path) -> Iterator[Problem]:
    """What one rule, at `path` of a document, must hold beyond its fields' types."""
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
    if effect == "allow" and _at(rule, "observe") is True:
        message = "says nothing for allow, which without effect is no rule; leave it out"
        yield document.problem((*path, "observe"), message)
    if effect == "rewrite" and _at(rule, "rewrite") is None:
        message = "is missing; say what to use instead, such as rewrite: {to: 'make test'}"
        yield document.problem((*path, "rewrite"), message)
    for key in ("ask", "rewrite"):
        if effect != key and _at(rule, key) is not None:
            yield document.problem((*path, key), f"is only for rules with effect: {key}")
    yield from _check_match(document, _at(rule, "match"), (*path, "match"))


def _check_match(document: Document, match: object, path: Path) -> Iterator[Problem]:
    """Bounds, parts that state nothing, and parts that can't hold."""
    left: list[tuple[object, Path, int]] = [(match, path, 0)]
    nodes = 0
    while left:
        node, place, depth = left.pop()
        nodes += 1
        if nodes > MATCH_NODES_LIMIT:
            message = f"holds more than {MATCH_NODES_LIMIT} matches; split it into several rules"
            yield document.problem(path, message)
            return
        if depth > MATCH_DEPTH_LIMIT:
            message = f"nests more than {MATCH_DEPTH_LIMIT} deep; split it into several rules"
            yield document.problem(place, message)
            continue
        if node == {}:
            yield document.problem(place, _STATES_NOTHING if depth else _WOULD_MATCH_ALL)
        if not isinstance(node, dict):
            continue
        if node.get("constructs") is not None and (
            beside := [key for key in _OF_COMMANDS if node.get(key) is not None]
        ):
            message = f"is no part of a command, so it can't hold beside {beside[0]!r}; "
            yield document.problem(
                (*place, "constructs"), f"{message}write a rule of its own, or use any"
            )
        for key in _PARTS:
            parts = node.get(key)
            if isinstance(parts, list):
                left += [(part, (*place, key, i), depth + 1) for i, part in enumerate(parts)]
            elif parts is not None:
                left.append((parts, (*place, key), depth + 1))


_WOULD_MATCH_ALL = "states no condition and would match all; use rules.default for that"
_STATES_NOTHING = "states no condition; leave it out"


def _at(data: object, key: str) -> object:
    return data.get(key) if isinstance(data, dict) else None
