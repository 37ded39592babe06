"""Runs a case of `cases/` against a target, and says what came of it.

A case is a program that runs in a sandbox: its attack first, then an honest run, then its twin.
What is said of it is four things: the attack was denied, the log tells of it, the next run works,
and what the twin does, which is the same thing granted, is allowed. `attacks.py` prints them as a
table, `test_cases.py` insists on them.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from case_files import Case
from case_stage import OWNER_IN_PLACE, SECRET, UNHELD_IN_PLACE, Stage, staged
from conftest import docker_missing, native_missing

from runner import Outcome, Runner
from runner.caller import Caller
from runner.intake import build_request
from runner.model.request import ExecRequest
from runner.streams import NullSink
from runner.testing.backend_harness import expect

HONEST = "printf old > $TMPDIR/old && cat $TMPDIR/old && echo new > made && echo fine"
COLUMNS = ("denied", "recorded", "next run", "twin")


@dataclass(frozen=True, slots=True)
class Target:
    """What cases run against: a backend, and what its profile has other than the default one."""

    name: str
    backend: str
    base: str = "agent"
    """The profile that cases run with."""
    changes: Mapping[str, object] = field(default_factory=dict)
    """Keys of a profile that extends it."""
    namespaces: bool = True
    """The tier has them; else places, names and numbers of processes are the machine's."""
    in_place: bool = False
    """The workspace is the host's own folder, so what a case does there is there: around it all
    must stand as before, what was changed is not listed, and nothing holds its size."""

    def profile(self, folder: Path) -> str:
        """Its name, or a file of its own in `folder`."""
        if not self.changes:
            return self.base
        file = folder / f"{self.name}.yaml"
        stated = {"name": self.name, "extends": self.base, **self.changes}
        file.write_text(yaml.safe_dump(stated, sort_keys=False))
        return str(file)


TARGETS = (
    Target("native", "native"),
    Target("docker", "docker"),
    Target("process", "native", "agent-process", namespaces=False),
    Target("copy", "native", changes={"workspace": "copy"}),
    Target(
        "bind",
        "native",
        changes={
            "workspace": "bind",
            "limits": dict.fromkeys(UNHELD_IN_PLACE, "unlimited"),
        },
        in_place=True,
    ),
)
"""A tier or a workspace mode more is a line here."""


@cache
def missing(name: str) -> str | None:
    """Why the target of this name can't be had on this machine, or None."""
    (target,) = [one for one in TARGETS if one.name == name]
    if target.backend == "docker":
        return docker_missing()
    with tempfile.TemporaryDirectory() as folder:
        owner = OWNER_IN_PLACE if target.in_place else None
        return native_missing(target.profile(Path(folder)), owner)


def run_case(case: Case, target: Target, runner: Runner, folder: Path) -> dict[str, str]:
    """COLUMNS -> `yes`, `NO: ` what is wrong, or a gap that is known.

    `folder`: an empty one for the stage.
    """
    profile = target.profile(folder)
    found = dict.fromkeys(COLUMNS, "yes")
    for number, mode in enumerate(case.stated.get("ORDER", ("attack", "twin"))):
        place = folder / str(number)
        place.mkdir()
        with staged(place, case, in_place=target.in_place, namespaces=target.namespaces) as stage:
            _run_mode(mode, case, target, runner, stage, profile, found)
    return found


def _run_mode(
    mode: str,
    case: Case,
    target: Target,
    runner: Runner,
    stage: Stage,
    profile: str,
    found: dict[str, str],
) -> None:
    outcome = _execute(runner, stage.request(mode, profile))
    column = "denied" if mode == "attack" else "twin"
    expected = case.expected(mode, outcome)
    if target.in_place:
        expected = {name: value for name, value in expected.items() if "changes" not in name}
    gaps = case.stated.get("GAPS", {}).get(target.name, {})
    reached: set[str] = set()
    _note(found, column, lambda: reached.update(judge(outcome, expected, gaps)))
    _note(found, column, lambda: reached.update(_unharmed(stage, gaps)))
    _note(found, "recorded", lambda: expect_told(runner, outcome))
    if found[column] == "yes" and reached:
        found[column] = f"gap of {target.name}: {'; '.join(sorted(reached))}"
    if mode == "twin":
        return
    if found["denied"] == "yes":
        found["denied"] = case.gap(outcome) or "yes"
    honest = build_request(shell=HONEST, cwd=stage.workspace, profile=profile)
    after = _execute(runner, honest)
    listed = [] if target.in_place else ["made"]
    _note(found, "next run", lambda: _expect_honest(after, listed))


def _unharmed(stage: Stage, gaps: Mapping[str, str]) -> set[str]:
    """Why it is known, where something was changed on the host that is stated as a gap."""
    try:
        stage.expect_unharmed()
    except AssertionError as error:
        known = {why for start, why in gaps.items() if str(error).startswith(f"{start};")}
        if not known:
            raise
        return known
    return set()


def _execute(runner: Runner, request: ExecRequest) -> Outcome:
    return runner.execute(request, Caller(None, NullSink(), NullSink()))


def _note(found: dict[str, str], column: str, check: Callable[[], None]) -> None:
    try:
        check()
    except AssertionError as error:
        if found[column] == "yes":
            found[column] = f"NO: {error}"


def _expect_honest(outcome: Outcome, listed: list[str]) -> None:
    said = (outcome.exit_code, outcome.stdout.data, [change.path for change in outcome.changes])
    expect(said == (0, b"oldfine\n", listed), f"{said} {outcome.failure}")


def judge(
    outcome: Outcome, stated: dict[str, Any], gaps: Mapping[str, str] = MappingProxyType({})
) -> set[str]:
    """It ended as stated, and found nothing wrong in something that it really tried.

    `gaps`: how a line that says what is wrong may begin -> why. Those that were met are returned.
    """
    said, cried = (
        output.data.decode(errors="replace").replace("\r\n", "\n")
        for output in (outcome.stdout, outcome.stderr)
    )
    words = f"{said[-3000:]}\n{cried[-3000:]}\n{outcome.failure} {outcome.degraded}"
    wanted = {"termination": "exited"} | stated
    if wanted["termination"] == "exited":
        wanted.setdefault("exit_code", 0)
    changes = {change.path: change.type for change in outcome.changes}
    listed = wanted.pop("changes", {})
    expect(listed.items() <= changes.items(), f"changes {changes!r:.500}: {words}")
    digest = hashlib.sha256(SECRET).hexdigest()
    expect(all(one.sha256 != digest for one in outcome.changes), "the secret was collected")
    ended = {name: getattr(outcome, name) for name in wanted}
    wrong = re.findall(r"^WRONG .*", said, re.MULTILINE)
    known = {
        line: why for line in wrong for start, why in gaps.items() if line[6:].startswith(start)
    }
    wrong = [line for line in wrong if line not in known]
    expect(not wrong, f"{'; '.join(wrong[:5])}")
    expect(ended == wanted, f"ended as {ended}, not {wanted}: {words}")
    tried = re.search(r"^TRIED [1-9]", said, re.MULTILINE)
    expect(tried is not None, f"nothing was tried: {words}")
    expect(SECRET not in outcome.stdout.data + outcome.stderr.data, "the secret was told")
    return set(known.values())


def expect_told(runner: Runner, outcome: Outcome) -> None:
    """The log has the run from its decision to its end, and how it ended, and no secret."""
    events = list(runner.store.events(outcome.run_id))
    kinds = [str(event.kind) for event in events]
    expect(kinds == ["run.decided", "run.started", "run.ended"], f"the log has {kinds}")
    expect(all(SECRET not in event.body for event in events), "the secret is in the log")
    told = json.loads(events[-1].body)["data"]
    ended = (outcome.termination, outcome.limit, outcome.exit_code, len(outcome.changes))
    logged = (told["termination"], told["limit"], told["exit_code"], told["changes"]["count"])
    expect(logged == ended, f"the log tells {logged}, not {ended}")
