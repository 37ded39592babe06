"""A supervisor killed at steps all along a run; `scripts/crash-walk` does it at every one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from _soak_ledger import BUDGETS  # noqa: E402

WALK = ROOT / "tests" / "crash_walk.py"
PROGRAM = '(sleep 300 &); echo x > "ran-$WALK"; echo out'
COW = "extends: agent\n"
BIND = COW + "workspace: bind\nlimits: {workspace: unlimited, inodes: unlimited}\n"


@pytest.mark.parametrize(
    ("mode", "words", "every", "first", "at_least"),
    [
        ("cow", ["sh", "-c", PROGRAM], 18, 3, 5),
        ("bind", ["sh", "-c", PROGRAM], 18, 12, 5),
        ("cow", ["sudo", "id"], 6, 2, 3),
    ],
)
def test_killed_at_steps_the_record_is_whole(tmp_path, native, mode, words, every, first, at_least):
    profile = tmp_path / "walked.yaml"
    profile.write_text((BIND if mode == "bind" else COW) + BUDGETS)
    options = ["--every", str(every), "--from", str(first)]
    done = subprocess.run(
        [sys.executable, str(WALK), *options, str(tmp_path), str(profile), *words],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    killed, rest = done.stdout.removeprefix("killed at ").split(" ", 1)
    assert rest == "steps\n", done.stdout
    assert int(killed) >= at_least
