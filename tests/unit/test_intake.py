"""From what callers say to an ExecRequest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.errors import RequestError
from runner.intake import (
    SCRIPT_BYTES,
    build_request,
    checked_stdin,
    interpreter_of,
    read_script,
    script_from_text,
)
from runner.model.limits import LimitOverrides
from runner.model.request import Argv, Script, ShellText


def test_each_form_becomes_its_program(tmp_path):
    (tmp_path / "a.py").write_text("pass")
    forms = {
        Argv: {"argv": ["ls", "-l"]},
        ShellText: {"shell": "ls | wc"},
        Script: {"script": "a.py", "args": ["x"]},
    }
    for kind, options in forms.items():
        assert isinstance(build_request(cwd=tmp_path, **options).program, kind)
    code = build_request(cwd=tmp_path, code="pass", language="py", args=["x"]).program
    assert isinstance(code, Script)
    assert (code.language, code.interpreter, code.name) == ("python", ("python3",), "code.py")
    assert (code.path, code.args) == (None, ("x",))
    shell = build_request(cwd=tmp_path, shell="ls", language="sh").program
    assert shell == ShellText("ls", "sh")


def test_all_that_is_said_is_in_the_request(tmp_path):
    request = build_request(
        argv=["true"], cwd=tmp_path, env={"A": "1", "B": ""}, profile="ci", agent="worker",
        parent="boss", session="s", tenant="t", limits={"wall": "5s", "memory": "64MiB"},
        labels={"task": "7"}, terminal=True,
    )  # fmt: skip
    assert request.directory == str(tmp_path.resolve())
    assert request.environment == (("A", "1"), ("B", ""))
    assert (request.profile, request.terminal) == ("ci", True)
    assert request.limits == LimitOverrides(wall_s=5, memory_bytes=64 << 20)
    assert request.labels == (("task", "7"),)
    who = request.principal
    assert (who.uid, who.agent, who.parent, who.session, who.tenant) == (
        os.getuid(), "worker", "boss", "s", "t",
    )  # fmt: skip


def test_what_is_not_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = build_request(argv=["true"])
    assert request.directory == str(tmp_path.resolve())
    assert (request.principal.agent, request.principal.parent) == ("default", None)
    assert (request.profile, request.limits) == ("agent", LimitOverrides())


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("#!/bin/sh\n", "sh", ("/bin/sh",)),
        ("#!/bin/bash -eu\n", "bash", ("/bin/bash", "-eu")),
        ("#! /bin/bash  -e -u \n", "bash", ("/bin/bash", "-e -u")),  # one word, as execve(2) has it
        ("#!/usr/bin/dash", "sh", ("/usr/bin/dash",)),
        ("#!/usr/bin/python3.11 -I\n", "python", ("/usr/bin/python3.11", "-I")),
        ("#!/usr/bin/env python3\n", "python", ("/usr/bin/env", "python3")),
        ("#!/usr/bin/env -S python3 -I -B\n", "python", ("/usr/bin/env", "-S", "python3 -I -B")),
        ("#!/usr/bin/env -S A=1 perl -w\n", "perl", ("/usr/bin/env", "-S", "A=1 perl -w")),
        ("#!/usr/bin/awk -f\n", "unknown", ("/usr/bin/awk", "-f")),
        ("#!/bin/sh\r\necho", "sh", ("/bin/sh",)),
    ],
)
def test_the_first_line_names_the_interpreter(text, language, words):
    assert interpreter_of(text.encode(), "x.rb", None) == (language, words)


@pytest.mark.parametrize(
    ("name", "language"),
    [("a.py", "python"), ("A.PY", "python"), ("a.sh", "bash"), ("a.bash", "bash"),
     ("a.mjs", "node"), ("a.pl", "perl"), ("a.rb", "ruby")],
)  # fmt: skip
def test_else_its_name_does(name, language):
    assert interpreter_of(b"x", name, None)[0] == language


def test_what_the_caller_says_counts_before_both():
    assert interpreter_of(b"#!/bin/sh\n", "a.py", "ruby") == ("ruby", ("ruby",))


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"print(1)", "tool", "--language"),
        (b"print(1)", "-", "the script on stdin"),
        (b"#!python3\n", "tool", "absolute"),
        (b"#!\n", "tool", "absolute"),
        (b"\x7fELF\x02", "tool", "is a program"),
    ],
)
def test_an_interpreter_that_cant_be_told(content, name, says):
    with pytest.raises(RequestError, match=says):
        interpreter_of(content, name, None)


def test_a_script_is_read_once_and_known_by_what_it_points_to(tmp_path):
    (tmp_path / "real.py").write_bytes(b"one")
    (tmp_path / "link").symlink_to("real.py")
    script = read_script(tmp_path / "link", (), None)
    (tmp_path / "real.py").write_bytes(b"two")
    assert script.content == b"one"
    assert (script.name, script.path) == ("real.py", str((tmp_path / "real.py").resolve()))


def test_scripts_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large.sh").write_bytes(b"#" * (SCRIPT_BYTES + 1))
    before = set(os.listdir("/proc/self/fd"))
    for path, says in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "is not a file"),
        (tmp_path / "fifo", "is not a file"),  # and does not wait for somebody to write
        (Path("/dev/null"), "is not a file"),
        (tmp_path / "loop", "symbolic links"),
        (tmp_path / "large.sh", "larger than 16 MiB"),
        (Path("a\0b"), "null"),
    ):
        with pytest.raises(RequestError, match=says) as caught:
            read_script(path, (), None)
        assert "\n" not in str(caught.value)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_script_of_the_largest_size(tmp_path):
    (tmp_path / "a.sh").write_bytes(b"#" * SCRIPT_BYTES)
    assert len(read_script(tmp_path / "a.sh", (), None).content) == SCRIPT_BYTES
    with pytest.raises(RequestError, match="on stdin is larger"):
        script_from_text(b"#" * (SCRIPT_BYTES + 1), (), "sh")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "exactly one of"),
        ({"argv": ["a"], "code": "b"}, "argv, code"),
        ({"argv": []}, "empty"),
        ({"argv": [""]}, "empty"),
        ({"argv": "ls -l"}, "shell="),
        ({"argv": ["a", None]}, "NoneType"),
        ({"argv": ["a\0"]}, "NUL"),
        ({"shell": "a\0"}, "NUL"),
        ({"shell": "x", "language": "python"}, "bash or sh"),
        ({"shell": "x", "args": ["y"]}, "args"),
        ({"code": "x"}, "needs a language"),
        ({"code": "x", "language": "cobol"}, "'cobol' is not one of"),
        ({"code": "\ud800", "language": "sh"}, "surrogate"),
        ({"argv": ["a"], "agent": ""}, "agent ''"),
        ({"argv": ["a"], "session": "x" * 257}, "1 to 256"),
        ({"argv": ["a"], "parent": "\x1b[2J"}, "printable"),
        ({"argv": ["a"], "tenant": 3}, "int"),
        ({"argv": ["a"], "labels": {"k": "\n"}}, "label k"),
        ({"argv": ["a"], "labels": {"k": 1}}, "label k holds int"),
        ({"argv": ["a"], "labels": {"": "x"}}, "label ''"),
        ({"argv": ["a"], "env": {"A": 1}}, "env A holds int"),
        ({"argv": ["a"], "env": {"A": "\0"}}, "env A"),
        ({"argv": ["a"], "cwd": "/no/such"}, "/no/such"),
        ({"argv": ["a"], "cwd": "/dev/null"}, "not a folder"),
        ({"argv": ["a"], "cwd": "a\0b"}, "can't be used"),
        ({"argv": ["a"], "limits": {"wall": "soon"}}, "soon"),
        ({"argv": ["a"], "limits": {"speed": 1}}, "speed"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, options, says):
    with pytest.raises(RequestError, match=says) as caught:
        build_request(**{"cwd": tmp_path, **options})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_working_folder_that_is_gone(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(RequestError, match="folder"):
        build_request(argv=["true"])


def test_stdin():
    assert checked_stdin(None) is None
    assert checked_stdin("\u00e9\udcff") == b"\xc3\xa9\xff"
    assert checked_stdin(b"x") == b"x"
    assert checked_stdin(2) == 2
    for closed in (1 << 20, -1, 1 << 70):
        with pytest.raises(RequestError, match="descriptor"):
            checked_stdin(closed)
