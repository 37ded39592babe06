"""The native backend, held to the contract of every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.backends.native import create
from runner.ports import Backend
from runner.testing.backend_contract import BackendContract


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    TestNativeBackend.cache_folder = tmp_path_factory.mktemp("cache")
    return TestNativeBackend.cache_folder


@pytest.mark.usefixtures("native", "cache")
class TestNativeBackend(BackendContract):
    cache_folder: Path

    def make_backend(self) -> Backend:
        return create(self.cache_folder)
