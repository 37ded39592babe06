"""Who asks, when, and how often before: conditions that are the same for all that is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from runner.model.action import Action, Exec, Facts
from runner.model.principal import Principal
from runner.model.rule import CountOf, Frequency, Hours
from runner.policy.globs import Glob, glob, globs
from runner.policy.hold import Hold, Reading
from runner.policy.hours import CompiledHours
from runner.policy.subject import Subject

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(slots=True)
class Circumstances:
    """What an action's rules may depend on beside its words; made for one decision."""

    principal: Principal
    labels: Mapping[str, str] | None = None
    """None: there are none by the nature of the action."""
    profile: str | None = None
    facts: Facts = Facts()
    evaluated: dict[int, int] = field(default_factory=dict)
    """How much each costly condition (by its id) was asked already."""

    @classmethod
    def of(cls, action: Action) -> Circumstances:
        """Those of an action; of a connection, a request or a tool only the principal is known."""
        if isinstance(action, Exec):
            labels = dict(action.labels)
            return cls(action.principal, labels, action.profile, action.facts)
        return cls(action.principal)


class Agents:
    """`agents`: the agent's or its parent's name; for a narrow reading both."""

    __slots__ = ("_patterns", "key", "stated")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.key, self.stated = "agents", ", ".join(patterns)
        self._patterns = globs(patterns)

    def hold(self, _subject: Subject, circumstances: Circumstances, reading: Reading) -> Hold:
        """Surely or not."""
        names = agent_names(circumstances.principal)
        matched = [any(each.matches(name) for each in self._patterns) for name in names]
        return _sure(any(matched) if reading is Reading.WIDE else all(matched))


class OneOf:
    """`sessions`, `tenants`, `uids`: one of the principal's own fields."""

    __slots__ = ("_field", "_patterns", "key", "stated")

    def __init__(self, key: str, principal_field: str, patterns: Iterable[str | int]) -> None:
        texts = [str(each) for each in patterns]
        self.key, self.stated = key, ", ".join(texts)
        self._field = principal_field
        self._patterns = globs(texts)

    def hold(self, _subject: Subject, circumstances: Circumstances, _reading: Reading) -> Hold:
        """Surely or not; who has no session is in none."""
        value = getattr(circumstances.principal, self._field)
        return _sure(value is not None and any(g.matches(str(value)) for g in self._patterns))


class Labels:
    """`labels`: each is there with a value that its pattern matches."""

    __slots__ = ("_patterns", "key", "stated")

    def __init__(self, labels: tuple[tuple[str, str], ...]) -> None:
        self.key = "labels"
        self.stated = ", ".join(f"{name}: {pattern}" for name, pattern in labels)
        self._patterns: list[tuple[str, Glob]] = [(name, glob(each)) for name, each in labels]

    def hold(self, _subject: Subject, circumstances: Circumstances, reading: Reading) -> Hold:
        """Surely or not."""
        labels = circumstances.labels
        if labels is None:
            return reading.unknown
        return _sure(all(n in labels and each.matches(labels[n]) for n, each in self._patterns))


class Within:
    """`hours`: it is decided within one of these."""

    __slots__ = ("_hours", "key", "stated")

    def __init__(self, hours: tuple[Hours, ...]) -> None:
        """ValueError: a zone is unknown."""
        self.key, self.stated = "hours", ", ".join(map(_spelled, hours))
        self._hours = CompiledHours.of(hours)

    def hold(self, _subject: Subject, circumstances: Circumstances, reading: Reading) -> Hold:
        """Surely or not; as the reading says where the time is not known."""
        now_s = circumstances.facts.now_s
        within = self.contains(now_s)
        return reading.unknown if within is None else _sure(within)

    def contains(self, now_s: float | None) -> bool | None:
        """None: it can't be told."""
        return None if now_s is None else self._hours.contain(now_s)


class Often:
    """`calls`: so much was run before."""

    __slots__ = ("frequency", "key", "stated")

    def __init__(self, frequency: Frequency) -> None:
        self.key = "calls"
        window = f"{frequency.window_s:g} s"
        self.stated = f"at least {frequency.at_least} of {frequency.of.value} within {window}"
        self.frequency = frequency

    def hold(self, _subject: Subject, circumstances: Circumstances, reading: Reading) -> Hold:
        """Surely or not; as the reading says where it was not counted."""
        reached = self.reached(circumstances.facts.runs)
        return reading.unknown if reached is None else _sure(reached)

    def reached(self, runs: Mapping[tuple[CountOf, float], int]) -> bool | None:
        """None: it was not counted."""
        count = runs.get((self.frequency.of, self.frequency.window_s))
        return None if count is None else count >= self.frequency.at_least


def agent_names(principal: Principal) -> tuple[str, ...]:
    """The agent, and the one that started it."""
    if principal.parent is None:
        return (principal.agent,)
    return (principal.agent, principal.parent)


def _sure(holds: bool) -> Hold:
    return Hold.SURELY if holds else Hold.NO


def _spelled(hours: Hours) -> str:
    start, end = (f"{m // 60:02}:{m % 60:02}" for m in (hours.start_minute, hours.end_minute))
    days = " ".join(_WEEKDAYS[day] for day in hours.days)
    return f"{start} to {end} {hours.zone}{' on ' + days if days else ''}"
