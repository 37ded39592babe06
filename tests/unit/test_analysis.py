"""Reading: words, variables, files, other languages; nothing raises, whatever comes."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.analysis import foreign, read
from runner.analysis.shell import plain, shfmt, words
from runner.model.intent import Access, Intent, SimpleCommand
from runner.model.request import Argv, Script, ShellText


def shell(text: str, language: str = "bash") -> Intent:
    return read(ShellText(text, language))


def script(content: str | bytes, language: str = "python", *args: str) -> Intent:
    data = content.encode() if isinstance(content, str) else content
    return read(Script(data, language, ("python3",), "x.py", args=args))


def texts(command: SimpleCommand) -> list[str]:
    return [("?" if word.dynamic else "") + word.text for word in command.words]


def last(text: str, language: str = "bash") -> list[str]:
    return texts(shell(text, language).commands[-1])


def test_argv_is_read_as_it_is() -> None:
    intent = read(Argv(("echo", "$x", "*", "a b")))
    assert intent.language == "argv"
    assert [texts(c) for c in intent.commands] == [["echo", "$x", "*", "a b"]]


def test_argv_wrappers_are_taken_off() -> None:
    intent = read(Argv(("sudo", "sh", "-c", "rm x; id")))
    assert [(c.via, texts(c)) for c in intent.commands] == [
        ((), ["sudo", "sh", "-c", "rm x; id"]),
        (("sudo",), ["sh", "-c", "rm x; id"]),
        (("sudo", "sh"), ["rm", "x"]),
        (("sudo", "sh"), ["id"]),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo {a,b}{1..3}", ["echo", "a1", "a2", "a3", "b1", "b2", "b3"]),
        ("echo {01..3}", ["echo", "01", "02", "03"]),
        ("echo {c..a}", ["echo", "c", "b", "a"]),
        ("echo {1..9..4}", ["echo", "1", "5", "9"]),
        ("echo {b{c,d}} {} {a} {a,", ["echo", "{bc}", "{bd}", "{}", "{a}", "{a,"]),
        ("echo \"{a,b}\" '{a,b}' \\{a,b}", ["echo", "{a,b}", "{a,b}", "{a,b}"]),
        ("echo {a,$x}", ["echo", "a", "?{a,$x}"]),
        ("echo {1..99999999999}", ["echo", "?{1..99999999999}"]),
        ("echo \"a\\$b\\\"c\\d\"", ["echo", 'a$b"c\\d']),
        ("echo $'a\\tb\\'c\\cA\\e'", ["echo", "a\tb'c\x01\x1b"]),
        ("echo $'\\xc3\\xa4' $'\\u00e4'", ["echo", "ä", "ä"]),
        ("echo *.c [ab] a?b '*' \\* [", ["echo", "?*.c", "?[ab]", "?a?b", "*", "*", "["]),
        ("echo ~/x ~root '' \"\"", ["echo", "~/x", "~root", "", ""]),
        ("echo $x \"$x\" ${x}", ["echo", "?$x", '?"$x"', "?${x}"]),
        ("echo $(y) `y` $((1))", ["echo", "?$(y)", "?`y`", "?$((1))"]),
        ("echo a#b # c", ["echo", "a#b"]),
    ],
)  # fmt: skip
def test_words(text: str, expected: list[str]) -> None:
    assert texts(shell(text).commands[0]) == expected


def test_braces_mean_nothing_to_a_posix_shell_but_bash_may_be_there() -> None:
    found = [texts(c) for c in shell("echo {a,b}", "sh").commands]
    assert found == [["echo", "{a,b}"], ["echo", "a", "b"]]


@pytest.mark.parametrize(
    ("word", "prefix", "suffix", "many"),
    [
        ('"$x"', "", "", False),
        ('"a$x"b', "a", "b", False),
        ("a$x", "", "", True),
        ("src/*.py", "src/", ".py", True),
        ('"$@"', "", "", True),
        ('"${a[@]}"', "", "", True),
        ('"${x:-y}"', "", "", False),
        ("a$((1))b", "a", "b", False),
        ('"a$(x)b"c"$(y)"d', "a", "d", False),
    ],
)
def test_ends_of_dynamic_words(word: str, prefix: str, suffix: str, many: bool) -> None:
    found = shell(f"echo {word}").commands[0].words[1]
    assert (found.dynamic, found.prefix, found.suffix, found.many) == (True, prefix, suffix, many)


@pytest.mark.parametrize(
    "text",
    [
        "x=a; echo $x",
        "x=a\ny=b\necho \"$x\"",
        "x='a'; f() { echo ${x}; }; f",
        "echo \"$HOME\"; x=a; echo $x",
    ],
)  # fmt: skip
def test_sure_variables_are_resolved(text: str) -> None:
    assert any("a" in texts(command) for command in shell(text).commands)


@pytest.mark.parametrize(
    "text",
    [
        "echo $x; x=a",
        "x=a; x=b; echo $x",
        "x=a; read x; echo $x",
        "x=a; read $y; echo $x",
        "x=a; read $'x'; echo $x",
        "x=a; eval 'x'=b; echo $x",
        "x=a; . ./f; echo $x",
        "x=a; printf -v x b; echo $x",
        "x=a; printf $f b; echo $x",
        "x=a; unset x; echo $x",
        "x=a; declare -n y=x; y=b; echo $x",
        "x=a; for x in b; do echo $x; done",
        "x=a; : ${x:=b}; echo $x",
        "x=a; ((x = 1)); echo $x",
        "x=a; ((y = $z)); echo $x",
        "x=a; $y x; echo $x",
        "x=a; trap 'x=b' DEBUG; echo $x",
        "if y; then x=a; fi; echo $x",
        "(x=a); echo $x",
        "f() { x=a; }; f; echo $x",
        "x=a | y; echo $x",
        "x=a & echo $x",
        "x=a y; echo $x",
        "x+=a; echo $x",
        "x=(a); echo $x",
        "x=a; IFS=b; echo $x",
        "x='*'; echo $x",
        "PATH=a; echo $PATH",
        "x=a; mapfile x < f; echo $x",
        "x=a; : ${!y:=b}; echo $x",
        "x=a; getopts a x; echo $x",
        "x=a; exec {x}>f; echo $x",
        "x=a; select x in b; do echo $x; done",
        "x=a; [[ $y -eq 1 ]]; echo $x",
        "x=a; y=${z:$w}; echo $x",
        "x=a; coproc x { y; }; echo $x",
        "x=a; wait -p x; echo $x",
        "x=a; let $y; echo $x",
        "x=a; command read x; echo $x",
        "x=a; alias y='x=b'; y; echo $x",
    ],
)
def test_unsure_variables_stay_dynamic(text: str) -> None:
    echoes = [c for c in shell(text).commands if c.words and c.words[0].text == "echo"]
    assert echoes
    assert all(word.dynamic for command in echoes for word in command.words[1:])


def test_redirections_are_reads_and_writes() -> None:
    (command,) = shell('cat < a > b 2>> c &> d <> e >| f 2>&1 >&g 3<&- {v}> "$h"').commands
    uses = [(use.access, use.path.text) for use in command.redirects]
    read_, write = Access.READ, Access.WRITE
    assert uses == [
        (read_, "a"), (write, "b"), (write, "c"), (write, "d"), (read_, "e"), (write, "e"),
        (write, "f"), (write, "g"), (write, '"$h"'),
    ]  # fmt: skip


def test_redirections_of_compound_commands_are_found() -> None:
    intent = shell("{ a; b; } > out; (c) < in; > only")
    uses = [use.path.text for command in intent.commands for use in command.redirects]
    assert uses == ["out", "in", "only"]


def test_assignments_are_kept() -> None:
    intent = shell("A=1 B=$x C[0]=2 cmd; D=3; export E=4; env F=5 cmd")
    found = {
        a.name: (a.value.text, a.value.dynamic) for c in intent.commands for a in c.assignments
    }
    assert found == {
        "A": ("1", False), "B": ("$x", True), "C": ("2", False), "D": ("3", False),
        "E": ("4", False), "F": ("5", False),
    }  # fmt: skip


def test_an_assignment_behind_the_end_of_options_is_one():
    for text in ("env -- A=1 sudo id", 'sudo -- A=1 B="$x" id', "env -i -- A=1 B=2 id"):
        found = [command.words[0].text for command in shell(text).commands]
        assert not any(name.startswith("A=") for name in found), text
        assert found[-1] == "id", text


def test_lines_are_the_text_s_own() -> None:
    intent = shell("a $x\n\nb \\\n  $y\nsh -c 'c\nd $z'")
    assert [c.line for c in intent.commands] == [1, 3, 5, 5, 5]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ls\nif x", "line 2"),
        ("a\0b", "NUL"),
        ("a\r\nb", "carriage return"),
        ("a $x \udcff", "UTF-8"),
        ("a $x \ud800", "no encoding"),
        ("echo '", "line 1"),
        ("a " * 200_000, "256 KiB"),
    ],
)
def test_unreadable_text_says_why(text: str, reason: str) -> None:
    assert reason in str(shell(text).unreadable)


@pytest.mark.parametrize(
    "text",
    ["(" * 200_000, "$(" * 60_000, "( " * 2000 + "a" + " )" * 2000, "if a; then " * 2000,
     "a|" * 5000 + "b", "{" * 60_000],
    ids=["parentheses", "substitutions", "subshells", "ifs", "pipes", "braces"],
)  # fmt: skip
def test_hostile_nesting_is_only_unreadable(text: str) -> None:
    intent = shell(text)
    assert intent.unreadable is not None or intent.commands


def test_long_chains_are_read() -> None:
    intent = shell(" && ".join(f"a $x{index}" for index in range(200)))
    assert intent.unreadable is None
    assert len(intent.commands) == 200


def test_wrappers_nested_without_end_are_unreadable() -> None:
    intent = read(Argv((*("env",) * 100, "rm")))
    assert "32" in str(intent.unreadable)


def test_a_shell_script_is_read_like_text() -> None:
    intent = script("#!/bin/bash\nrm x\n", "bash")
    assert [texts(c) for c in intent.commands] == [["rm", "x"]]


def test_other_languages_are_their_interpreter() -> None:
    intent = read(Script(b"\xff\0", "unknown", ("lisp", "--x"), "a.l", args=("1",)))
    assert [texts(c) for c in intent.commands] == [["lisp", "--x", "a.l", "1"]]
    assert intent.unreadable is None


def test_missing_parser_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shfmt, "binary", lambda: None)
    assert "shfmt-py" in str(shell("unseen $before").unreadable)
    assert shell("plain words").unreadable is None


PYTHON = """
import os, subprocess as sp, shutil, socket
from pathlib import Path as P
from subprocess import *
import urllib.request, requests
D = "/srv/" + "data"
CMD = ["ls", "-l", D]
os.system(f"cat {D}")
sp.run(CMD)
check_output("a b".split())
shutil.rmtree(D)
open(D + "/x", mode="w")
open(unknown)
(P(D) / "y").unlink()
P("z").read_text()
os.execvp(unknown, ["x"])
socket.create_connection(("example.com", 80))
urllib.request.urlopen("https://user@host.example:8080/path")
requests.get(url)
"""


def test_python_is_read_as_far_as_constants_go() -> None:
    intent = script(PYTHON, "python", "arg")
    assert intent.unreadable is None
    assert [texts(c) for c in intent.commands] == [
        ["python3", "x.py", "arg"],
        ["cat", "/srv/data"],
        ["ls", "-l", "/srv/data"],
        ["a", "b"],
        ["?<name>"],
    ]
    assert intent.commands[1].via == ("python",)
    assert intent.commands[1].line == 8
    assert [(use.access.value, use.path.text, use.path.dynamic) for use in intent.paths] == [
        ("write", "/srv/data", False),
        ("write", "/srv/data/x", False),
        ("read", "<name>", True),
        ("write", "/srv/data/y", False),
        ("read", "z", False),
    ]
    assert [word.text for word in intent.hosts] == ["example.com", "host.example", "<name>"]


def test_python_may_declare_its_encoding() -> None:
    intent = script(b"# coding: latin-1\nimport os\nos.system('echo \xe4')\n")
    assert texts(intent.commands[-1]) == ["echo", "ä"]


@pytest.mark.parametrize(
    "text",
    ["(" * 200_000, "-" * 200_000 + "1", "a" + ".b" * 100_000, "1" + "+1" * 100_000,
     "not " * 50_000, "x[" * 90 + "]" * 90, "a" + "()" * 50_000, "x = 1\n" * 300_000,
     "a\0b", "\ud800", "def"],
)  # fmt: skip
def test_hostile_python_is_only_noted(text: str) -> None:
    intent = read(Script(text.encode("utf-8", "surrogatepass"), "python", ("python3",), "x.py"))
    assert texts(intent.commands[0]) == ["python3", "x.py"]


def test_the_child_reads_what_is_too_large_for_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "HARMLESS_BYTES", 0)
    assert texts(script("import os\nos.system('rm x')").commands[-1]) == ["rm", "x"]
    assert "line 1" in str(script("def").unreadable)


@given(st.lists(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]))))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_quoted_words_come_back(arguments: list[str]) -> None:
    text = shlex.join(["cmd", *arguments])
    command = shell(text).commands[0]
    assert [word.text for word in command.words] == ["cmd", *arguments]
    assert not any(word.dynamic for word in command.words)


PIECES = st.sampled_from(
    [*" \n;&|(){}<>$`'\"\\#*?[]=!~", "rm", "if", "fi", "$(", "))", "<<E\n", "E\n", "for", "do",
     "sudo", "env", "-c", "sh", "eval", "find", "-exec", "{}", "git", "x=", "\udcff", "\0", "é"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from(["bash", "sh"]))
@settings(max_examples=80, deadline=None)
def test_no_text_raises(text: str, language: str) -> None:
    assert isinstance(shell(text, language), Intent)


@given(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=8))
@settings(max_examples=80, deadline=None)
def test_no_argv_raises(arguments: list[str]) -> None:
    assert isinstance(read(Argv(tuple(arguments))), Intent)


@given(st.binary(max_size=60), st.sampled_from(["python", "bash", "perl", "unknown"]))
@settings(max_examples=60, deadline=None)
def test_no_script_raises(content: bytes, language: str) -> None:
    assert isinstance(read(Script(content, language, ("x",), "y")), Intent)


@given(
    st.one_of(
        st.text("abc'\"-/= \t\n$;\\é", max_size=20),
        st.text("ab-/=,:@%+. \t\n", max_size=20),  # without quotes: the fastest way
    )
)
@settings(max_examples=120, deadline=None)
def test_the_fast_path_agrees_with_the_grammar(text: str) -> None:
    quick = plain.words(text)
    if quick is None:
        return
    tree = shfmt.parse(text.encode(), "bash")
    arguments = tree["Stmts"][0]["Cmd"]["Args"]
    reader = words.WordReader(
        text.encode(), language="bash", dialect="bash", constants=lambda name, offset: (),
        relied=set(),
    )  # fmt: skip
    assert [word for each in arguments for word in reader.words(each)] == list(quick)
