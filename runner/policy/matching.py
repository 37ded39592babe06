"""Does a rule match a subject: surely, possibly, or not (`runner.model.rule.Match` says when)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from runner.errors import PolicyError
from runner.model.decision import Effect
from runner.model.rule import Match, Rule
from runner.policy.cel import When
from runner.policy.circumstances import Agents, Circumstances, Labels, Often, OneOf, Within
from runner.policy.conditions import (
    AnyArgument,
    Hosts,
    InOrder,
    Names,
    OfAny,
    Paths,
    Witness,
    together,
)
from runner.policy.hold import Condition, Hold, Reading
from runner.policy.rewriting import CompiledRewrite
from runner.policy.subject import Kind, Subject

DEPTH_LIMIT = 32
"""Matches in each other; the schema allows fewer."""


class Leaf(Protocol):
    """A condition that the words of a command do not bring together with others."""

    key: str
    stated: str

    def hold(self, subject: Subject, circumstances: Circumstances, reading: Reading) -> Hold:
        """How far it holds."""


class OnWords(Protocol):
    """A condition that dynamic words may satisfy, but not two of them by the same word."""

    key: str
    stated: str

    def witness(self, subject: Subject) -> Witness:
        """What satisfies it, read widely."""

    def narrow(self, subject: Subject) -> Hold:
        """How far it holds, read narrowly."""


class Node:
    """One match of the tree that a rule states."""

    __slots__ = ("all_of", "any_of", "match", "none_of", "plain", "words")

    def __init__(self, match: Match, *, allows: bool, depth: int = 0) -> None:
        """`allows`: it stands in a rule that allows. ValueError: something can't be compiled."""
        if depth > DEPTH_LIMIT:
            raise ValueError(f"nests more than {DEPTH_LIMIT} deep")
        self.match = match
        self.plain: tuple[Leaf, ...] = tuple(_plain(match, allows=allows))
        self.words: tuple[OnWords, ...] = tuple(_words(match))
        parts = [
            tuple(Node(part, allows=allows, depth=depth + 1) for part in each)
            for each in (match.any_of, match.all_of, match.none_of)
        ]
        self.any_of, self.all_of, self.none_of = parts

    def hold(self, subject: Subject, circumstances: Circumstances, reading: Reading) -> Hold:
        """How far all that it states holds."""
        hold = Hold.SURELY
        for leaf in self.plain:
            found = leaf.hold(subject, circumstances, reading)
            if found is Hold.NO:
                return Hold.NO
            hold = min(hold, found)
        if self.words:
            found = self._on_words(subject, reading)
            if found is Hold.NO:
                return Hold.NO
            hold = min(hold, found)
        if self.any_of:
            best = Hold.NO
            for part in self.any_of:
                best = max(best, part.hold(subject, circumstances, reading))
                if best is Hold.SURELY:
                    break
            if best is Hold.NO:
                return Hold.NO
            hold = min(hold, best)
        for part in self.all_of:
            hold = min(hold, part.hold(subject, circumstances, reading))
            if hold is Hold.NO:
                return Hold.NO
        for part in self.none_of:
            hold = min(hold, _opposite(part.hold(subject, circumstances, reading.other)))
            if hold is Hold.NO:
                return Hold.NO
        return hold

    def _on_words(self, subject: Subject, reading: Reading) -> Hold:
        if reading is Reading.NARROW:
            hold = Hold.SURELY
            for each in self.words:
                hold = min(hold, each.narrow(subject))
                if hold is Hold.NO:
                    break
            return hold
        pending = []
        for each in self.words:
            witness = each.witness(subject)
            if not witness.sure:
                if not witness.possible:
                    return Hold.NO
                pending.append(witness)
        if not pending:
            return Hold.SURELY
        return Hold.POSSIBLY if together(pending, subject) else Hold.NO

    def conditions(
        self, subject: Subject, circumstances: Circumstances, reading: Reading
    ) -> Iterator[Condition]:
        """Each stated condition by itself."""
        for leaf in self.plain:
            hold = leaf.hold(subject, circumstances, reading)
            yield Condition(leaf.key, leaf.stated, hold)
        for each in self.words:
            yield Condition(each.key, each.stated, _hold_of(each, subject, reading))
        for key, parts in (("any", self.any_of), ("all", self.all_of), ("not", self.none_of)):
            if parts:
                yield _composite(key, parts, subject, circumstances, reading)

    def states(self, *names: str) -> bool:
        """Whether it, or a part of it, states one of these fields of `Match`."""
        parts = (*self.any_of, *self.all_of, *self.none_of)
        return any(getattr(self.match, name) for name in names) or any(
            part.states(*names) for part in parts
        )


class CompiledRule:
    """A rule with its patterns compiled once."""

    __slots__ = ("_reading", "concerns", "rewrite", "rule", "tree")

    def __init__(self, rule: Rule) -> None:
        """PolicyError: it states what can't be compiled."""
        allows = rule.effect is Effect.ALLOW
        try:
            self.tree = Node(rule.match, allows=allows)
        except ValueError as error:
            raise PolicyError(f"rule '{rule.id}': {error}") from None
        if (rule.effect is Effect.REWRITE) is (rule.rewrite is None):
            raise PolicyError(f"rule '{rule.id}': what to use instead is for effect rewrite alone")
        self.rule = rule
        self.rewrite = CompiledRewrite(rule.rewrite) if rule.rewrite is not None else None
        self.concerns = _concerns(self.tree)
        """The kinds of subjects that it speaks about."""
        self._reading = Reading.NARROW if allows else Reading.WIDE

    def holds(self, subject: Subject, circumstances: Circumstances) -> Hold:
        """How far this rule matches the subject: for an `allow` surely or not."""
        if subject.kind not in self.concerns:
            return Hold.NO
        hold = self.tree.hold(subject, circumstances, self._reading)
        if self._reading is Reading.NARROW:
            return hold if hold is Hold.SURELY else Hold.NO
        if hold is Hold.POSSIBLY and subject.advice:
            return Hold.NO
        return min(hold, Hold.POSSIBLY) if subject.doubtful else hold

    def conditions(self, subject: Subject, circumstances: Circumstances) -> tuple[Condition, ...]:
        """Each condition that it states, and how far that holds by itself."""
        return tuple(self.tree.conditions(subject, circumstances, self._reading))


def _plain(match: Match, *, allows: bool) -> Iterator[Leaf]:
    if match.commands:
        yield Names(match.commands, in_doubt=Hold.POSSIBLY if allows else Hold.NO)
    if match.via:
        yield OfAny("via", match.via, lambda subject: subject.via)
    if match.environment:
        yield OfAny("environment", match.environment, lambda subject: subject.environment)
    if match.constructs:
        yield OfAny("constructs", match.constructs, _construct)
    if match.agents:
        yield Agents(match.agents)
    if match.sessions:
        yield OneOf("sessions", "session", match.sessions)
    if match.tenants:
        yield OneOf("tenants", "tenant", match.tenants)
    if match.uids:
        yield OneOf("uids", "uid", match.uids)
    if match.labels:
        yield Labels(match.labels)
    if match.hours:
        yield Within(match.hours)
    if match.frequency is not None:
        yield Often(match.frequency)
    if match.when is not None:
        yield When(match.when)


def _words(match: Match) -> Iterator[OnWords]:
    for pattern in match.args:
        yield AnyArgument("args", (pattern,))
    if match.any_args:
        yield AnyArgument("any_args", match.any_args)
    if match.ordered_args:
        yield InOrder(match.ordered_args)
    if match.paths:
        yield Paths("paths", match.paths, lambda subject: subject.paths)
    if match.reads:
        yield Paths("reads", match.reads, lambda subject: subject.reads)
    if match.writes:
        yield Paths("writes", match.writes, lambda subject: subject.writes)
    if match.hosts:
        yield Hosts(match.hosts)


def _construct(subject: Subject) -> tuple[str, ...]:
    return (subject.construct,) if subject.construct is not None else ()


def _concerns(tree: Node) -> frozenset[Kind]:
    """What a rule speaks about: only what it states can be true of.

    Findings outside of commands have paths and hosts, constructs a name. So a rule on `not` some
    commands is none on every file that a script opens. A connection has neither command nor file.
    """
    kinds = {Kind.COMMAND}
    if tree.states("paths", "reads", "writes", "hosts"):
        kinds.add(Kind.FINDING)
    if tree.states("constructs"):
        kinds.add(Kind.CONSTRUCT)
    of_a_process = ("commands", "args", "any_args", "ordered_args", "reads", "writes",
                    "environment", "via", "constructs")  # fmt: skip
    if tree.states("hosts") and not tree.states(*of_a_process):
        kinds.add(Kind.NETWORK)
    return frozenset(kinds)


def _opposite(hold: Hold) -> Hold:
    return Hold(Hold.SURELY - hold)


def _hold_of(each: OnWords, subject: Subject, reading: Reading) -> Hold:
    if reading is Reading.NARROW:
        return each.narrow(subject)
    witness = each.witness(subject)
    return Hold.SURELY if witness.sure else Hold(int(witness.possible))


def _composite(
    key: str,
    parts: tuple[Node, ...],
    subject: Subject,
    circumstances: Circumstances,
    reading: Reading,
) -> Condition:
    inner = reading.other if key == "not" else reading
    holds = [part.hold(subject, circumstances, inner) for part in parts]
    combined: dict[str, Callable[[], Hold]] = {
        "any": lambda: max(holds),
        "all": lambda: min(holds),
        "not": lambda: _opposite(max(holds)),
    }
    told = tuple(tuple(part.conditions(subject, circumstances, inner)) for part in parts)
    return Condition(key, "", combined[key](), told)
