"""Each case of `cases/` in a sandbox of each target: see `harness.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import case_files
import harness
from conftest import docker_missing, native_missing

from runner import Runner

CASES = case_files.cases()
MISSING: dict[str, Callable[[], str | None]] = {
    "native": native_missing,
    "docker": docker_missing,
}


def _parameters() -> list[object]:
    marks = {"docker": [pytest.mark.docker, pytest.mark.xdist_group("docker")]}
    return [
        pytest.param(
            target, case, id=f"{target.name}-{case.name}", marks=marks.get(target.backend, ())
        )
        for target in harness.TARGETS
        for case in CASES
    ]


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory):
    made: dict[str, Runner] = {}

    def runner(backend: str) -> Runner:
        if backend not in made:
            home = tmp_path_factory.mktemp("state") / "home"
            made[backend] = Runner(home=home, backend=backend)
        return made[backend]

    yield runner
    for one in made.values():
        failure = one.store.verify().failure
        one.close()
        assert failure is None


@pytest.mark.parametrize(("target", "case"), _parameters())
def test_case(target: harness.Target, case: case_files.Case, runners, tmp_path: Path) -> None:
    why = MISSING[target.backend]() or case.not_run(target.name)
    if why is not None:
        pytest.skip(why)
    found = harness.run_case(case, target, runners(target.backend), tmp_path)
    wrong = {column: cell for column, cell in found.items() if cell.startswith("NO")}
    assert not wrong
