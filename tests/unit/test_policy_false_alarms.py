"""What `agent` refuses of what people do every day: a list that is looked at, and does not grow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import false_alarms

SHARE = 0.02
"""Of harmless commands, so many at most may be refused that could run in a sandbox."""


@pytest.fixture(scope="module")
def found() -> list[false_alarms.Refusal]:
    return false_alarms.refusals("agent")


@pytest.mark.slow
def test_what_is_refused_is_exactly_what_is_listed(found: list[false_alarms.Refusal]) -> None:
    now, known = set(found), set(false_alarms.listed())
    more = [str(each) for each in found if each not in known]
    gone = [str(each) for each in known if each not in now]
    assert more == [], "mend the rule or the reading, or scripts/false-alarms --write"
    assert gone == [], "no longer refused, or for something else: scripts/false-alarms --write"


@pytest.mark.slow
def test_few_harmless_commands_are_refused(found: list[false_alarms.Refusal]) -> None:
    alarms = [each for each in found if each.false_alarm]
    assert len(alarms) < SHARE * len(false_alarms.commands())


def test_the_data_is_whole() -> None:
    commands = false_alarms.commands()
    assert len(commands) == 3152
    assert all(commands[each.line - 1] == each.command for each in false_alarms.listed())


@pytest.mark.slow
@pytest.mark.parametrize(("language", "total"), [("bash", 150), ("python", 210)])
def test_harmful_scripts_are_refused_no_less(language: str, total: int) -> None:
    rows, counts = false_alarms.harmful("agent", language)
    assert rows == total
    assert counts["shell-start-files"] == 15  # an alias into a .bashrc: the rest is the sandbox's
