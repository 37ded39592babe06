"""What stands on the host while a case runs, and what must stand there after it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from case_files import FOLDER, Case, built

from runner.intake import build_request
from runner.model.request import ExecRequest
from runner.testing.backend_harness import expect, expect_no_process_with

SECRET = b"the host's secret, which no run may read"
IN_ENVIRONMENT = "RUNNER_CASE_CREDENTIAL"
"""A variable of the supervisor's that holds SECRET too."""
LIMITS = {"wall": "30s", "memory": "256MiB", "workspace": "32MiB"}
UNHELD_IN_PLACE = ("workspace", "inodes")
OWNER_IN_PLACE = 23456
"""Whose a folder is that is worked on in place, as root: one of root is refused."""


class Stage:
    """What stands on the host: a workspace, and around it what a run must not reach."""

    def __init__(
        self, folder: Path, case: Case, *, in_place: bool = False, namespaces: bool = True
    ) -> None:
        """Lay it out in an empty folder."""
        self._in_place = in_place
        self.workspace = folder / "workspace"
        self.outside = folder / "outside"
        for place in (self.workspace, self.outside):
            place.mkdir()
        self._case = case
        secret = self.outside / "secret"
        secret.write_bytes(SECRET)
        (self.workspace / "old").write_text("old")
        (self.workspace / "link").symlink_to(secret)
        (self.workspace / "chain").symlink_to("link")
        (self.workspace / "up").symlink_to("../outside")
        (self.outside / "linked").write_bytes(b"one file of two names")
        (self.workspace / "hard").hardlink_to(self.outside / "linked")
        os.mkfifo(self.workspace / "pipe")
        self._lay_repository()
        self._command = self._lay_case()
        self._pipe = os.open(self.workspace / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._abstract = f"runner-case-{os.getpid()}"
        self._sockets = self._listen()
        if in_place and os.geteuid() == 0:
            for path in (self.workspace, *self.workspace.rglob("*")):
                os.chown(path, OWNER_IN_PLACE, OWNER_IN_PLACE, follow_symlinks=False)
        self._before = self._host_files()
        self.facts = {
            "outside": str(self.outside),
            "secret": str(secret),
            "abstract": self._abstract,
            "tcp": self._sockets["tcp"].getsockname()[1],
            "udp": self._sockets["udp"].getsockname()[1],
            "pid": os.getpid(),
            "namespaces": namespaces,
        }

    def _lay_repository(self) -> None:
        """What git would run or obey, and a worktree that points at it."""
        git = self.workspace / "repo" / ".git"
        (git / "hooks").mkdir(parents=True)
        (git / "config").write_text("[core]\n\tbare = false\n")
        (git / "hooks" / "pre-commit").write_text("#!/bin/sh\n")
        (git / "worktrees" / "tree").mkdir(parents=True)
        tree = self.workspace / "tree"
        tree.mkdir()
        (tree / ".git").write_text(f"gitdir: {git}/worktrees/tree\n")
        (self.workspace / ".bashrc").write_text("# honest\n")

    def _lay_case(self) -> list[str]:
        """Put it into the workspace; what runs it, without its arguments."""
        case, name = self._case, self._case.path.name
        if case.path.suffix == ".c":
            program = self.workspace / case.name
            program.write_bytes(built(case.path))
            program.chmod(0o755)
            return [f"./{case.name}"]
        shutil.copy(case.path, self.workspace)
        if case.path.suffix == ".sh":
            shutil.copy(FOLDER / "probe.sh", self.workspace)
            shutil.copy(FOLDER / "locks.py", self.workspace)
            return ["sh", f"./{name}"]
        for beside in ("probe.py", "locks.py"):
            shutil.copy(FOLDER / beside, self.workspace)
        return ["python3", name]

    def _listen(self) -> dict[str, socket.socket]:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0{self._abstract}")
        named = socket.socket(socket.AF_UNIX)
        # The path may be longer than sun_path (unix(7)).
        folder = os.open(self.workspace, os.O_PATH)
        named.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        for listener in (abstract, named):
            listener.listen()
        found = {"tcp": tcp, "udp": udp, "abstract": abstract, "in the workspace": named}
        for listener in found.values():
            listener.setblocking(False)
        return found

    def _host_files(self) -> list[tuple[str, int, int, bytes]]:
        found = []
        guarded = [self.workspace / ".bashrc"]
        inside = guarded if self._in_place else list(self.workspace.rglob("*"))
        for path in sorted([*inside, *self.outside.rglob("*"), self.outside]):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found.append((str(path), status.st_mode, status.st_mtime_ns, content))
        return found

    def request(self, mode: str, profile: str) -> ExecRequest:
        """What runs the case in this mode."""
        stated, arguments = self._case.stated, [mode, json.dumps(self.facts)]
        limits = LIMITS | stated.get("LIMITS", {})
        if self._in_place:
            limits = {name: limits[name] for name in limits if name not in UNHELD_IN_PLACE}
        options: dict[str, Any] = {
            "cwd": self.workspace,
            "env": {"PYTHONDONTWRITEBYTECODE": "1"},
            "limits": limits,
            "terminal": stated.get("TERMINAL", False),
            "profile": profile,
        }
        if self._case.path.suffix == ".py":
            if self._in_place:  # then a script runs from elsewhere, where nobody can replace it
                options["env"]["PYTHONPATH"] = str(self.workspace)
            script = self.workspace / self._case.path.name
            return build_request(script=script, args=arguments, **options)
        return build_request(argv=[*self._command, *arguments], **options)

    def expect_unharmed(self) -> None:
        """Nothing on the host was changed, reached or left over. AssertionError."""
        changed = set(self._host_files()) ^ set(self._before)
        names = sorted({os.path.relpath(path, self.outside.parent) for path, *_ in changed})
        expect(
            not changed,
            f"changed on the host: {', '.join(names)[:500]}; {sorted(changed)[:6]!r:.1000}",
        )
        for name, listener in self._sockets.items():
            reached = True
            try:
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()
            except BlockingIOError:
                reached = False
            expect(not reached, f"reached on the host: {name}; {listener.getsockname()!r}")
        expect(not os.read(self._pipe, 100), "something came through a FIFO of the workspace")
        # The facts are in the arguments of every process of the run.
        expect_no_process_with(json.dumps(self.facts))

    def close(self) -> None:
        """Let go of what listened, and of what was worked on in place."""
        os.close(self._pipe)
        for listener in self._sockets.values():
            listener.close()
        if self._in_place:
            # Whatever it left: trees deeper than Python removes, folders that are closed.
            for command in (["chmod", "-R", "u+rwX"], ["rm", "-r", "-f"]):
                subprocess.run([*command, self.workspace], check=True)


@contextlib.contextmanager
def staged(
    folder: Path, case: Case, *, in_place: bool = False, namespaces: bool = True
) -> Iterator[Stage]:
    """A stage in this empty folder, and a credential in this process's environment."""
    stage = Stage(folder.resolve(), case, in_place=in_place, namespaces=namespaces)
    os.environ[IN_ENVIRONMENT] = SECRET.decode()
    try:
        yield stage
    finally:
        del os.environ[IN_ENVIRONMENT]
        stage.close()
