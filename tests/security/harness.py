"""Runs a case of `cases/` against a target, and says what came of it.

A case is a program that runs in a sandbox: its attack first, then an honest run, then its twin.
What is said of it is four things: the attack was denied, the log tells of it, the next run works,
and what the twin does, which is the same thing granted, is allowed. `attacks.py` prints them as a
table, `test_cases.py` insists on them.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from runner import Outcome, Runner
from runner.intake import build_request
from runner.model.request import ExecRequest
from runner.streams import NullSink
from runner.supervisor import Caller
from runner.testing.backend_harness import expect_no_process_with

FOLDER = Path(__file__).resolve().parent / "cases"
SUFFIXES = (".py", ".c", ".sh")
SECRET = b"the host's secret, which no run may read"
IN_ENVIRONMENT = "RUNNER_CASE_CREDENTIAL"
"""A variable of the supervisor's that holds SECRET too."""
LIMITS = {"wall": "30s", "memory": "256MiB", "workspace": "32MiB"}
UNHELD_IN_PLACE = ("workspace", "inodes")
HONEST = "printf old > /tmp/old && cat /tmp/old && echo new > made && echo fine"
COLUMNS = ("denied", "recorded", "next run", "twin")


@dataclass(frozen=True, slots=True)
class Target:
    """What cases run against: a backend, and what its profile has other than the default one."""

    name: str
    backend: str
    changes: Mapping[str, object] = field(default_factory=dict)
    """Keys of a profile that extends `agent`."""
    in_place: bool = False
    """The workspace is the host's own folder, so what a case does there is there: around it all
    must stand as before, what was changed is not listed, and nothing holds its size."""

    def profile(self, folder: Path) -> str:
        """Its name, or a file of its own in `folder`."""
        if not self.changes:
            return "agent"
        file = folder / f"{self.name}.yaml"
        stated = {"name": self.name, "extends": "agent", **self.changes}
        file.write_text(yaml.safe_dump(stated))
        return str(file)


TARGETS = (
    Target("native", "native"),
    Target("docker", "docker"),
)
"""A tier or a workspace mode more is a line here."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file of `cases/`, and what it states about itself in capitals.

    In a Python file these are assignments, in others lines of the comment that heads it.
    """

    path: Path
    stated: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Without the suffix."""
        return self.path.stem

    def expected(self, mode: str, outcome: Outcome) -> dict[str, Any]:
        """Fields of the outcome; `WITHOUT` says what else to expect without a protection."""
        found = dict(self.stated.get("EXPECTED", {}).get(mode, {}))
        for protection, changed in self.stated.get("WITHOUT", {}).items():
            if protection not in outcome.protections:
                found = dict(changed.get(mode, found))
        return found

    def gap(self, outcome: Outcome) -> str | None:
        """What this attack is known to reach without a protection that is not in force; None."""
        for protection, changed in self.stated.get("WITHOUT", {}).items():
            if protection not in outcome.protections and "gap" in changed:
                return f"gap without {protection}: {changed['gap']}"
        return None

    def not_on(self, target: Target) -> str | None:
        """Why it can't run against this target, or None."""
        why: str | None = self.stated.get("NOT_ON", {}).get(target.name)
        return why


def load(path: Path) -> Case:
    """Read what a case states, without running any of it."""
    text = path.read_text()
    if path.suffix != ".py":
        head = text.split("*/")[0] if path.suffix == ".c" else text.split("\n\n")[0]
        text = "\n".join(re.findall(r"^[ *#]*([A-Z_]+ = .*)$", head, re.MULTILINE))
    found = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                with contextlib.suppress(ValueError):
                    found[name] = ast.literal_eval(value)
    return Case(path, found)


def cases() -> list[Case]:
    """All, in their order."""
    files = [path for path in FOLDER.glob("p*_*") if path.suffix in SUFFIXES]
    return [load(path) for path in sorted(files)]


@cache
def compiler() -> tuple[str, ...] | None:
    """What to compile C with: RUNNER_TEST_CC, cc, gcc, clang, or zig from PyPI; None."""
    if named := os.environ.get("RUNNER_TEST_CC"):
        return tuple(shlex.split(named))
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return (found,)
    zig = (sys.executable, "-m", "ziglang", "cc")
    works = subprocess.run([*zig, "--version"], capture_output=True, check=False).returncode == 0
    return zig if works else None


NO_COMPILER = "no C compiler: install gcc, or `pip install ziglang`, or name one in RUNNER_TEST_CC"


def build(case: Case, target: Path) -> None:
    """Compile a case, without a library that a target's root may lack where that can be."""
    command = [*(compiler() or ()), "-O1", "-w", "-pthread", "-o", str(target), str(case.path)]
    for linking in (["-static"], []):
        done = subprocess.run(
            [*command, *linking], capture_output=True, text=True, check=False,
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(target.parent / ".zig")},
        )  # fmt: skip
        if done.returncode == 0:
            return
    raise AssertionError(f"{case.path.name} does not compile: {done.stderr}")


class Stage:
    """What stands on the host: a workspace, and around it what a run must not reach."""

    def __init__(self, folder: Path, case: Case, *, in_place: bool = False) -> None:
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
        self._before = self._host_files()
        self.facts = {
            "outside": str(self.outside),
            "secret": str(secret),
            "abstract": self._abstract,
            "tcp": self._sockets[0].getsockname()[1],
            "udp": self._sockets[1].getsockname()[1],
            "pid": os.getpid(),
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
            build(case, self.workspace / case.name)
            return [f"./{case.name}"]
        shutil.copy(case.path, self.workspace)
        if case.path.suffix == ".sh":
            shutil.copy(FOLDER / "probe.sh", self.workspace)
            return ["sh", f"./{name}"]
        shutil.copy(FOLDER / "probe.py", self.workspace)
        return ["python3", name]

    def _listen(self) -> list[socket.socket]:
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
        for listener in (tcp, udp, abstract, named):
            listener.setblocking(False)
        return [tcp, udp, abstract, named]

    def _host_files(self) -> list[tuple[str, int, int, bytes]]:
        found = []
        inside = [] if self._in_place else list(self.workspace.rglob("*"))
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
            script = self.workspace / self._case.path.name
            return build_request(script=script, args=arguments, **options)
        return build_request(argv=[*self._command, *arguments], **options)

    def expect_unharmed(self) -> None:
        """Nothing on the host was changed, reached or left over. AssertionError."""
        changed = set(self._host_files()) ^ set(self._before)
        expect(not changed, f"changed on the host: {sorted(changed)[:6]!r:.1000}")
        for listener in self._sockets:
            reached = True
            try:
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()
            except BlockingIOError:
                reached = False
            expect(not reached, f"{listener.getsockname()!r} was reached")
        expect(not os.read(self._pipe, 100), "something came through a FIFO of the workspace")
        # The facts are in the arguments of every process of the run.
        expect_no_process_with(json.dumps(self.facts))

    def close(self) -> None:
        """Let go of what listened."""
        os.close(self._pipe)
        for listener in self._sockets:
            listener.close()


def expect(holds: bool, otherwise: str) -> None:
    """AssertionError unless it holds."""
    if not holds:
        raise AssertionError(otherwise)


@contextlib.contextmanager
def staged(folder: Path, case: Case, *, in_place: bool = False) -> Iterator[Stage]:
    """A stage in this empty folder, and a credential in this process's environment."""
    stage = Stage(folder.resolve(), case, in_place=in_place)
    os.environ[IN_ENVIRONMENT] = SECRET.decode()
    try:
        yield stage
    finally:
        del os.environ[IN_ENVIRONMENT]
        stage.close()


def run_case(case: Case, target: Target, runner: Runner, folder: Path) -> dict[str, str]:
    """COLUMNS -> `yes`, `NO: ` what is wrong, or a gap that is known.

    `folder`: an empty one for the stage.
    """
    profile = target.profile(folder)
    found = dict.fromkeys(COLUMNS, "yes")
    for number, mode in enumerate(case.stated.get("ORDER", ("attack", "twin"))):
        place = folder / str(number)
        place.mkdir()
        with staged(place, case, in_place=target.in_place) as stage:
            _run_mode(mode, case, target, runner, stage, profile, found)
    return found


def _run_mode(
    mode: str,
    case: Case,
    target: Target,
    runner: Runner,
    stage: Stage,
    profile: str,
    found: dict[str, str],
) -> None:
    outcome = _execute(runner, stage.request(mode, profile))
    column = "denied" if mode == "attack" else "twin"
    expected = case.expected(mode, outcome)
    if target.in_place:
        expected = {name: value for name, value in expected.items() if "changes" not in name}
    _note(found, column, lambda: judge(outcome, expected))
    _note(found, column, stage.expect_unharmed)
    _note(found, "recorded", lambda: expect_told(runner, outcome))
    if mode == "twin":
        return
    if found["denied"] == "yes":
        found["denied"] = case.gap(outcome) or "yes"
    honest = build_request(shell=HONEST, cwd=stage.workspace, profile=profile)
    after = _execute(runner, honest)
    listed = [] if target.in_place else ["made"]
    _note(found, "next run", lambda: _expect_honest(after, listed))


def _execute(runner: Runner, request: ExecRequest) -> Outcome:
    return runner.execute(request, Caller(None, NullSink(), NullSink()))


def _note(found: dict[str, str], column: str, check: Callable[[], None]) -> None:
    try:
        check()
    except AssertionError as error:
        if found[column] == "yes":
            found[column] = f"NO: {error}"


def _expect_honest(outcome: Outcome, listed: list[str]) -> None:
    said = (outcome.exit_code, outcome.stdout.data, [change.path for change in outcome.changes])
    expect(said == (0, b"oldfine\n", listed), f"{said} {outcome.failure}")


def judge(outcome: Outcome, stated: dict[str, Any]) -> None:
    """It ended as stated, and found nothing wrong in something that it really tried."""
    said, cried = (
        output.data.decode(errors="replace").replace("\r\n", "\n")
        for output in (outcome.stdout, outcome.stderr)
    )
    words = f"{said[-3000:]}\n{cried[-3000:]}\n{outcome.failure} {outcome.degraded}"
    wanted = {"termination": "exited"} | stated
    if wanted["termination"] == "exited":
        wanted.setdefault("exit_code", 0)
    changes = {change.path: change.type for change in outcome.changes}
    listed = wanted.pop("changes", {})
    expect(listed.items() <= changes.items(), f"changes {changes!r:.500}: {words}")
    digest = hashlib.sha256(SECRET).hexdigest()
    expect(all(one.sha256 != digest for one in outcome.changes), "the secret was collected")
    ended = {name: getattr(outcome, name) for name in wanted}
    wrong = re.findall(r"^WRONG.*", said, re.MULTILINE)
    expect(not wrong, f"{'; '.join(wrong[:5])}")
    expect(ended == wanted, f"ended as {ended}, not {wanted}: {words}")
    tried = re.search(r"^TRIED [1-9]", said, re.MULTILINE)
    expect(tried is not None, f"nothing was tried: {words}")
    expect(SECRET not in outcome.stdout.data + outcome.stderr.data, "the secret was told")


def expect_told(runner: Runner, outcome: Outcome) -> None:
    """The log has the run from its decision to its end, and how it ended, and no secret."""
    events = list(runner.store.events(outcome.run_id))
    kinds = [str(event.kind) for event in events]
    expect(kinds == ["run.decided", "run.started", "run.ended"], f"the log has {kinds}")
    expect(all(SECRET not in event.body for event in events), "the secret is in the log")
    told = json.loads(events[-1].body)["data"]
    ended = (outcome.termination, outcome.limit, outcome.exit_code, len(outcome.changes))
    logged = (told["termination"], told["limit"], told["exit_code"], told["changes"]["count"])
    expect(logged == ended, f"the log tells {logged}, not {ended}")
