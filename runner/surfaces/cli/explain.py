"""`runner explain`: what was read, which rules matched and why, what would have to change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import EXIT_DENIED, RequestError
from runner.surfaces.cli import explain_text as show
from runner.surfaces.cli.program import (
    AsJson,
    Asked,
    ProgramCommand,
    profile_place,
    takes_a_program,
)

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.deciding import Decided
    from runner.model.place import Place
    from runner.policy.compare import Logged
    from runner.policy.explain import Explanation, Obstacle, PartTold, RuleTold
    from runner.replay import Again

EXPLAIN_HELP = """Say why something is decided as it is, and what would have to change.

\b
  runner explain -c 'cd /tmp && sudo rm -rf /'     a command line
  runner explain fix.py                            a script
  runner explain --profile locked -- rm -rf build  a program and its arguments
  runner explain --all -- git push                 with the rules on it that do not match
  runner explain --run run-0f4a...                 a run of the log, decided again

It shows what was read (each command by itself, behind its wrappers, with the paths and hosts that
it names and the words that only running would tell), what every layer says about it, each rule that
matches, condition by condition, with the word that made it so, and the decision.

What policies in Cedar or Rego say is told for each of them; an error of theirs is a denial.

For what is refused it says what would have to change: in the command, each change by itself, tried
by deciding again; and in the policy, which rules or defaults stand against it, with file and line.

A run of the log is decided again by what is in force now (--profile names another profile), with
the agent, the labels, the time and the earlier runs of then; what was decided then is told too.

Nothing is run and nothing recorded. Exit code 0: allowed; 126: not.
"""
_SHOWN_PARTS = 60
"""Parts that nothing stands against are told of up to here; what is refused always."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "explain",
        cls=ProgramCommand,
        context_settings={"allow_interspersed_args": False},
        help=EXPLAIN_HELP,
    )(explain)


@takes_a_program
def explain(
    asked: Asked,
    every: Annotated[
        bool, typer.Option("--all", help="Also rules on such commands that do not match.")
    ] = False,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="A run of the log, decided again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a decision; see EXPLAIN_HELP."""
    from runner import linked  # noqa: PLC0415
    from runner.app import Runner  # noqa: PLC0415
    from runner.compile import check_obligations  # noqa: PLC0415
    from runner.deciding import action_of, decide  # noqa: PLC0415
    from runner.policy.explain import explain as explained  # noqa: PLC0415
    from runner.policy.others import parted  # noqa: PLC0415
    from runner.workbench import rule_places  # noqa: PLC0415

    with Runner() as runner:
        logged = _logged(run, asked, runner) if run is not None else None
        request = logged.request if logged is not None else asked.request(runner)
        policy, facts = runner.held_against(request)
        if logged is not None:
            facts = logged.history.facts(logged.logged, policy.counted)
        rules, files = rule_places(runner.settings, request.profile)
    by_rules, beside = parted(policy.decisions)
    if by_rules is None:
        raise RequestError(
            "another decision point than runner's own rules decides here, and only it can explain; "
            "`runner check` says what it decides"
        )
    decided = decide(request, policy, facts, linked.find if logged is None else None)
    if decided.permitted:
        check_obligations(decided.decision.obligations)
    action = action_of(request, decided.intent, policy.profile, decided.facts)
    found = explained(by_rules, action, every=every, beside=beside)
    told = _Told(decided, found, rules, files, logged.logged if logged is not None else None)
    if as_json:
        print(json.dumps(told.document(), indent=2))
    else:
        for line in told.lines():
            print(line)
    raise typer.Exit(0 if decided.permitted else EXIT_DENIED)


def _logged(run: str, asked: Asked, runner: Runner) -> Again:
    """The run of the log that is meant, under the profile that was given, or its own."""
    from runner.replay import again  # noqa: PLC0415
    from runner.stores.reader import open_log  # noqa: PLC0415

    if asked.words or asked.command is not None:
        raise RequestError("give either --run RUN or a program, not both")
    home = Path(runner.settings.home.value)
    found = again(open_log(home), run, home)
    profile = profile_place(asked.profile) or found.request.profile
    return replace(found, request=replace(found.request, profile=profile))


@dataclass(frozen=True, slots=True)
class _Told:
    decided: Decided
    found: Explanation
    rules: Mapping[tuple[str, str], Place]
    files: Mapping[str, Place]
    logged: Logged | None
    """The decision of the log that is made again."""

    # For people.

    def lines(self) -> Iterator[str]:
        decision = self.decided.decision
        if self.logged is not None:
            then = f"then {self.logged.effect.value}: {self.logged.decision['reason']}"
            yield from show.wrapped("", show.one_line(then))
            same = self.logged.decision["policy_digest"] == decision.policy_digest
            yield f"now, under {'the same policy' if same else 'another policy'},"
        observed = "" if decision.enforced else " (only observed: it runs all the same)"
        yield from show.wrapped("", f"{decision.effect.value}{observed}: {decision.reason}")
        yield ""
        yield from show.wrapped("", self._read())
        shown = 0
        for number, part in enumerate(self.found.parts, start=1):
            if not part.refused and not part.rules:
                shown += 1
                if shown > _SHOWN_PARTS:
                    continue
            yield ""
            yield from self._part(number, part)
        if shown > _SHOWN_PARTS:
            yield f"\n  and {shown - _SHOWN_PARTS} more that no rule speaks about"
        if self.found.others:
            yield ""
            yield from self._others()
        if self.decided.decision.observed:
            yield ""
            yield "only observed, without effect"
            for rule in self.decided.decision.observed:
                place = self._at(self.rules.get((rule.layer, rule.id)))
                told = f"rule '{rule.id}' of {rule.layer}{place}: {rule.matched or rule.message}"
                yield from show.row(rule.effect.value, show.one_line(told))
        if not self.decided.permitted:
            yield ""
            yield from self._remedies()

    def _others(self) -> Iterator[str]:
        """What decision points beside the rules say, each by itself."""
        yield "asked beside the rules"
        for told in self.found.others:
            yield from show.row(told.decision.effect.value, show.one_line(told.name))
            yield from show.row("", show.one_line(told.decision.reason))

    def _read(self) -> str:
        intent = self.decided.intent
        parts = [show.number(len(intent.commands), "command")]
        if unknown := len(intent.dynamic_commands):
            parts.append(f"{unknown} of them by a name that only running would tell")
        if intent.paths or intent.hosts:
            outside = show.number(len(intent.paths), "path"), show.number(len(intent.hosts), "host")
            parts.append(f"{' and '.join(outside)} outside of commands")
        if intent.unreadable is not None:
            parts.append(f"and not all could be read: {intent.unreadable}")
        return f"read as {intent.language}: {', '.join(parts)}"

    def _part(self, number: int, part: PartTold) -> Iterator[str]:
        subject = part.subject
        yield from show.wrapped(f"{number:>4}  ", show.command(subject))
        for label, text in show.facts(subject, self.found.action.workspace or "/"):
            yield from show.row(label, text)
        for rule in part.rules:
            yield from self._rule(rule)
        for layer, findings in part.says:
            for finding in findings:
                if finding.matched is not None and finding.matched.id == "default":
                    yield from show.row(finding.effect.value, f"the default of {layer}"
                                    f"{self._at(self.files.get(layer))}")  # fmt: skip
        for other in part.others:
            told = f"'{other.id}' of {other.layer}, which is asked beside the rules"
            yield from show.row(other.effect.value, show.one_line(told))
        said = part.said
        if said is not None and said.matched is not None and said.matched.id == "on_dynamic":
            layer = said.matched.layer
            place = self._at(self.files.get(layer))
            told = f"on_dynamic of {layer}{place}: only running would tell what it runs"
            yield from show.row(said.effect.value, told)
        if not part.refused and not part.rules:
            yield from show.row("allow", "no rule speaks about it" if said is not None else
                            "nothing is said about it")  # fmt: skip

    def _rule(self, rule: RuleTold) -> Iterator[str]:
        place = self._at(self.rules.get((rule.layer, rule.rule)))
        how = "" if rule.hold == 2 else " may match" if rule.hold == 1 else " does not match"
        passed = ", which on_doubt: passes lets be" if rule.passed else ""
        label = rule.effect.value if rule.hold and not rule.passed else "-"
        yield from show.row(label, f"rule '{rule.rule}' of {rule.layer}{place}{how}{passed}")
        for reason in rule.reasons:
            yield from show.reason(reason, 0)

    def _remedies(self) -> Iterator[str]:
        yield "what would have to change"
        refused = [(n, part) for n, part in enumerate(self.found.parts, start=1) if part.refused]
        for number, part in refused:
            for index, change in enumerate(part.changes):
                where = "or" if index else f"in {number}"
                yield from show.row(where, show.one_line(change))
            if not part.changes:
                told = "no small change of it was found: leave it out, or do it another way"
                yield from show.row(f"in {number}", told)
        of_no_rule = ("grants", "grants.budget", "budget", "environment.deny", "loop-guard")
        beside = [rule for rule in self.decided.decision.rules if rule.id in of_no_rule]
        for rule in beside:
            yield from show.row("asked", rule.message)
        for obstacle in self.found.obstacles:
            yield from show.row("policy", self._obstacle(obstacle))
        for other in self.found.others:
            if other.refuses:
                effect = other.decision.effect.value
                yield from show.row("policy", f"{show.one_line(other.name)}: {effect}")
        if any(each.of_rules or each.rule == "default" for each in self.found.obstacles):
            which = "these" if self.found.then.value == "allow" else "these rules"
            yield from show.row("", f"without {which} it would be: {self.found.then.value}")
        if draft := self._draft([part for _, part in refused]):
            yield from show.row("", f"or add to the rules: {draft}")

    def _obstacle(self, obstacle: Obstacle) -> str:
        if obstacle.of_rules:
            place = self._at(self.rules.get((obstacle.layer, obstacle.rule)))
            return f"rule '{obstacle.rule}' of {obstacle.layer}{place}"
        place = self._at(self.files.get(obstacle.layer))
        return f"{obstacle.rule}: {obstacle.effect.value} of {obstacle.layer}{place}"

    def _draft(self, refused: Sequence[PartTold]) -> str | None:
        from runner.policy.explain import draft  # noqa: PLC0415

        by_default = any(o.rule == "default" and not o.of_rules for o in self.found.obstacles)
        drafts = [text for part in refused if (text := draft(part)) is not None]
        return drafts[0] if by_default and drafts else None

    def _at(self, place: Place | None) -> str:
        return f" ({show.near(place.source, str(Path.cwd()))}:{place.line})" if place else ""

    # For programs.

    def document(self) -> dict[str, Any]:
        from runner.schema.outcome import decision_document, printable  # noqa: PLC0415

        intent = self.decided.intent
        return {
            "decision": decision_document(self.decided.decision),
            "then": self._then(),
            "language": intent.language,
            "unreadable": intent.unreadable and printable(intent.unreadable),
            "parts": [self._part_document(part) for part in self.found.parts],
            "beside": [
                {"point": printable(told.name), **decision_document(told.decision)}
                for told in self.found.others
            ],
            "obstacles": [
                {
                    "layer": printable(each.layer),
                    "rule": each.rule,
                    "effect": each.effect.value,
                    "place": self._place(each),
                }
                for each in self.found.obstacles
            ],
            "without_obstacles": self.found.then.value,
        }

    def _then(self) -> dict[str, Any] | None:
        """What was decided of the run that is decided again."""
        from runner.schema.outcome import printable  # noqa: PLC0415

        if self.logged is None:
            return None
        return {
            "run": self.logged.run_id,
            "effect": self.logged.effect.value,
            "reason": printable(str(self.logged.decision["reason"])),
            "policy_digest": self.logged.decision["policy_digest"],
        }

    def _place(self, obstacle: Obstacle) -> str | None:
        place = (
            self.rules.get((obstacle.layer, obstacle.rule))
            if obstacle.of_rules
            else self.files.get(obstacle.layer)
        )
        return str(place) if place is not None else None

    def _part_document(self, part: PartTold) -> dict[str, Any]:
        from runner.policy.witness import place_of  # noqa: PLC0415
        from runner.schema.outcome import printable  # noqa: PLC0415

        subject = part.subject
        words = (subject.name, *subject.arguments) if subject.name is not None else ()
        written = set(map(place_of, subject.writes))
        return {
            "kind": subject.kind.value,
            "shown": printable(subject.shown),
            "line": subject.line,
            "via": list(subject.via),
            "words": [show.word_document(word) for word in words],
            "paths": [
                {"path": printable(path), "written": path in written}
                for path in dict.fromkeys(map(place_of, (*subject.paths, *subject.writes)))
            ],
            "hosts": [printable(host.text) for host in subject.hosts],
            "environment": sorted(map(printable, subject.environment)),
            "advice": subject.advice,
            "doubtful": subject.doubtful,
            "effect": part.said.effect.value if part.said is not None else None,
            "reason": printable(part.said.reason) if part.said is not None else None,
            "rules": [self._rule_document(rule) for rule in part.rules],
            "beside": [
                {
                    "id": printable(each.id),
                    "layer": printable(each.layer),
                    "effect": each.effect.value,
                }
                for each in part.others
            ],
            "changes": list(map(printable, part.changes)),
        }

    def _rule_document(self, rule: RuleTold) -> dict[str, Any]:
        place = self.rules.get((rule.layer, rule.rule))
        return {
            "layer": rule.layer,
            "id": rule.rule,
            "effect": rule.effect.value,
            "matches": show.HOLD[rule.hold],
            "passed": rule.passed,
            "place": str(place) if place is not None else None,
            "conditions": list(map(show.reason_document, rule.reasons)),
        }
