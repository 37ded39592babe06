"""Attacks from the host's side: with folders, links and mounts around a run, and in requests."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import SECRET

from runner import Runner
from runner.compile import compile_spec
from runner.errors import BackendError
from runner.intake import build_request
from runner.streams import CallbackSink
from runner.testing.backend_harness import Given, run_lease


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(home=tmp_path_factory.mktemp("state") / "home", backend="native") as made:
        yield made
        assert made.store.verify().failure is None


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
