"""What a soak runs: the quick ones of the security cases with their twins, and honest work."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import Outcome, Runner
from runner.caller import Caller
from runner.intake import build_request
from runner.streams import NullSink

CASES = Path(__file__).resolve().parents[1] / "tests" / "security" / "cases"
QUICK = (
    "p001_links_out",
    "p003_hard_links",
    "p005_the_root_stays",
    "p016_devices",
    "p023_collected",
    "p025_paths_without_end",
    "p061_many_processes",
    "p062_many_threads",
    "p063_daemons",
    "p066_signals",
    "p081_limits_raised",
    "p086_forged_result",
    "p087_memory",
    "p089_full_disk",
    "p092_output",
    "p096_stopped",
    "p102_descriptors",
)
"""Ended within seconds: bombs, memory, full disks, stopped trees, daemons, deep folders."""
BUSY = {"p096_stopped": {"wall": "6s"}}
"""Limits that leave time for the twin on a machine where eight run at once."""
LIMITS = {"wall": "30s", "memory": "256MiB", "workspace": "32MiB"}

PYTHON = """
import hashlib, json, pathlib
folder = pathlib.Path("made")
folder.mkdir()
for number in range(20):
    (folder / f"{number}.json").write_text(json.dumps({"n": number, "data": "x" * 1000}))
print(sum(json.loads(path.read_text())["n"] for path in folder.iterdir()))
"""
SHELL = "for n in 1 2 3 4 5; do echo $n > part$n; done; cat part* | sort -r | tr -d '\\n' | wc -c"
GIT = (
    "git init -q . && git add old && git -c user.name=a -c user.email=a@b commit -qm one && "
    "echo new > old && git diff --stat | tail -1"
)


@dataclass(frozen=True)
class Work:
    """One kind of run, and what is wrong with how it ended (None: nothing)."""

    name: str
    request: Mapping[str, Any]
    wrong: Callable[[Outcome], str | None]

    def do(self, runner: Runner) -> str | None:
        """Run it once."""
        caller = Caller(None, NullSink(), NullSink())
        outcome = runner.execute(build_request(**self.request), caller)
        why = self.wrong(outcome)
        if why is None and outcome.left:
            why = f"left behind: {outcome.left}"
        if why is None:
            return None
        said = (outcome.stdout.data[-300:], outcome.stderr.data[-300:])
        return f"{self.name} ({outcome.run_id}): {why}; {outcome.failure} {said}"


@dataclass
class Stage:
    """The workspace that all share, which no run changes, and what stands around it."""

    folder: Path

    def __post_init__(self) -> None:
        self.workspace, self.outside = self.folder / "workspace", self.folder / "outside"
        for place in (self.workspace, self.outside):
            place.mkdir()
        for name in (*(f"{stem}.py" for stem in QUICK), "probe.py"):
            shutil.copy(CASES / name, self.workspace)
        (self.outside / "secret").write_text("nobody may read this")
        (self.outside / "linked").write_text("one file of two names")
        (self.workspace / "old").write_text("old")
        (self.workspace / "link").symlink_to(self.outside / "secret")
        (self.workspace / "chain").symlink_to("link")
        (self.workspace / "up").symlink_to("../outside")
        (self.workspace / "hard").hardlink_to(self.outside / "linked")
        os.mkfifo(self.workspace / "pipe")
        self._before = self._contents()

    def _contents(self) -> dict[str, tuple[int, int, bytes]]:
        found = {}
        for path in sorted([*self.workspace.rglob("*"), *self.outside.rglob("*")]):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
        return found

    def changed(self) -> list[str]:
        """What is not as it was; there must be nothing."""
        now = self._contents()
        return sorted(
            path
            for path in now.keys() | self._before.keys()
            if now.get(path) != self._before.get(path)
        )

    def all_work(self) -> list[Work]:
        """Each attack, each twin, and as many runs of honest work."""
        attacks = [work for stem in QUICK for work in self._case(stem)]
        honest = [
            self._honest("python", {"code": PYTHON, "language": "python"}, b"190\n"),
            self._honest("shell", {"shell": SHELL}, b"5\n"),
            self._honest("files", {"argv": ["cp", "-r", ".", "/tmp/copy"]}, b""),
            self._honest("words", {"argv": ["echo", "fine"]}, b"fine\n"),
            self._failing("a program that fails", {"shell": "exit 3"}, 3),
            self._failing("no such program", {"argv": ["no-such-program"]}, 127),
        ]
        if shutil.which("git", path="/usr/bin:/bin") is not None:
            honest.append(
                self._honest(
                    "git", {"shell": GIT}, b" 1 file changed, 1 insertion(+), 1 deletion(-)\n"
                )
            )
        return attacks + honest * (len(attacks) // len(honest) + 1)

    def _honest(self, name: str, program: Mapping[str, Any], expected: bytes) -> Work:
        def wrong(outcome: Outcome) -> str | None:
            if outcome.ok and outcome.stdout.data == expected:
                return None
            return f"ended as {outcome.termination} {outcome.limit} {outcome.exit_code}"

        return Work(name, {**program, "cwd": self.workspace}, wrong)

    def _failing(self, name: str, program: Mapping[str, Any], status: int) -> Work:
        def wrong(outcome: Outcome) -> str | None:
            return None if outcome.status == status else f"status {outcome.status}, not {status}"

        return Work(name, {**program, "cwd": self.workspace}, wrong)

    def _case(self, stem: str) -> list[Work]:
        stated = constants(CASES / f"{stem}.py")
        facts = {
            "namespaces": True,
            "outside": str(self.outside),
            "secret": str(self.outside / "secret"),
            "pid": os.getpid(),
        }
        return [
            Work(
                f"{stem} {mode}",
                {
                    "script": self.workspace / f"{stem}.py",
                    "args": [mode, json.dumps(facts)],
                    "cwd": self.workspace,
                    "env": {"PYTHONDONTWRITEBYTECODE": "1"},
                    "limits": LIMITS | stated.get("LIMITS", {}) | BUSY.get(stem, {}),
                    "terminal": stated.get("TERMINAL", False),
                },
                _judged_by(stated.get("EXPECTED", {}).get(mode, {})),
            )
            for mode in ("attack", "twin")
        ]


def _judged_by(stated: Mapping[str, Any]) -> Callable[[Outcome], str | None]:
    wanted = stated.get("termination", "exited")

    def wrong(outcome: Outcome) -> str | None:
        said = outcome.stdout.data.decode(errors="replace")
        if found := re.findall(r"^WRONG.*", said, re.MULTILINE):
            return found[0]
        # Which limit ends it first is a matter of how busy the machine is; that one does is not.
        if outcome.termination != wanted:
            return f"ended as {outcome.termination} {outcome.limit}, not {wanted}"
        if wanted == "exited" and outcome.exit_code != stated.get("exit_code", 0):
            return f"exit code {outcome.exit_code}"
        return None if re.search(r"^TRIED [1-9]", said, re.MULTILINE) else "nothing was tried"

    return wrong


def constants(case: Path) -> dict[str, Any]:
    """What a case states about itself in capitals, read without running it."""
    found = {}
    for statement in ast.parse(case.read_text()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                with contextlib.suppress(ValueError):
                    found[name] = ast.literal_eval(value)
    return found
