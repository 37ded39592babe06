"""Supervisors killed with several runs each, a few times; scripts/soak-crash does it for long."""

from __future__ import annotations

import pytest
from soaking import soaked

SOAK = "_soak_crash.py"


@pytest.mark.slow
def test_nothing_is_lost_and_no_budget_exceeded(native, tmp_path):
    code, found, said = soaked(SOAK, tmp_path, "--kills", "24", "--per-round", "12", "--seed", "1")
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
    code, found, said = soaked(
        SOAK, tmp_path, "--kills", "16", "--per-round", "16", "--seed", "1", broken=broken
    )
    assert code == 1, said
    assert any(seen in violation for violation in found["violations"]), said
