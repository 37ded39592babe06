"""The native backend, held to the contract of every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.backends.native import create
from runner.ports import Backend
from runner.testing.backend_contract import BackendContract


@pytest.mark.usefixtures("native", "cache")
class TestNativeBackend(BackendContract):
    cache_folder: Path

    @pytest.fixture(scope="class")
    def cache(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        request.cls.cache_folder = tmp_path_factory.mktemp("cache")

    def make_backend(self) -> Backend:
        return create(self.cache_folder)
