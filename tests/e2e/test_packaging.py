"""The wheel as a stranger gets it: in an environment of its own, started from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def call(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Nothing of the environment that these tests run in may help: no PYTHONPATH, no settings.
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RUNNER_", "VIRTUAL"))
    }
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = call(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Path of the console script in an environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    made = call(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    assert made.returncode == 0, made.stdout + made.stderr
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
    done = call(*pip, wheel, cwd=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin" / "runner"


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_wheel_holds_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(n).decode() for n in names if n.endswith("/METADATA"))
    profiles = {path.name for path in (ROOT / "profiles").glob("*.yaml")}
    assert {"locked.yaml", "agent.yaml", "ci.yaml"} <= profiles
    assert {f"runner/_data/profiles/{name}" for name in profiles} <= names
    assert "runner/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "Requires-Python: >=3.11" in metadata


def test_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "runner").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    data = {name for name in names if name.startswith("runner/_data/profiles/")}
    assert names - data == package


def test_runner_starts_from_another_folder(installed, elsewhere, tmp_path):
    home = str(tmp_path / "home")
    version = call(installed, "--version", cwd=elsewhere, RUNNER_HOME=home)
    assert version.returncode == 0, version.stderr
    assert "0.1.0" in version.stdout
    profiles = call(installed, "profile", "list", cwd=elsewhere, RUNNER_HOME=home)
    assert profiles.returncode == 0, profiles.stderr
    assert all(name in profiles.stdout for name in ("locked", "agent", "ci"))


def test_module_is_typed_and_cheap_to_import(installed, elsewhere):
    text = (
        "import sys, runner; print(runner.__version__); "
        "print([m for m in ('pydantic', 'typer', 'sqlite3', 'rich') if m in sys.modules])"
    )
    done = call(installed.parent / "python", "-I", "-c", text, cwd=elsewhere)
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr


@pytest.mark.usefixtures("native")
def test_installed_runner_runs_a_program(installed, elsewhere, tmp_path):
    home = str(tmp_path / "home")
    (elsewhere / "note.txt").write_text("from the workspace\n")
    done = call(installed, "run", "--", "cat", "note.txt", cwd=elsewhere, RUNNER_HOME=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "from the workspace\n"
    failed = call(installed, "run", "-c", "exit 7", cwd=elsewhere, RUNNER_HOME=home)
    assert failed.returncode == 7, failed.stderr
    verified = call(installed, "audit", "verify", cwd=elsewhere, RUNNER_HOME=home)
    assert verified.returncode == 0, verified.stdout + verified.stderr
