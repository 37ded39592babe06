"""The native backend, held to the contract of every backend."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.backends.native import create
from runner.ports import Backend
from runner.testing.backend_contract import BackendContract
from runner.testing.backend_harness import Given


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    TestNativeBackend.cache_folder = tmp_path_factory.mktemp("cache")
    return TestNativeBackend.cache_folder


@pytest.mark.usefixtures("native", "cache")
class TestNativeBackend(BackendContract):
    cache_folder: Path

    def make_backend(self) -> Backend:
        return create(self.cache_folder)

    @pytest.mark.parametrize("terminal", [False, True])
    def test_a_run_leaves_no_descriptor_open(self, terminal: bool) -> None:
        ours, theirs = os.openpty()
        given = Given(terminal=theirs) if terminal else Given()
        try:
            with self.backend() as backend:
                self.shell("exit 3", given=given, backend=backend, terminal=terminal).exited(3)
                before = set(os.listdir("/proc/self/fd"))
                for _ in range(3):
                    ran = self.shell("echo x", given=given, backend=backend, terminal=terminal)
                    assert ran.exited().stdout == (b"x\r\n" if terminal else b"x\n")
                assert set(os.listdir("/proc/self/fd")) == before
        finally:
            os.close(ours)
            os.close(theirs)
