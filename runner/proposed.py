"""What whoever wants a run says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypedDict

from runner.model.limits import LimitOverrides


class Proposed(TypedDict, total=False):
    """What is to be run beside `argv`, by whom and under what: see `Runner.run`."""

    shell: str | None
    script: str | os.PathLike[str] | None
    code: str | bytes | None
    language: str | None
    args: Sequence[str]
    profile: str | None
    agent: str | None
    parent: str | None
    session: str | None
    tenant: str | None
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    limits: Mapping[str, object] | LimitOverrides | None
    labels: Mapping[str, str] | None
