"""SandboxSpec to the launcher's plan for the tier `process`; pure.

Nothing is mounted, so nothing stands where a spec says: what a run may write lies in one folder,
and the words that name its parts are exchanged for where they really are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from runner.backends.native import plan
from runner.model.limits import Unlimited
from runner.model.profile import WorkspaceMode
from runner.model.spec import RUN_FOLDER, SandboxSpec

HOME = "/home/agent"


def plan_process(
    spec: SandboxSpec, seccomp: bytes, host: plan.Host, scratch: str
) -> tuple[dict[str, Any], list[bytes]]:
    """The launcher's header and its blobs; `scratch` is the run's folder, made and empty."""
    places = _Places(spec, scratch)
    files = tuple(replace(file, path=places.of(file.path)) for file in spec.files)
    named = {file.path for file in spec.files}
    environment = dict(spec.environment)
    if environment.get("HOME") == HOME:
        environment["HOME"] = places.home
    environment["TMPDIR"] = places.tmp
    # git gives up at a machine's configuration that is there and closed to it.
    environment.setdefault("GIT_CONFIG_NOSYSTEM", "1")
    moved = replace(
        spec,
        argv=tuple(places.of(word) if word in named else word for word in spec.argv),
        cwd=places.of(spec.cwd),
        environment=tuple(environment.items()),
        files=files,
        workspace=replace(spec.workspace, target=places.workspace),
    )
    header, blobs = plan.plan(moved, seccomp, host)
    if not isinstance(spec.limits.workspace_bytes, Unlimited):
        # Of each file; all together are measured (launcher/measure.py).
        header["rlimits"]["RLIMIT_FSIZE"] = spec.limits.workspace_bytes
    header |= {
        "isolation": "process",
        "scratch": scratch,
        "home": places.home,
        "tmp": places.tmp,
        "run": places.run,
    }
    return header, blobs


class _Places:
    """Where the parts of a spec really are."""

    def __init__(self, spec: SandboxSpec, scratch: str) -> None:
        self.workspace = f"{scratch}/workspace"
        self.home = f"{scratch}/home"
        self.tmp = f"{scratch}/tmp"  # noqa: S108  (the run's own)
        self.run = f"{scratch}/run"
        shown = spec.workspace.mode is not WorkspaceMode.NONE
        target = spec.workspace.target if shown else None
        self._moved = [(RUN_FOLDER, self.run), (HOME, self.home)]
        if target is not None:
            self._moved.insert(0, (target, self.workspace))

    def of(self, path: str) -> str:
        """`path` where it lies now; as it is when it is not of the run's own."""
        for before, now in self._moved:
            if PurePosixPath(path).is_relative_to(before):
                rest = PurePosixPath(path).relative_to(before)
                return str(PurePosixPath(now) / rest)
        return path
