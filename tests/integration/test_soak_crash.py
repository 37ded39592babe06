"""Supervisors killed with several runs each, a few times; scripts/soak-crash does it for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOAK = Path(__file__).resolve().parents[2] / "scripts" / "_soak_crash.py"


def crashed(tmp_path: Path, *words: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """The script's exit code, its summary, and what it printed."""
    summary = tmp_path / "summary.json"
    done = subprocess.run(
        [sys.executable, SOAK, *words, "--json", summary],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    said = done.stdout + done.stderr
    return done.returncode, json.loads(summary.read_text()) if summary.exists() else {}, said


@pytest.mark.slow
def test_nothing_is_lost_and_no_budget_exceeded(native, tmp_path):
    code, found, said = crashed(tmp_path, "--kills", "24", "--per-round", "12", "--seed", "1")
    assert code == 0, said
    assert found["kills"] >= 24
    assert found["violations"] == []
    assert found["runs"]["exited"] > 3
    assert found["runs"]["unknown"] > 3


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        (
            "import runner.stores.ledger as m; m.settle_whole = lambda *words: []",
            "stays held, and no run is open",
        ),
        (
            "import runner.stores.sqlite as m; m.SqliteStore.recover = lambda self: []",
            "has not exactly one outcome",
        ),
    ],
    ids=["holds that stay", "no recovery"],
)
def test_a_broken_runner_is_found_out(native, tmp_path, broken, seen):
    """The twin: the same rounds fail when what they look for is there."""
    custom = tmp_path / "custom"
    custom.mkdir()
    # sitecustomize is imported by each Python that starts, the soak's own among them.
    (custom / "sitecustomize.py").write_text(broken)
    path = os.pathsep.join(filter(None, [str(custom), os.environ.get("PYTHONPATH")]))
    code, found, said = crashed(
        tmp_path, "--kills", "16", "--per-round", "16", "--seed", "1", PYTHONPATH=path
    )
    assert code == 1, said
    assert any(seen in violation for violation in found["violations"]), said
