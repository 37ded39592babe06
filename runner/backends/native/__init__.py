"""Sandboxes from the kernel's own parts: no daemon, no root, the same code as root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.ports import Backend


def create(cache: Path) -> Backend:
    """The backend; `cache` is a folder that only this user may write."""
    from runner.backends.native.backend import NativeBackend  # noqa: PLC0415  (late: speed)

    return NativeBackend(cache)
