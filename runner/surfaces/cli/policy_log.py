"""`runner policy diff` and `runner policy observed`: rules held against what the log holds."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import RequestError

if TYPE_CHECKING:
    from runner.model.decision import Decision
    from runner.policy.compare import Change, Comparison, Logged, Observed
    from runner.stores.reader import LogReader

_DAY_S = 86_400
_COMMAND_WIDTH = 44
"""With the columns beside it a line has about 100 characters."""
_AGENTS_SHOWN = 5
_TEXTS_SHOWN = 5

DIFF_HELP = """Which logged decisions another policy would have made otherwise.

\b
  runner policy diff agent ./team.yaml           the profile agent, and one that extends it
  runner policy diff old.yaml new.yaml           two versions of a profile, or of a policy
  runner policy diff /etc/runner/policy.d ./new  two folders of policies
  runner policy diff agent locked --since 30d --profile 'team*'

What the log holds of the last days is decided again, under OLD and under NEW, with the agent, the
labels, the time and the earlier runs of then. Nothing runs.

Two profiles are compared under the policy layers in force, for what was asked for under either of
them; --profile takes a glob over other profiles' names. Two policies are compared over whatever
profile each decision was made under. Policies in Cedar and Rego are asked too: a file or those in
the folder, over a profile those in force.

The log does not hold the content of scripts: what was kept of a run stands beside its output, up to
the setting keep_program_bytes; else they are decided again if their file is still there and
unchanged. Those that can't be are counted, with the reason.

Exit code 0: nothing would change; 1: something would; 2: a file is wrong.
"""
OBSERVED_HELP = """What would have been refused by rules that are only observed.

\b
  runner policy observed                         of the last seven days
  runner policy observed --since 30d --agent builder

A rule with `observe: true`, a policy file with `observe: true` at its head, and a profile with
`rules: {mode: observe}` decide and record, and refuse nothing. This lists what they would have
refused, asked about or rewritten: each rule, how often, for which agents, which texts it matched,
with the latest command as an example. What an enforced rule refused all the same is left out. Make
the rules right by that, then enforce them.
"""
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="How far back: 12h, 7d, or unlimited.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("diff", help=DIFF_HELP)(diff)
    app.command("observed", help=OBSERVED_HELP)(observed)


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    since: Since = "7d",
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", metavar="GLOB", help="Only decisions under these profiles."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decide again; see DIFF_HELP."""
    from runner.adapters import (  # noqa: PLC0415
        points_in_force,
        policy_in_force,
        wrappers_in_force,
    )
    from runner.replay import compare, side  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    search, above = settings.profile_dirs.value, policy_in_force(settings)
    wrappers = wrappers_in_force(settings)
    points = points_in_force(settings)
    sides = [side(target, above, search, wrappers, points) for target in (old, new)]
    since_s = _since(since)
    home = Path(settings.home.value)
    found = compare(_log(), *sides, since_s=since_s, profiles=profile or (), home=home)
    if as_json:
        print(json.dumps(_diff_document(found), indent=2))
    else:
        _print_diff(found, since)
    raise typer.Exit(1 if found.changes else 0)


def observed(
    since: Since = "7d",
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="ID", help="Only this agent's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What would have been refused; see OBSERVED_HELP."""
    from runner.policy.compare import is_observed  # noqa: PLC0415
    from runner.policy.compare import observed as by_rule  # noqa: PLC0415
    from runner.replay import decisions  # noqa: PLC0415

    logged = [
        each
        for each in decisions(_log(), _since(since))
        if agent in (None, each.principal.agent) and is_observed(each)
    ]
    rules = by_rule(logged)
    if as_json:
        document = {"decisions": len(logged), "rules": [_observed_document(r) for r in rules]}
        print(json.dumps(document, indent=2))
        return
    if not rules:
        print(f"in the {_period(since)} nothing that is only observed would have refused anything")
        return
    which = "1 decision was" if len(logged) == 1 else f"{len(logged)} decisions were"
    print(f"in the {_period(since)} {which} observed and not enforced, by rule:")
    for rule in rules:
        print(f"\n{rule.times:>6}x {rule.effect.value}  {rule.layer} / {rule.rule}")
        print(f"         agents   {_few(rule.agents)}")
        for number, (text, times) in enumerate(rule.matched[:_TEXTS_SHOWN]):
            count = f" ({times}x)" if times > 1 else ""
            print(f"         {'matched' if not number else '':8} {_line(text, 72)}{count}")
        if (left := len(rule.matched) - _TEXTS_SHOWN) > 0:
            print(f"         {'':8} and {left} more")
        print(f"         latest   {_line(rule.example.shown, 72)}")
        if not rule.example.enforced:
            print(f"         because  {_one_line(str(rule.example.decision['reason']))}")


def _since(text: str) -> float:
    from runner.model.limits import Unlimited  # noqa: PLC0415
    from runner.schema.quantities import parse_duration  # noqa: PLC0415

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise RequestError(f"--since: {error}") from None
    return -math.inf if isinstance(seconds, Unlimited) else time.time() - seconds


def _log() -> LogReader:
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.reader import open_log  # noqa: PLC0415

    return open_log(Path(load_settings().home.value))


def _print_diff(found: Comparison, since: str) -> None:
    changes = Counter(map(_row, found.changes))
    tighter = sum(change.tighter for change in found.changes)
    looser = len(found.changes) - tighter
    if changes:
        print(f"{'OLD':8} {'NEW':8} {'AGENT':12} {'':>5} {'COMMAND':{_COMMAND_WIDTH}} BECAUSE OF")
    for (before, after, agent, command, rule), times in changes.items():
        count = f"{times}x" if times > 1 else ""
        print(f"{before:8} {after:8} {_line(agent, 12):12} {count:>5} "
              f"{command:{_COMMAND_WIDTH}} {rule}")  # fmt: skip
    print(
        f"{chr(10) if changes else ''}of {found.compared} decisions in the {_period(since)} "
        f"{len(found.changes)} would change: {tighter} tighter, {looser} looser"
    )
    for why, times in sorted(found.undecidable.items()):
        print(f"{times} can't be decided again: {why}")
    if not found.compared and found.others:
        names = ", ".join(f"{name} ({times})" for name, times in sorted(found.others.items()))
        print(f"what was decided then was under other profiles: {names}; take them with --profile")


def _period(since: str) -> str:
    return "whole log" if since == "unlimited" else f"last {since}"


def _row(change: Change) -> tuple[str, str, str, str, str]:
    speaks = change.new if change.tighter else change.old
    return (
        _effect(change.old),
        _effect(change.new),
        change.logged.principal.agent,
        _line(change.logged.shown, _COMMAND_WIDTH),
        f"{speaks.rules[0].layer} / {speaks.rules[0].id}" if speaks.rules else "default",
    )


def _effect(decision: Decision) -> str:
    return decision.effect.value if decision.enforced else "observe"


def _diff_document(found: Comparison) -> dict[str, Any]:
    tighter = sum(change.tighter for change in found.changes)
    return {
        "compared": found.compared,
        "changed": len(found.changes),
        "tighter": tighter,
        "looser": len(found.changes) - tighter,
        "undecidable": [
            {"why": why, "count": count} for why, count in sorted(found.undecidable.items())
        ],
        "other_profiles": dict(sorted(found.others.items())),
        "changes": [_change_document(change) for change in found.changes],
    }


def _change_document(change: Change) -> dict[str, Any]:
    from runner.schema.outcome import decision_document  # noqa: PLC0415

    return {
        **_logged_document(change.logged),
        "logged": change.logged.effect.value,
        "old": decision_document(change.old),
        "new": decision_document(change.new),
    }


def _observed_document(rule: Observed) -> dict[str, Any]:
    from runner.schema.outcome import printable  # noqa: PLC0415

    return {
        "layer": rule.layer,
        "rule": rule.rule,
        "effect": rule.effect.value,
        "times": rule.times,
        "agents": list(rule.agents),
        "matched": [{"text": printable(text), "times": times} for text, times in rule.matched],
        "example": {
            **_logged_document(rule.example),
            "reason": rule.example.decision["reason"],
        },
    }


def _logged_document(logged: Logged) -> dict[str, Any]:
    from runner.schema.outcome import printable  # noqa: PLC0415

    return {
        "seq": logged.seq,
        "run": logged.run_id,
        "agent": printable(logged.principal.agent),
        "profile": printable(logged.profile),
        "command": printable(logged.shown),
    }


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(_line(name, 24) for name in names[:_AGENTS_SHOWN])
    left = len(names) - _AGENTS_SHOWN
    return f"{shown} and {left} more" if left > 0 else shown


def _line(text: str, width: int) -> str:
    line = _one_line(text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _one_line(text: str) -> str:
    """What an agent wrote must not move the reader's cursor."""
    return text if text.isprintable() else ascii(text)[1:-1]
