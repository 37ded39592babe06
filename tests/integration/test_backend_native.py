"""The native backend, held to the contract of every backend."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import pytest

from runner.backends.native import create
from runner.ports import Backend
from runner.testing.backend_contract import BackendContract

pytestmark = pytest.mark.usefixtures("native")


class TestNativeBackend(BackendContract):
    def make_backend(self) -> Backend:
        cache = Path(tempfile.mkdtemp(prefix="runner-cache-"))
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
        return create(cache)
