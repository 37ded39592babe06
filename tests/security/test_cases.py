"""Each case of `cases/` in a sandbox of the native backend under the default profile.

A case's attack is tried first, its twin after it, by the same runner: so the twin is also the next
run, which has to work. After each nothing outside may have changed, been reached or be left over,
and the log tells of the run. The tests behind it attack from the host's side: with folders.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runner import Outcome, Runner
from runner.compile import compile_spec
from runner.errors import BackendError
from runner.intake import build_request
from runner.streams import CallbackSink, NullSink
from runner.supervisor import Caller
from runner.testing.backend_harness import Given, expect_no_process_with, run_lease

FOLDER = Path(__file__).resolve().parent / "cases"
CASES = sorted(FOLDER.glob("p*_*.py"))
SECRET = b"the host's secret, which no run may read"
LIMITS = {"wall": "30s", "memory": "256MiB", "workspace": "32MiB"}


class Stage:
    """What stands on the host: a workspace, and around it what a run must not reach."""

    def __init__(self, folder: Path, case: Path) -> None:
        self.workspace = folder / "workspace"
        self.outside = folder / "outside"
        for place in (self.workspace, self.outside):
            place.mkdir()
        for name in (case.name, "probe.py"):
            shutil.copy(FOLDER / name, self.workspace)
        secret = self.outside / "secret"
        secret.write_bytes(SECRET)
        (self.workspace / "old").write_text("old")
        (self.workspace / "link").symlink_to(secret)
        (self.workspace / "chain").symlink_to("link")
        (self.workspace / "up").symlink_to("../outside")
        (self.outside / "linked").write_bytes(b"one file of two names")
        (self.workspace / "hard").hardlink_to(self.outside / "linked")
        os.mkfifo(self.workspace / "pipe")
        self._pipe = os.open(self.workspace / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._sockets = self._listen()
        self._before = self._host_files()
        self.facts = {
            "outside": str(self.outside),
            "secret": str(secret),
            "abstract": f"runner-case-{os.getpid()}",
            "tcp": self._sockets[0].getsockname()[1],
            "udp": self._sockets[1].getsockname()[1],
            "pid": os.getpid(),
        }

    def _listen(self) -> list[socket.socket]:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0runner-case-{os.getpid()}")
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
        for path in sorted([*self.workspace.rglob("*"), *self.outside.rglob("*"), self.outside]):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found.append((str(path), status.st_mode, status.st_mtime_ns, content))
        return found

    def expect_unharmed(self) -> None:
        assert self._host_files() == self._before
        for listener in self._sockets:
            with pytest.raises(BlockingIOError):
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()
        assert not os.read(self._pipe, 100), "something came through a FIFO of the workspace"
        # The path is in the arguments of every process of the run.
        expect_no_process_with(f"{self.workspace}/")

    def close(self) -> None:
        os.close(self._pipe)
        for listener in self._sockets:
            listener.close()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(home=tmp_path_factory.mktemp("state") / "home", backend="native") as made:
        yield made
        assert made.store.verify().failure is None


def constants(case: Path) -> dict[str, Any]:
    """What a case states about itself in capitals."""
    found = {}
    for statement in ast.parse(case.read_text()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                with contextlib.suppress(ValueError):
                    found[name] = ast.literal_eval(value)
    return found


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(case: Path, runner: Runner, tmp_path: Path) -> None:
    stated = constants(case)
    stage = Stage(tmp_path.resolve(), case)
    try:
        for mode in stated.get("ORDER", ("attack", "twin")):
            request = build_request(
                script=stage.workspace / case.name,
                args=[mode, json.dumps(stage.facts)],
                cwd=stage.workspace,
                env={"PYTHONDONTWRITEBYTECODE": "1"},
                limits=LIMITS | stated.get("LIMITS", {}),
                terminal=stated.get("TERMINAL", False),
            )
            outcome = runner.execute(request, Caller(None, NullSink(), NullSink()))
            judge(outcome, stated.get("EXPECTED", {}).get(mode, {}))
            expect_told(runner, outcome)
            stage.expect_unharmed()
    finally:
        stage.close()


def judge(outcome: Outcome, stated: dict[str, Any]) -> None:
    """Whether it ended as stated, and found nothing wrong in something that it really tried."""
    said, cried = (
        output.data.decode(errors="replace").replace("\r\n", "\n")
        for output in (outcome.stdout, outcome.stderr)
    )
    words = f"{said[-3000:]}\n{cried[-3000:]}\n{outcome.failure}"
    wanted = {"termination": "exited"} | stated
    if wanted["termination"] == "exited":
        wanted.setdefault("exit_code", 0)
    changes = {change.path: change.type for change in outcome.changes}
    assert wanted.pop("changes", {}).items() <= changes.items(), words
    assert {name: getattr(outcome, name) for name in wanted} == wanted, words
    assert not re.findall(r"^WRONG.*", said, re.MULTILINE), words
    assert re.search(r"^TRIED [1-9]", said, re.MULTILINE), f"nothing was tried: {words}"
    assert SECRET not in outcome.stdout.data + outcome.stderr.data


def expect_told(runner: Runner, outcome: Outcome) -> None:
    """The log has the run from its decision to its end, and how it ended."""
    events = list(runner.store.events(outcome.run_id))
    assert [event.kind for event in events] == ["run.decided", "run.started", "run.ended"]
    told = json.loads(events[-1].body)["data"]
    ended = (outcome.termination, outcome.limit, outcome.exit_code, len(outcome.changes))
    assert (
        told["termination"], told["limit"], told["exit_code"], told["changes"]["count"],
    ) == ended  # fmt: skip


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("name", ["a,b:c\\d", "upperdir=x", "new\nline", "sp ace\t", "\udcff"])
def test_a_workspace_by_an_odd_name(name: str, runner: Runner, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_text("here")
    outcome = runner.run(shell="cat file; echo new > made", cwd=folder)
    assert (outcome.stdout.data, [change.path for change in outcome.changes]) == (b"here", ["made"])
    assert not (folder / "made").exists()


@pytest.mark.usefixtures("native")
def test_a_folder_above_the_workspace_swapped_for_a_link(runner: Runner, tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "above" / "work", tmp_path / "elsewhere" / "work"
    for folder in (work, elsewhere):
        folder.mkdir(parents=True)
    (work / "file").write_text("decided about")
    (elsewhere / "file").write_bytes(SECRET)
    request = build_request(argv=["cat", "file"], cwd=work)
    spec = compile_spec(request, runner.policy(request, "native").profile)
    lease = runner.backend().acquire(spec, "before")
    work.parent.rename(tmp_path / "was")
    (tmp_path / "above").symlink_to(elsewhere.parent)
    try:
        assert run_lease(lease, spec, Given()).stdout == b"decided about"
    finally:
        lease.release()
    with pytest.raises(BackendError, match="replaced meanwhile"):
        runner.backend().acquire(spec, "after")


@pytest.mark.root
@pytest.mark.usefixtures("native")
def test_what_a_mount_in_the_workspace_covers(runner: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in\\ner place"
    folder.mkdir()
    (folder / "file").write_bytes(SECRET)
    subprocess.run(["mount", "-t", "tmpfs", "cover", folder], check=True)
    try:
        with pytest.raises(BackendError, match="mounted at"):
            runner.run(["ls"], cwd=tmp_path)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert runner.run(shell="cat */file", cwd=tmp_path).stdout.data == SECRET


@pytest.mark.root
@pytest.mark.usefixtures("native")
def test_root_gives_a_run_no_more_than_the_workspaces_owner_has(
    runner: Runner, tmp_path: Path
) -> None:
    """On an overlay no other can be laid and no owner mapped: the workspace is copied."""
    work, layers = tmp_path / "work", tmp_path / "layers"
    work.mkdir()
    layers.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "layers", layers], check=True)
    try:
        for name in ("lower", "upper", "space"):
            (layers / name).mkdir()
        options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/space"
        subprocess.run(["mount", "-t", "overlay", "work", "-o", options, work], check=True)
        try:
            _fill(work)
            outcome = runner.run(shell="cat own shown folder/shown closed folder/closed", cwd=work)
        finally:
            subprocess.run(["umount", work], check=True)
    finally:
        subprocess.run(["umount", layers], check=True)
    assert outcome.stdout.data == b"own;shown;shown;"
    assert SECRET not in outcome.stdout.data


def _fill(work: Path) -> None:
    """A user's folder, in which root has closed files, in a folder of root's own too."""
    (work / "folder").mkdir()
    for folder in (work, work / "folder"):
        (folder / "shown").write_text("shown;")
        (folder / "closed").write_bytes(SECRET)
        (folder / "closed").chmod(0o600)
    (work / "own").write_text("own;")
    (work / "own").chmod(0o600)
    for path in (work, work / "own"):
        os.chown(path, 12345, 12345)


HOST = """
import socket
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0runner-meeting")
tcp = socket.create_server(("127.0.0.1", 40404))
abstract.listen()
print("ready", flush=True)
import sys; sys.stdin.read()
for listener in (abstract, tcp):
    listener.setblocking(False)
    try:
        print("reached by", listener.accept())
    except BlockingIOError:
        pass
with socket.socket(socket.AF_UNIX) as own:
    print("by itself", own.connect_ex("\\0runner-meeting"))
"""
GUEST = """
import os, socket
for address in ("\\0runner-meeting", ("127.0.0.1", 40404)):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as own:
        print(own.connect_ex(address))
print(sum(name.isdigit() for name in os.listdir("/proc")))
"""


@pytest.mark.usefixtures("native")
def test_two_runs_at_once_do_not_meet(runner: Runner, tmp_path: Path) -> None:
    ready = threading.Event()
    waits, go = os.pipe()
    with ThreadPoolExecutor() as pool:
        said = CallbackSink(lambda data: ready.set())
        more = {"language": "python", "cwd": tmp_path}
        host = pool.submit(runner.run, code=HOST, stdin=waits, stdout=said, **more)
        try:
            assert ready.wait(60)
            guest = runner.run(code=GUEST, **more)
        finally:
            os.close(go)
    os.close(waits)
    assert guest.stdout.data == b"111\n111\n1\n"
    assert host.result().stdout.data == b"ready\nby itself 0\n"
