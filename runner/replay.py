"""Decides what the log holds once more: under an old and a new policy, from the same events."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from runner.adapters import decision_points
from runner.analysis.wrappers.table import Table
from runner.audit.event import rfc3339
from runner.errors import PolicyError, ProfileError, RequestError
from runner.intake import read_script
from runner.model.decision import Decision
from runner.model.profile import Restrictions
from runner.model.request import ExecRequest, Program
from runner.policy.compare import (
    DECIDED,
    Change,
    Comparison,
    History,
    Logged,
    Undecidable,
    logged_decision,
    program_of,
)
from runner.ports import DecisionPoint
from runner.schema.policies import policy_texts
from runner.schema.profiles import load_profile
from runner.schema.rulesets import RuleSource, load_source, rule_files
from runner.stores.kept import KeptOutput
from runner.stores.reader import LogReader
from runner.workbench import UnderTest, under_test


@dataclass(slots=True)
class Side:
    """One of two policies: a profile under the layers in force, or layers over each profile."""

    sources: tuple[RuleSource, ...]
    above: tuple[Restrictions, ...]
    """Layers above a profile; those of policies are the policies themselves."""
    search: tuple[Path, ...]
    wrappers: Table | None = None
    """The table that programs are read by; None: the shipped one."""
    points: tuple[DecisionPoint, ...] = ()
    """What is asked beside the rules: those in force over a profile, or the policies' own."""
    _tested: dict[str, UnderTest | str] = field(default_factory=dict)

    @property
    def of_profile(self) -> bool:
        """Whether it is a profile."""
        return any(each.profile is not None for each in self.sources)

    @property
    def profiles(self) -> tuple[str, ...]:
        """What an event may name it by: its name, or a path that leads to its file."""
        return tuple(
            name
            for each in self.sources
            if each.profile is not None
            for name in (each.profile.name, each.profile.source)
        )

    def policy(self, logged: Logged) -> UnderTest:
        """What holds for a logged decision; Undecidable: its profile can't be read now."""
        name = "" if self.of_profile else logged.profile
        if name not in self._tested:
            try:
                self._tested[name] = self._load(name)
            except ProfileError:
                self._tested[name] = f"the profile '{name}' can't be read now"
        tested = self._tested[name]
        if isinstance(tested, str):
            raise Undecidable(tested)
        return tested

    def _load(self, name: str) -> UnderTest:
        if self.of_profile:
            profile, above = None, self.above
        else:
            profile, above = load_profile(name, self.search), ()
        return under_test(
            self.sources,
            above=above,
            profile=profile,
            wrappers=self.wrappers,
            points=self.points,
        )


def side(
    target: str,
    above: Sequence[Restrictions],
    search: Sequence[Path],
    wrappers: Table | None = None,
    points: Sequence[DecisionPoint] = (),
) -> Side:
    """A profile, a policy file, or a folder of policy files; PolicyError: there is none in it.

    `above`, `points`: the layers in force, and what is asked beside them, over a profile.
    """
    path = Path(target)
    texts = policy_texts(path)
    names = [] if texts else [target]
    if path.is_dir():
        names = [str(each) for each in rule_files(path)]
    if not names and not texts:
        raise PolicyError(f"the folder {target} holds no file of rules; name one that does")
    sources = tuple(load_source(name, search) for name in names)
    if len(sources) > 1 and any(each.profile is not None for each in sources):
        raise PolicyError(f"the folder {target} holds profiles; name the one that is meant")
    of_profile = any(each.profile is not None for each in sources)
    beside = tuple(points) if of_profile else decision_points(texts)
    return Side(sources, tuple(above), tuple(search), wrappers, beside)


def compare(
    log: LogReader,
    old: Side,
    new: Side,
    *,
    since_s: float,
    profiles: Sequence[str] = (),
    home: Path | None = None,
) -> Comparison:
    """Decide what was decided since `since_s` (seconds since the epoch) under both policies.

    `profiles`: globs over names and absolute paths of the profiles that decisions were asked for
    under; without any, those of the two sides, and all where the sides are policies.
    `home`: the state folder, where programs are kept that the log does not hold. PolicyError: a
    profile is compared with a policy.
    """
    if old.of_profile is not new.of_profile:
        raise PolicyError(
            "one is a profile and the other a policy; compare two profiles or two policies"
        )
    literally = {*old.profiles, *new.profiles}
    history, found = History(), Comparison()
    for logged in decisions(log):
        if logged.at_s >= since_s:
            meant = (
                any(fnmatchcase(logged.profile, pattern) for pattern in profiles)
                if profiles
                else not old.of_profile
                or not literally.isdisjoint((logged.profile, os.path.realpath(logged.profile)))
            )
            if meant:
                _compare(logged, (old, new), history, found, home)
            else:
                found.others[logged.profile] += 1
        history.take(logged)
    return found


def decisions(log: LogReader, since_s: float = -math.inf) -> Iterator[Logged]:
    """The decisions of a log since then, in its order; StateError: one is not as it should be."""
    since = rfc3339(since_s) if since_s > 0 else ""
    for event in log.events():
        if event.kind in DECIDED and event.time >= since:
            yield logged_decision(json.loads(event.body))


@dataclass(frozen=True, slots=True)
class Again:
    """A logged run, to be decided again."""

    logged: Logged
    request: ExecRequest
    history: History
    """Of what ran before it."""


def again(log: LogReader, run_id: str, home: Path) -> Again:
    """A run as it was asked for; RequestError: there is none, or its program was not kept."""
    history = History()
    for logged in decisions(log):
        if logged.run_id == run_id:
            try:
                program = program_of(logged, partial(_contents, home))
            except Undecidable as why:
                raise RequestError(f"{run_id} can't be decided again: {why}") from None
            return Again(logged, logged.request(program), history)
        history.take(logged)
    raise RequestError(f"the log knows no run {run_id!r}; `runner audit show` lists those of late")


def _compare(
    logged: Logged,
    sides: tuple[Side, Side],
    history: History,
    found: Comparison,
    home: Path | None,
) -> None:
    try:
        program = program_of(logged, partial(_contents, home))
        both = [_decide(logged, program, each.policy(logged), history) for each in sides]
    except Undecidable as why:
        found.undecidable[str(why)] += 1
        return
    found.compared += 1
    before, after = both
    if (before.effect, before.permits) != (after.effect, after.permits):
        found.changes.append(Change(logged, before, after))


def _decide(logged: Logged, program: Program, tested: UnderTest, history: History) -> Decision:
    facts = history.facts(logged, tested.policy.counted)
    return tested.decide(logged.request(program), facts)


def _contents(home: Path | None, logged: Logged) -> Iterator[bytes]:
    """What may be a logged program: what was kept of the run, and a script's file."""
    if home is not None and logged.run_id is not None:
        kept = KeptOutput(home / "runs").read(logged.run_id, "program")
        if kept is not None:
            yield kept
    path = logged.program.get("path")
    if path is not None:
        try:
            yield read_script(Path(path), (), "sh").content
        except RequestError:
            return  # it is gone, or none that could be run now: then it is not the one
