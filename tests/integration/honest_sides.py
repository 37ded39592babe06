"""The two sides of `honest_work.py`: the same program outside, and in a sandbox.

A program in a sandbox is an ordinary user with an ordinary environment. So it is outside: as root,
the outer half runs as `nobody`, and both get the same variables but for the home folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner import Runner
from runner.streams import CallbackSink

PROFILE = Path(__file__).resolve().parents[1] / "data" / "honest" / "profile.yaml"
NOBODY = 65534
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPEN_FILES = 1024
"""The profile's own bound: some tests try to reach it, and skip themselves where it is far."""
OUTSIDE_S = 1800
"""What hangs outside would hang for good."""


@dataclass(frozen=True)
class Ran:
    """What came of a program on one side."""

    ended: str
    """`exited N`, or what else ended it, in words."""
    stdout: bytes
    stderr: bytes
    changes: Mapping[str, str] = field(default_factory=dict)
    """Path below the workspace -> what it is now: `created file DIGEST`, `deleted`, …"""
    degraded: tuple[str, ...] = ()
    wall_s: float | None = None


class Desk:
    """A folder to work in, and the means to work there on both sides. Close it."""

    def __init__(self, read: Sequence[str] = ()) -> None:
        """`read`: folders to show in the sandbox, beside what the profile shows."""
        self.base = Path(tempfile.mkdtemp(prefix="honest-"))
        self.base.chmod(0o755)  # `nobody` has to come through
        self.user = NOBODY if os.geteuid() == 0 else None
        self.workspace = self._own("work")
        self.home = self._own("home")
        self._profile = self.base / "honest.yaml"
        self._profile.write_text(json.dumps({"extends": str(PROFILE), "read": list(read)}))
        self._runner = Runner(home=self.base / "state", backend="native")

    def _own(self, name: str) -> Path:
        folder = self.base / name
        folder.mkdir(mode=0o755)
        if self.user is not None:
            os.chown(folder, self.user, self.user)
        return folder

    def put(self, files: Mapping[str, str]) -> None:
        """Write files into the workspace, owned by who works there; a `#!` makes a program."""
        for name, text in files.items():
            path = self.workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        self.hand_over()

    def hand_over(self) -> None:
        """Let all that stands in the workspace belong to who works there."""
        if self.user is not None:
            for path in self.workspace.rglob("*"):
                os.chown(path, self.user, self.user, follow_symlinks=False)

    def clear(self) -> None:
        """An empty workspace and home again."""
        for folder in (self.workspace, self.home):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def inside(self, argv: Sequence[str] | None = None, **options: Any) -> Ran:
        """In a sandbox under the profile of `tests/data/honest`."""
        out, err = bytearray(), bytearray()
        outcome = self._runner.run(
            argv,
            profile=str(self._profile),
            agent="honest",
            cwd=self.workspace,
            stdout=CallbackSink(out.extend),
            stderr=CallbackSink(err.extend),
            **options,
        )
        ended = str(outcome.termination)
        if outcome.exit_code is not None:
            ended = f"exited {outcome.exit_code}"
        elif outcome.limit is not None:
            ended = f"limit {outcome.limit}"
        elif outcome.signal is not None:
            ended = f"signal {outcome.signal}"
        if outcome.decision.rules and outcome.termination == "denied":
            ended = f"denied by {', '.join(rule.id for rule in outcome.decision.rules)}"
        if outcome.failure is not None:
            ended += f": {outcome.failure.message}"
        if outcome.changes_truncated:
            ended += ", and the list of changes is cut"
        changes = {
            change.path: _told(str(change.kind), change.type, change.sha256)
            for change in outcome.changes
        }
        return Ran(
            ended, bytes(out), bytes(err), changes, outcome.degraded, outcome.usage.wall_s
        )  # fmt: skip

    def outside(self, argv: Sequence[str]) -> Ran:
        """In the workspace itself, which keeps what was changed."""
        before = photograph(self.workspace)
        environment = {"PATH": PATH, "HOME": str(self.home), "LANG": "C.UTF-8"}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                [
                    "env",
                    "--default-signal",
                    "prlimit",
                    f"--nofile={OPEN_FILES}:{OPEN_FILES}",
                    "--",
                    *argv,
                ],
                cwd=self.workspace,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                umask=0o022,
                start_new_session=True,
            )
            began_s = time.monotonic()
            try:
                code = process.wait(OUTSIDE_S)
                ended = f"exited {code}" if code >= 0 else f"signal {-code}"
            except subprocess.TimeoutExpired:
                ended = f"killed after {OUTSIDE_S} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            wall_s = time.monotonic() - began_s
            out.seek(0)
            err.seek(0)
            texts = out.read(), err.read()
        changes = dict(differing(before, photograph(self.workspace)))
        return Ran(ended, *texts, changes, wall_s=wall_s)

    def photograph(self) -> dict[str, tuple[str, str | None]]:
        """The workspace as it is; see `photograph`."""
        return photograph(self.workspace)

    def close(self) -> None:
        """Let go of the state folder and remove everything."""
        self._runner.close()
        shutil.rmtree(self.base)


def photograph(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Path below `folder` -> type, and the digest of a file's content or a link's target."""
    seen: dict[str, tuple[str, str | None]] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        digest = None
        if stat.S_ISLNK(mode):
            kind, content = "symlink", os.fsencode(path.readlink())
        elif stat.S_ISREG(mode):
            kind, content = "file", path.read_bytes()
        else:
            kind, content = "directory" if stat.S_ISDIR(mode) else "special", None
        if content is not None:
            digest = hashlib.sha256(content).hexdigest()
        seen[str(path.relative_to(folder))] = kind, digest
    return seen


def differing(
    before: Mapping[str, tuple[str, str | None]], after: Mapping[str, tuple[str, str | None]]
) -> Iterator[tuple[str, str]]:
    """What changed between two photographs, in the words of an outcome's changes."""
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            if path not in after:
                yield path, _told("deleted", *before[path])
            else:
                kind = "modified" if path in before else "created"
                yield path, _told(kind, *after[path])


def _told(kind: str, type_: str, sha256: str | None) -> str:
    return " ".join([kind, type_, *([sha256] if sha256 and kind != "deleted" else [])])
