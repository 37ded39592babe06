"""The scripts that people and CI call: what they need, what they say, and the demonstration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shell(text: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `text` in bash with scripts/_lib.sh loaded from a clone."""
    kept = {"PATH": os.environ["PATH"], "HOME": environment.pop("HOME", "/nowhere")}
    return subprocess.run(
        ["bash", "-euc", f'. "{root}/scripts/_lib.sh"; {text}', "scripts/try"],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path) -> Path:
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "_lib.sh", folder / "scripts")
    return folder


def test_environment_stands_in_the_clone(clone):
    assert shell("find_venv", clone).stdout == f"{clone}/.venv\n"


def test_environment_stands_where_it_is_told_to(clone):
    assert shell("find_venv", clone, RUNNER_VENV="/some/where").stdout == "/some/where\n"


@pytest.mark.unprivileged
def test_environment_for_a_clone_that_cannot_be_written(clone, tmp_path):
    clone.chmod(0o555)
    try:
        told = shell("find_venv", clone, HOME=str(tmp_path)).stdout
    finally:
        clone.chmod(0o755)
    assert told.startswith(f"{tmp_path}/.cache/runner/venv-")


@pytest.mark.root
def test_environment_of_another_user_is_left_alone(clone, tmp_path):
    (clone / ".venv").mkdir()
    os.chown(clone / ".venv", 12345, 12345)
    told = shell("find_venv", clone, HOME=str(tmp_path)).stdout
    assert told.startswith(f"{tmp_path}/.cache/runner/venv-")


def test_python_is_the_one_it_is_told_to_use():
    assert shell("find_python", PYTHON=sys.executable).stdout == f"{sys.executable}\n"


def test_wrong_python_is_refused_in_a_sentence():
    done = shell("find_python", PYTHON="/bin/false")
    assert done.returncode == 2
    assert done.stderr == (
        "scripts/try: PYTHON=/bin/false is not a Python 3.11 or newer; give the path of one\n"
    )


def test_python_without_ensurepip_is_told_what_to_install(clone, tmp_path):
    python = tmp_path / "python3"
    # Debian without python3-venv: everything but ensurepip is there.
    python.write_text(
        f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    done = shell("ensure_env", clone, PYTHON=str(python))
    assert done.returncode == 2
    assert done.stderr.endswith(
        "ensurepip to make an environment with: apt-get install python3-venv\n"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_demonstration(runner_home):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "_demo.py")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it as it should be." in done.stdout
    assert "NOT AS IT SHOULD BE" not in done.stdout
