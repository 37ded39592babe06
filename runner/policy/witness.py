"""Which words, paths and facts made a condition hold, for `explain`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from runner.model.rule import Match
from runner.policy.circumstances import Circumstances, agent_names
from runner.policy.conditions import argument, argument_could, path_globs
from runner.policy.folders import NamedPath
from runner.policy.globs import Glob, globs
from runner.policy.hold import Condition, Hold
from runner.policy.notation import option_name
from runner.policy.subject import Subject

_SHOWN = 5
"""Words that one condition tells of."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One condition of a rule, and what made it hold."""

    key: str
    """As in `match:`."""
    stated: str
    hold: Hold
    because: tuple[str, ...] = ()
    """Words, paths, names; empty where nothing of the request made it so."""
    parts: tuple[tuple[Reason, ...], ...] = ()


def reasons(
    match: Match, conditions: Sequence[Condition], subject: Subject, circumstances: Circumstances
) -> tuple[Reason, ...]:
    """The conditions of a match, as traced, each with what made it hold."""
    seen: Counter[str] = Counter()
    found = []
    for each in conditions:
        parts = {"any": match.any_of, "all": match.all_of, "not": match.none_of}.get(each.name)
        if parts is not None:
            told = tuple(
                reasons(part, inner, subject, circumstances)
                for part, inner in zip(parts, each.parts, strict=True)
            )
            found.append(Reason(each.name, "", each.hold, (), told))
            continue
        because = _because(match, each.name, seen[each.name], subject, circumstances)
        seen[each.name] += 1
        held = each.hold is not Hold.NO
        found.append(Reason(each.name, each.stated, each.hold, _few(because) if held else ()))
    return tuple(found)


def place_of(path: NamedPath) -> str:
    """Where a path is, or what is known of it."""
    if not path.dynamic:
        return " or ".join(path.places)
    if path.inside is not None:
        return f"what stands in {path.inside}"
    return f"{path.prefix}…{path.suffix}"


def _because(  # noqa: PLR0911  (one for each kind of condition)
    match: Match, key: str, number: int, subject: Subject, circumstances: Circumstances
) -> Iterable[str]:
    """`number`: which of the conditions of this key, for `args`."""
    match key:
        case "command":
            return [subject.name.text] if subject.name is not None else []
        case "args":
            return _words((match.args[number],), subject)
        case "any_args":
            return _words(match.any_args, subject)
        case "args_in_order":
            return _words(match.ordered_args, subject)
        case "paths" | "reads" | "writes":
            return _paths(getattr(match, key), getattr(subject, key), subject.workspace)
        case "hosts":
            patterns = globs(host.lower().rstrip(".") for host in match.hosts)
            return [h.text for h in subject.hosts if h.dynamic or _any(patterns, h.text)]
        case "environment" | "via":
            patterns = globs(getattr(match, key))
            return sorted(name for name in getattr(subject, key) if _any(patterns, name))
        case "constructs":
            return [subject.construct] if subject.construct is not None else []
        case _:
            return _of_circumstances(match, key, circumstances)


def _of_circumstances(match: Match, key: str, circumstances: Circumstances) -> Iterable[str]:
    who = circumstances.principal
    match key:
        case "agents":
            return [name for name in agent_names(who) if _any(globs(match.agents), name)]
        case "sessions" | "tenants" | "uids":
            value = getattr(who, key.removesuffix("s"))
            return [str(value)] if value is not None else []
        case "labels":
            labels = circumstances.labels or {}
            return [f"{n}={labels[n]}" for n, _ in match.labels if n in labels]
        case "hours":
            return [_time(circumstances.facts.now_s)]
        case "calls":
            return [_count(match, circumstances)]
        case _:  # a condition in CEL: all that it may look at
            return []


def _words(stated: Iterable[str], subject: Subject) -> list[str]:
    """Those that surely match, or else those that could."""
    patterns = globs(stated)
    options = tuple(each for each in patterns if option_name(each.pattern))
    following = subject.arguments[1:]
    told = [(word.text, word, patterns) for word in subject.arguments]
    told += [
        (f"{word.text} {value.text}", pair, options)
        for word, value, pair in zip(subject.arguments, following, subject.joined, strict=False)
        if pair is not None
    ]
    sure = [
        text
        for text, word, against in told
        if not word.dynamic and any(argument(each, word.text) for each in against)
    ]
    return sure or [
        text
        for text, word, against in told
        if word.dynamic and any(argument_could(each, word) for each in against)
    ]


def _paths(stated: Iterable[str], paths: Sequence[NamedPath], workspace: str | None) -> list[str]:
    patterns = path_globs(stated, workspace)
    sure = [
        place
        for path in paths
        if not path.dynamic
        for place in path.places
        if _any(patterns, place)
    ]
    return sure or [
        place_of(path)
        for path in paths
        if path.dynamic and any(each.could_match(path.prefix, path.suffix) for each in patterns)
    ]


def _any(patterns: Iterable[Glob], text: str) -> bool:
    return any(each.matches(text) for each in patterns)


def _time(now_s: float | None) -> str:
    if now_s is None:
        return "the time is not known"
    return datetime.fromtimestamp(now_s, UTC).strftime("%A %H:%M UTC")


def _count(match: Match, circumstances: Circumstances) -> str:
    stated = match.frequency
    key = (stated.of, stated.window_s) if stated is not None else None
    count = circumstances.facts.runs.get(key) if key is not None else None
    return "not counted" if count is None else f"{count} runs"


def _few(words: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(words))
    left = len(found) - _SHOWN
    return found if left <= 0 else (*found[:_SHOWN], f"and {left} more")
