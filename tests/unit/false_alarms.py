"""What a profile refuses before launch: of harmless commands, and of harmful scripts.

`scripts/false-alarms` prints it; `test_policy_false_alarms.py` holds it to a list. Only reads and
decides; nothing is run.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from runner.analysis import read
from runner.model.action import Exec
from runner.model.decision import Effect
from runner.model.principal import Principal
from runner.model.request import Program, Script, ShellText
from runner.policy.engine import RulesDecisionPoint, create
from runner.schema.profiles import load_profile

DATA = Path(__file__).resolve().parents[1] / "data"
COMMANDS = DATA / "nl2bash" / "commands.txt"
REFUSED = DATA / "nl2bash" / "refused.txt"
REDCODE = DATA / "redcode"

MEANT = frozenset(
    {"privileges", "scheduled-jobs", "write-disk", "hide-tracks", "shell-start-files", "set-uid",
     "on_unreadable"}
)  # fmt: skip
"""What these refuse can't work in a sandbox, or in any shell: a word beforehand is a help."""


@dataclass(frozen=True)
class Refusal:
    """A command of the data set that is refused, by its line (from 1)."""

    line: int
    rules: tuple[str, ...]
    command: str

    @property
    def false_alarm(self) -> bool:
        """Whether nothing that it is refused for is meant for it."""
        return not MEANT & set(self.rules)

    def __str__(self) -> str:
        return f"{self.line}\t{','.join(self.rules)}\t{self.command}"


def commands() -> list[str]:
    """All of them; the first stands on line 1."""
    return COMMANDS.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def listed() -> list[Refusal]:
    """The refusals that are known."""
    found = []
    for line in REFUSED.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        number, rules, command = line.split("\t", 2)
        found.append(Refusal(int(number), tuple(rules.split(",")), command))
    return found


def point(profile: str) -> RulesDecisionPoint:
    return create((load_profile(profile).policy,))


def refused_for(decide: RulesDecisionPoint, program: Program) -> tuple[str, ...]:
    """The ids of what refuses it; none: it may run."""
    decision = decide.decide(Exec(Principal(uid=1000), read(program), "/home/bob/project"))
    if decision.permits:
        return ()
    return tuple(sorted({rule.id for rule in decision.rules if rule.effect is not Effect.ALLOW}))


def refusals(profile: str) -> list[Refusal]:
    """Every harmless command that the profile refuses."""
    decide = point(profile)
    found = []
    for number, command in enumerate(commands(), start=1):
        if rules := refused_for(decide, ShellText(command)):
            found.append(Refusal(number, rules, command))
    return found


def harmful(profile: str, language: str) -> tuple[int, Counter[str]]:
    """How many harmful scripts there are in a language, and how many are refused, by rule."""
    decide = point(profile)
    interpreter = {"bash": "bash", "python": "python3"}[language]
    rows = (REDCODE / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
    counts: Counter[str] = Counter()
    for row in rows:
        program = Script(json.loads(row)["code"].encode(), language, (interpreter,), "x")
        if rules := refused_for(decide, program):
            counts[", ".join(rules)] += 1
    return len(rows), counts


def _table(title: str, total: int, counts: Counter[str]) -> None:
    print(f"{title}: {counts.total()} of {total} refused ({counts.total() / total:.1%})")
    for rules, count in counts.most_common():
        print(f"  {count:>4}  {rules}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/false-alarms", description=__doc__)
    parser.add_argument("--profile", default="agent", help="default: agent")
    parser.add_argument("--list", action="store_true", help="print each refused command")
    parser.add_argument("--write", action="store_true", help="write agent's to the tests' list")
    words = parser.parse_args()
    if words.write and words.profile != "agent":
        parser.error("the tests' list is of the profile agent; leave out --profile")
    found = refusals(words.profile)
    if words.list:
        print("\n".join(map(str, found)))
    total = len(commands())
    _table("harmless commands", total, Counter(", ".join(each.rules) for each in found))
    alarms = sum(each.false_alarm for each in found)
    print(f"  {alarms} of them ({alarms / total:.1%}) could run in a sandbox")
    for language in ("bash", "python"):
        _table(f"harmful {language} scripts", *harmful(words.profile, language))
    if words.write:
        REFUSED.write_text("".join(f"{each}\n" for each in found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
