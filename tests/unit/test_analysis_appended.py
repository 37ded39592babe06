"""Words that xargs and parallel append, where they stand in the text."""

from __future__ import annotations

import pytest

from runner.analysis import read
from runner.model.request import ShellText


def runs(text: str, name: str = "rm") -> list[tuple[str, ...]]:
    """The literal commands of this name."""
    return [
        tuple(word.text for word in each.words)
        for each in read(ShellText(text)).commands
        if each.words and each.words[0].text == name and not any(w.dynamic for w in each.words)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo /etc | xargs rm -rf", ["rm -rf /etc"]),
        ("printf '/a\\n/b\\n' | sudo xargs -r rm", ["rm /a /b"]),
        ("printf '/a\\n/b\\n' | xargs -n1 rm", ["rm /a", "rm /b"]),
        ("echo \"'/a b' c\" | xargs rm", ["rm|/a b|c"]),
        ("printf '/a b\\n/c\\n' | xargs -I{} rm -r {}/x", ["rm|-r|/a b/x", "rm -r /c/x"]),
        ("xargs rm -rf <<< /etc", ["rm -rf /etc"]),
        ("xargs rm <<E\n/a\n/b\nE\n", ["rm /a /b"]),
        ("parallel rm -rf ::: /etc", ["rm -rf /etc"]),
        ("parallel -j2 rm -rf {}/x ::: /a '/b c'", ["rm -rf /a/x", "rm|-rf|/b c/x"]),
        ("parallel rm ::: a b ::: c", ["rm a c", "rm b c"]),
        ("parallel ::: 'rm -rf /' ls", ["rm -rf /"]),
        ("echo /etc | parallel rm -rf", ["rm -rf /etc"]),
    ],
)
def test_literal_words_are_appended(text: str, expected: list[str]) -> None:
    assert runs(text) == [tuple(each.split("|" if "|" in each else " ")) for each in expected]


@pytest.mark.parametrize(
    "text",
    ["ls | xargs rm", "echo $x | xargs rm", "echo a | xargs -a f rm", "echo \"'a\" | xargs rm",
     "echo a | xargs rm < f", "parallel rm :::: f", "parallel rm ::: $x", "ls | parallel rm",
     "echo a | xargs --unknown rm", "echo a b | xargs -L1 rm"],
)  # fmt: skip
def test_what_can_not_be_told_stays_dynamic(text: str) -> None:
    assert runs(text) == []
    commands = read(ShellText(text)).commands
    assert any(word.dynamic for each in commands for word in each.words)


def test_other_marks_of_parallel_stay_dynamic() -> None:
    commands = read(ShellText("parallel rm {.} ::: a.b")).commands
    assert any(each.words[0].dynamic for each in commands)


def test_what_they_run_is_looked_into() -> None:
    assert runs("echo 'rm -rf /' | xargs -I% sh -c '%'") == [("rm", "-rf", "/")]
    assert runs("echo ls | xargs sudo", "ls") == [("ls",)]
    assert all("xargs" in each.via for each in read(ShellText("echo /a | xargs rm")).commands[2:])
