"""The AppArmor profile: its text, and how it is installed and taken back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from runner.backends.native import apparmor, probe
from runner.backends.native.apparmor import Grant
from runner.errors import BackendError, RequestError
from runner.model.protection import Protection
from runner.surfaces.cli import doctor_fix

PARSER = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin")
NEEDS_PARSER = pytest.mark.skipif(PARSER is None, reason="apparmor_parser is not installed")


@pytest.fixture
def grant(tmp_path: Path) -> Grant:
    """For an interpreter that is its own; the parser notes what it is asked."""
    python = tmp_path / "env" / "bin" / "python3.11"
    python.parent.mkdir(parents=True)
    python.write_text("")
    python.chmod(0o755)
    parser = tmp_path / "parser"
    parser.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ ! -e {tmp_path}/refuse ]\n')
    parser.chmod(0o755)
    folder = tmp_path / "apparmor.d"
    folder.mkdir()
    return Grant(python, folder, str(parser))


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder and the parser of these tests need no root; only the question does."""
    monkeypatch.setattr(doctor_fix.os, "geteuid", lambda: 0)


def asked(tmp_path: Path) -> list[str]:
    file = tmp_path / "asked"
    return file.read_text().splitlines() if file.exists() else []


def test_the_text_names_one_file(grant: Grant) -> None:
    assert f'profile {grant.name} "{grant.python}" flags=(unconfined)' in grant.text
    assert "userns," in grant.text
    assert grant.file.name == grant.name
    other = Grant(grant.python.with_name("python3.12"))
    assert other.name != grant.name


def test_no_path_can_stand_for_others() -> None:
    text = Grant(Path("/srv/a b/[x]*?{y}^,#@/python")).text
    assert r'"/srv/a b/\[x\]\*\?\{y\}\^,#@/python"' in text
    for path in ('/srv/"/python', "/srv/\\/python", "/srv/\n  capability,/python"):
        with pytest.raises(BackendError, match="can name the interpreter"):
            _ = Grant(Path(path)).text


@NEEDS_PARSER
def test_the_parser_takes_it(tmp_path: Path) -> None:
    text = Grant(Path("/srv/a b/[x]*?{y}^,#@/python")).text
    if not Path("/etc/apparmor.d/abi/4.0").exists():
        # An older one knows no restriction either: the rest of the text is what it can judge.
        text = text.replace("abi <abi/4.0>,\n", "").replace("  userns,\n", "")
    file = tmp_path / "profile"
    file.write_text(text)
    for words, taken in ((text, True), (text.replace("profile", "prof"), False)):
        file.write_text(words)
        done = subprocess.run(
            [str(PARSER), "-Q", "-K", str(file)], check=False, capture_output=True
        )
        assert (done.returncode == 0) is taken, done.stderr


def test_the_restriction_is_found_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "restricted"
    assert not apparmor.restricts(file)
    for text, restricted in (("0\n", False), ("1\n", True)):
        file.write_text(text)
        assert apparmor.restricts(file) is restricted
    real = Path.read_text

    def read_text(self: Path, *args: object, **more: object) -> str:
        told = str(self) == str(apparmor.RESTRICTION)
        return "1\n" if told else real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(probe.os, "geteuid", lambda: 1000)
    remedy = probe._remedy(Protection.USER_NAMESPACE)
    assert "runner doctor --fix" in remedy
    assert "agent-process" in remedy


def test_it_is_shown_installed_and_taken_back(
    grant: Grant, as_root: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor_fix.install(grant, yes=True, shared_python=False)
    shown = capsys.readouterr().out
    assert str(grant.file) in shown
    assert "+  userns," in shown
    assert grant.file.read_text() == grant.text
    assert grant.file.stat().st_mode & 0o777 == 0o644
    assert asked(tmp_path) == [f"--replace {grant.file}"]
    doctor_fix.install(grant, yes=True, shared_python=False)  # twice is once
    assert "nothing to fix" in capsys.readouterr().out
    assert len(asked(tmp_path)) == 1
    doctor_fix.remove(grant, yes=True)
    assert asked(tmp_path)[1:] == [f"--remove {grant.file}"]
    assert os.listdir(grant.folder) == []
    doctor_fix.remove(grant, yes=True)
    assert "nothing to remove" in capsys.readouterr().out


def test_what_it_replaces_comes_back_when_it_is_refused(
    grant: Grant, as_root: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "refuse").touch()
    with pytest.raises(BackendError, match="refused"):
        doctor_fix.install(grant, yes=True, shared_python=False)
    assert os.listdir(grant.folder) == []
    grant.file.write_text("an older one\n")
    with pytest.raises(BackendError):
        doctor_fix.install(grant, yes=True, shared_python=False)
    assert grant.file.read_text() == "an older one\n"
    assert "-an older one" in capsys.readouterr().out


def test_nothing_is_done_unasked(
    grant: Grant, as_root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match="nobody to ask"):
        doctor_fix.install(grant, yes=False, shared_python=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for answer, installed in ((False, False), (True, True)):
        monkeypatch.setattr(typer, "confirm", lambda _, answer=answer: answer)
        if installed:
            doctor_fix.install(grant, yes=False, shared_python=False)
        else:
            with pytest.raises(typer.Exit):
                doctor_fix.install(grant, yes=False, shared_python=False)
        assert grant.is_installed is installed


def test_a_shared_interpreter_needs_a_word_more(
    grant: Grant, as_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (Path("/usr/bin/python3.11"), grant.python):
        if path == grant.python:
            path.chmod(0o777)
        wide = Grant(path, grant.folder, grant.parser)
        with pytest.raises(RequestError, match="--shared-python"):
            doctor_fix.install(wide, yes=True, shared_python=False)
        assert not wide.is_installed
        doctor_fix.install(wide, yes=True, shared_python=True)
        assert wide.is_installed


def test_a_user_is_told_the_commands(
    grant: Grant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_fix.os, "geteuid", lambda: 1000)
    with pytest.raises(typer.Exit) as ended:
        doctor_fix.install(grant, yes=True, shared_python=False)
    assert ended.value.exit_code == 125
    told = capsys.readouterr().out
    assert f"runner doctor --apparmor | sudo tee {grant.file}" in told
    assert f"sudo {grant.parser} --replace {grant.file}" in told
    assert not grant.is_installed
    grant.file.write_text(grant.text)
    with pytest.raises(typer.Exit):
        doctor_fix.remove(grant, yes=True)
    assert f"sudo rm {grant.file}" in capsys.readouterr().out
    assert grant.is_installed


def test_the_command(run_cli) -> None:
    assert re.search(r"^profile runner-[0-9a-f]{8} ", run_cli("doctor", "--apparmor").stdout, re.M)
    assert run_cli("doctor", "--fix", "--remove-fix").returncode == 2
    if not apparmor.restricts():
        done = run_cli("doctor", "--fix")
        assert (done.returncode, "nothing to fix" in done.stdout) == (0, True)
