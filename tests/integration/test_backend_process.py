"""The tier `process`, held to the contract of every backend, with its exceptions by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.backends.native import create
from runner.backends.native.launcher import kernel
from runner.model.profile import Isolation
from runner.model.protection import LANDLOCK_OF_PROCESS_TIER
from runner.model.spec import SandboxSpec
from runner.ports import Backend
from runner.testing.backend_contract import BackendContract


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        abi = kernel.landlock_abi()
    except OSError:
        abi = 0
    if abi < LANDLOCK_OF_PROCESS_TIER:
        pytest.skip(f"the tier needs Landlock ABI {LANDLOCK_OF_PROCESS_TIER}; here is {abi}")
    TestProcessTier.cache_folder = tmp_path_factory.mktemp("cache")
    return TestProcessTier.cache_folder


@pytest.mark.usefixtures("cache")
class TestProcessTier(BackendContract):
    cache_folder: Path

    def make_backend(self) -> Backend:
        return create(self.cache_folder)

    def base_spec(self, **overrides: Any) -> SandboxSpec:
        return super().base_spec(**{"isolation": Isolation.PROCESS, **overrides})
