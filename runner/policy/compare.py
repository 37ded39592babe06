"""Decisions of the log, made again: what another policy would have said. Pure.

An event holds what was asked for, who asked and when. What it does not hold, the content of a
script or the rest of a very long command line, may have been kept; else it is counted.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runner.audit.canonical import canonical, unescape
from runner.errors import StateError
from runner.model.action import Facts
from runner.model.decision import STRICTNESS, Decision, Effect
from runner.model.event import EventKind
from runner.model.principal import Principal
from runner.model.request import Argv, ExecRequest, Hold, Program, Script, ShellText
from runner.model.rule import CountOf

DECIDED = frozenset({EventKind.RUN_DECIDED.value, EventKind.DECISION_CHECKED.value})
"""Kinds of events that hold a decision."""
_PROGRAM_KEYS = {
    "argv": ("argv", "sha256"),
    "shell": ("text", "language", "sha256"),
    "session": ("lifetime_s", "idle_s", "sha256"),
    "script": ("path", "language", "interpreter", "name", "args", "sha256"),
}
"""What is read of a program, by its kind."""


class Undecidable(ValueError):  # noqa: N818  (it is a result: why this one is left out)
    """Why a decision can't be made again, in one clause."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision as it stands in the log."""

    seq: int
    run_id: str | None
    at_s: float
    principal: Principal
    profile: str
    directory: str
    environment: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    program: Mapping[str, Any]
    decision: Mapping[str, Any]
    links: Mapping[str, str] = field(default_factory=dict)
    """Of the workspace, as they were when it was decided."""

    @property
    def effect(self) -> Effect:
        """What was decided."""
        return Effect(self.decision["effect"])

    @property
    def enforced(self) -> bool:
        """False: it was only observed."""
        return bool(self.decision["enforced"])

    @property
    def shown(self) -> str:
        """The command line, or the script's name and arguments."""
        if self.program["kind"] == "argv":
            return " ".join(self.program["argv"])
        if self.program["kind"] == "shell":
            return str(self.program["text"])
        if self.program["kind"] == "session":
            return "a session"
        return " ".join([self.program["name"], *self.program["args"]])

    def request(self, program: Program) -> ExecRequest:
        """As it was asked for; values of variables are not in the log and have no say."""
        return ExecRequest(
            principal=self.principal,
            program=program,
            directory=self.directory,
            profile=self.profile,
            environment=tuple((name, "") for name in self.environment),
            labels=self.labels,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A logged decision that another policy would have made otherwise."""

    logged: Logged
    old: Decision
    new: Decision

    @property
    def tighter(self) -> bool:
        """Whether the new effect is the stricter one."""
        return STRICTNESS[self.new.effect] > STRICTNESS[self.old.effect]


@dataclass(slots=True)
class Comparison:
    """What came of deciding again."""

    changes: list[Change] = field(default_factory=list)
    compared: int = 0
    """Decisions that were made again under both policies."""
    undecidable: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Those that could not be, by the reason."""
    others: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Those under other profiles, by the profile, which were left out."""


def logged_decision(event: Mapping[str, Any]) -> Logged:
    """An event of `DECIDED` as it was written; StateError: it is none."""
    try:
        data, principal = _unescaped(event["data"]), _unescaped(event["principal"])
        logged = Logged(
            seq=event["seq"],
            run_id=event["run"],
            at_s=datetime.fromisoformat(event["time"]).timestamp(),
            principal=Principal(**principal),
            profile=data["profile"],
            directory=data["directory"],
            environment=tuple(data["environment"]),
            labels=tuple(data["labels"].items()),
            program=data["program"],
            decision=data["decision"],
            links=dict(data.get("links", ())),
        )
        # What is used later is looked at now, so that a strange event is refused here.
        _ = logged.effect, logged.enforced, logged.shown, list(_observed_rules(logged))
        _ = list(_refusing(logged.decision["rules"]))
        _ = [logged.program[key] for key in _PROGRAM_KEYS[logged.program["kind"]]]
        _ = logged.shown.encode("utf-8", "surrogateescape")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        seq = event.get("seq", "?")
        raise StateError(
            f"event {seq} does not hold a decision as this version writes it "
            f"({type(error).__name__}); `runner audit verify` tells whether the log is whole"
        ) from None
    return logged


def program_of(logged: Logged, contents: Callable[[Logged], Iterable[bytes]]) -> Program:
    """The program that a decision was about, to the byte; Undecidable: nothing holds it.

    `contents`: where the log does not hold it whole, what may: what was kept of the run, a script's
    file as it is now. It counts if its digest is the logged one.
    """
    program = logged.program
    if program["kind"] == "session":
        return Hold(program["lifetime_s"], program["idle_s"])
    held = _held(program)
    if held is None or not _is_it(held, program):
        held = next((each for each in contents(logged) if _is_it(each, program)), None)
    if held is None:
        raise Undecidable(_why_not(program))
    if program["kind"] == "argv":
        return Argv(tuple(_unescaped(json.loads(held))))
    if program["kind"] == "shell":
        return ShellText(held.decode("utf-8", "surrogateescape"), program["language"])
    return Script(
        content=held,
        language=program["language"],
        interpreter=tuple(program["interpreter"]),
        name=program["name"],
        path=program["path"],
        args=tuple(program["args"]),
    )


def _held(program: Mapping[str, Any]) -> bytes | None:
    """What the log itself holds, as its digest is over it; None: nothing of a script's content."""
    if program["kind"] == "argv":
        return canonical(list(program["argv"]))
    if program["kind"] == "shell":
        return str(program["text"]).encode("utf-8", "surrogateescape")
    return None


def _is_it(content: bytes, program: Mapping[str, Any]) -> bool:
    return bool(hashlib.sha256(content).hexdigest() == program["sha256"])


def _why_not(program: Mapping[str, Any]) -> str:
    if str(program["sha256"]).startswith("[redacted:"):
        return "it held a secret, which is not kept"
    if program["kind"] != "script":
        return "the log holds only the beginning of a very long command line, and no more was kept"
    if program["path"] is None:
        return "a script's content was not kept, and it had no file"
    return "a script's content was not kept, and its file is gone or changed"


class History:
    """Who ran what when, for rules that count earlier runs; fed in the log's order."""

    def __init__(self) -> None:
        self._begun: dict[tuple[CountOf, str | int | None], list[float]] = defaultdict(list)

    def facts(self, logged: Logged, counted: Iterable[tuple[CountOf, float]]) -> Facts:
        """As they were when it was decided."""
        runs = {}
        for of, window_s in counted:
            begun = self._begun.get(_key(logged.principal, of), [])
            runs[of, window_s] = len(begun) - bisect_left(begun, logged.at_s - window_s)
        return Facts(logged.at_s, runs, logged.links)

    def take(self, logged: Logged) -> None:
        """A run that began; a decision that was only asked for is none."""
        if logged.run_id is None:
            return
        principal = logged.principal
        for key in {_key(principal, of) for of in CountOf}:
            if key != _NOBODY:
                insort(self._begun[key], logged.at_s)  # a clock may have been set back


_NOBODY = (CountOf.PARENT, None)
"""Whose runs a principal without a parent has beside its own."""


def _key(principal: Principal, of: CountOf) -> tuple[CountOf, str | int | None]:
    """Whose runs these are; an agent's are the same whether it asks or one that it started."""
    match of:
        case CountOf.AGENT:
            return CountOf.AGENT, principal.agent
        case CountOf.PARENT:
            return (CountOf.AGENT, principal.parent) if principal.parent is not None else _NOBODY
        case CountOf.SESSION:
            return of, principal.session
        case CountOf.TENANT:
            return of, principal.tenant
        case CountOf.UID:
            return of, principal.uid
        case CountOf.ALL:
            return of, None


@dataclass(frozen=True, slots=True)
class Observed:
    """A rule that was only observed, and what it would have refused."""

    layer: str
    rule: str
    effect: Effect
    times: int
    agents: tuple[str, ...]
    """Sorted."""
    matched: tuple[tuple[str, int], ...]
    """Texts that it matched, each with how often, the most frequent first."""
    example: Logged
    """The latest."""


def observed(decisions: Iterable[Logged]) -> list[Observed]:
    """What would have been refused, asked about or rewritten if it had been enforced, by rule.

    The most frequent first. What was refused all the same, by a rule that is enforced, does not
    count.
    """
    by_rule: dict[tuple[str, str, Effect], list[Logged]] = defaultdict(list)
    texts: dict[tuple[str, str, Effect], Counter[str]] = defaultdict(Counter)
    for logged in decisions:
        for key, matched in _would_have(logged).items():
            by_rule[key].append(logged)
            texts[key].update(matched)
    found = [
        Observed(
            layer=layer,
            rule=rule,
            effect=effect,
            times=len(those),
            agents=tuple(sorted({each.principal.agent for each in those})),
            matched=tuple(texts[layer, rule, effect].most_common()),
            example=those[-1],
        )
        for (layer, rule, effect), those in by_rule.items()
    ]
    return sorted(found, key=lambda each: (-each.times, each.layer, each.rule, each.effect))


def is_observed(logged: Logged) -> bool:
    """Whether something would have been refused that was only observed."""
    return bool(_would_have(logged))


def _would_have(logged: Logged) -> dict[tuple[str, str, Effect], list[str]]:
    """The rules that would have made it stricter, each with the texts that it matched."""
    decided = logged.effect if logged.enforced else Effect.ALLOW
    found: dict[tuple[str, str, Effect], list[str]] = {}
    for layer, rule, effect, matched in _observed_rules(logged):
        if STRICTNESS[effect] > STRICTNESS[decided]:
            found.setdefault((layer, rule, effect), []).extend([matched] if matched else [])
    return found


def _observed_rules(logged: Logged) -> Iterator[tuple[str, str, Effect, str]]:
    """The rules that were only observed: of a profile that is, or themselves."""
    rules = [*logged.decision.get("observed", ())]
    if not logged.enforced:
        rules += logged.decision["rules"]
    return _refusing(rules)


def _refusing(rules: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, Effect, str]]:
    for rule in rules:
        if (effect := Effect(rule["effect"])) is not Effect.ALLOW:
            # Earlier versions did not record what a rule matched.
            yield rule["layer"], rule["id"], effect, str(rule.get("matched", ""))


def _unescaped(value: Any) -> Any:
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, list):
        return [_unescaped(each) for each in value]
    if isinstance(value, dict):
        return {unescape(key): _unescaped(each) for key, each in value.items()}
    return value
