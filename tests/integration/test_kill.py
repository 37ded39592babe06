"""runner killed at random moments, a few times; scripts/soak-kill does it for long."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
BUSY_SEED = 7
"""Chosen so that its first round kills the supervisor while the program runs."""


def soak(tmp_path, *words, **environment):
    """The script's exit code, its summary as an object, and what it printed."""
    summary = tmp_path / "summary.json"
    done = subprocess.run(
        [sys.executable, SCRIPTS / "_soak_kill.py", *words, "--json", summary],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = done.stdout + done.stderr
    return done.returncode, json.loads(summary.read_text()) if summary.exists() else said, said


@pytest.mark.slow
def test_nothing_survives_a_kill(native, tmp_path):
    code, found, said = soak(tmp_path, "--times", "12", "--seed", "1")
    assert code == 0, said
    assert found["rounds"] == 12
    assert found["violations"] == []
    assert found["victims"]["supervisor"] >= 6
    assert found["recovered"] >= 2


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        (
            "import runner.stores.sqlite as m; m.SqliteStore.recover = lambda self: []",
            "the record was ['run.decided', 'run.started'] and became",
        ),
        (
            "import runner.backends.native.zygote as m; m._BOOT = m._BOOT.replace('; zygote.main', "
            "'; zygote.builder.Builder._kill = lambda self, why: None; zygote.main')",
            "lives on: ",
        ),
    ],
    ids=["no recovery", "a builder that does not kill"],
)
def test_a_broken_runner_is_found_out(native, tmp_path, broken, seen):
    """The twin: the same rounds fail when what they look for is there."""
    custom = tmp_path / "custom"
    custom.mkdir()
    # sitecustomize is imported by each Python that starts, the soak's own runner among them.
    (custom / "sitecustomize.py").write_text(broken)
    path = os.pathsep.join(filter(None, [str(custom), os.environ.get("PYTHONPATH")]))
    code, found, said = soak(
        tmp_path, "--times", "1", "--seed", str(BUSY_SEED), "--bound", "3", PYTHONPATH=path
    )
    assert code == 1, said
    assert any(seen in violation for violation in found["violations"]), said
