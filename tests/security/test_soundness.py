"""Reading against running, on a few hundred texts; scripts/soundness runs 20,000."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import soundness
from soundness_grammar import generate
from soundness_stage import Executed, Item, Stage

from runner.analysis import read
from runner.model.request import ShellText


def found(text: str, *ran: tuple[str, str, list[str]]) -> soundness.Tally:
    """What the comparison says of programs said to have run: who did it, the path, the words."""
    tally = soundness.Tally()
    first = {"file": "/bin/bash", "words": ["bash", "-c", text], "by": ""}
    done = [first, *({"by": by, "file": file, "words": words} for by, file, words in ran)]
    tally.add(Item(text, "test"), read(ShellText(text)), Executed("exited", done))
    return tally


@pytest.mark.parametrize(
    ("text", "words", "missed"),
    [
        ("ls a", ["ls", "a"], False),
        ("ls a", ["ls", "b"], True),
        ("ls a", ["ls"], True),
        ("ls a", ["rm", "a"], True),
        ("ls $x", ["ls", "b", "c"], False),
        ("ls $x", ["rm", "b"], True),
        ('ls pre"$x"', ["ls", "prefix"], False),
        ('ls pre"$x"', ["ls", "other"], True),
        ("$x a", ["rm", "a"], False),
        ("env ls a", ["ls", "a"], False),
    ],
)
def test_comparison(text: str, words: list[str], missed: bool) -> None:
    tally = found(text, ("bash", f"/stubs/{words[0]}", words))
    assert bool(tally.misses) is missed
    assert tally.executed == 1


def test_shell_of_a_wrapper_is_its_own_but_not_what_it_runs() -> None:
    shell = ("flock", "/bin/sh", ["sh", "-c", "ls"])
    assert not found("flock f -c ls", shell, ("sh", "/stubs/ls", ["ls"])).misses
    assert found("flock f -c ls", shell, ("sh", "/stubs/rm", ["rm"])).misses
    assert found("ls", ("bash", "/bin/sh", ["sh", "-c", "ls"])).misses


def test_grammar_is_the_same_for_the_same_seed() -> None:
    first = list(generate(200, 3))
    assert first == list(generate(200, 3))
    assert len(set(first)) == 200
    assert first != list(generate(200, 4))


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_what_runs_was_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    stage = Stage(tmp_path / "stage", wall_s=0.5)
    tallies: dict[str, soundness.Tally] = {}
    todo = [*soundness.items(200, seed=1), Item("p1 a; $(echo p2) b; env p3 c", "known")]
    try:
        for _ in soundness.check(stage, todo, tallies):
            pass
    finally:
        stage.close()
    assert [miss for tally in tallies.values() for miss in tally.misses] == []
    assert tallies["known"].executed == 4  # echo is the shell's own
    assert all(tally.executed for tally in tallies.values())
