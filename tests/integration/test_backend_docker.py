"""The docker backend on a real engine: the contract, and what only it promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner import Runner
from runner.backends.docker import DEFAULT_IMAGE, create
from runner.errors import BackendError, BackendUnavailableError
from runner.testing.backend_contract import BackendContract
from runner.testing.backend_harness import Given, processes_with, run_lease

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]


@pytest.fixture(scope="module", autouse=True)
def _image():
    backend = create()
    try:
        backend.acquire(_Docker().base_spec(), f"image-{os.getpid()}").release()
    except BackendUnavailableError as error:
        pytest.skip(f"{error}")
    finally:
        backend.close()


class _Docker(BackendContract):
    __test__ = False

    def make_backend(self):
        return create()


class TestDockerBackend(_Docker):
    __test__ = True


def _containers(run_id):
    import docker

    client = docker.from_env()
    try:
        return client.api.containers(all=True, filters={"label": f"runner.run={run_id}"})
    finally:
        client.close()


def _gone(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


SUPERVISOR = """
import sys
from runner.backends.docker import create
from runner.streams import *
from runner.ports import Streams
from runner.testing.backend_contract import BackendContract
class B(BackendContract):
    def make_backend(self): return create()
spec = B().base_spec(argv=("/usr/bin/python3", "-c", sys.argv[1]))
lease = create().acquire(spec, sys.argv[2])
lease.run(Streams(None, FdSink(1), NullSink(), Gate(1 << 20, 0)), Cancellation())
"""


def test_nothing_outlives_a_killed_supervisor():
    word = f"orphan-{os.urandom(8).hex()}"
    program = f"print('{word}', flush=True); import time; time.sleep(1000)"
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, program, word], stdout=subprocess.PIPE
    )
    assert supervisor.stdout.readline().decode().strip() == word
    inside = [p for p in processes_with(word) if p.pid != supervisor.pid]
    assert inside, "the program is not among the host's processes: this test would show nothing"
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    supervisor.stdout.close()
    assert _gone(lambda: not processes_with(word))
    assert _gone(lambda: not _containers(word))


def test_sweep_removes_what_a_dead_supervisor_created_and_leaves_a_living_ones():
    import docker

    from runner.backends.docker.backend import owner_now

    client = docker.from_env()
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            "from runner.backends.docker.backend import owner_now; print(owner_now())",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    made = {}
    try:
        for name, owner in (("dead", dead), ("living", owner_now())):
            labels = {"runner.run": f"sweep-{name}-{os.getpid()}", "runner.owner": owner}
            made[name] = client.api.create_container(DEFAULT_IMAGE, "true", labels=labels)["Id"]
        backend = create()
        told = backend.sweep()
        backend.close()
        assert any(f"sweep-dead-{os.getpid()}" in line for line in told.removed)
        assert told.left == ()
        left = {c["Id"] for c in client.api.containers(all=True)}
        assert made["dead"] not in left
        assert made["living"] in left
    finally:
        for container in made.values():
            try:
                client.api.remove_container(container, force=True)
            except docker.errors.NotFound:
                continue
        client.close()


def test_a_container_killed_by_somebody_else_is_a_failure_of_runners():
    import docker

    backend = create()
    spec = _Docker().base_spec(argv=("/bin/sh", "-c", "echo up; sleep 1000"))
    run_id = f"killed-{os.urandom(4).hex()}"
    lease = backend.acquire(spec, run_id)
    client = docker.from_env()

    class Killing:
        def fileno(self):
            return None

        def write(self, data):
            client.api.kill(_containers(run_id)[0]["Id"])
            return len(data)

    try:
        with pytest.raises(BackendError, match=r"lost|ended"):
            run_lease(lease, spec, Given(stdout=Killing()))
    finally:
        lease.release()
        backend.close()
        client.close()
    assert not _containers(run_id)


def test_the_hosts_folder_is_not_mounted_and_the_root_has_few_capabilities(tmp_path):
    import docker

    (tmp_path / "a").write_text("x")
    harness = _Docker()
    backend = create()
    run_id = f"look-{os.urandom(4).hex()}"
    lease = backend.acquire(harness.base_spec(**harness.on(tmp_path)), run_id)
    client = docker.from_env()
    try:
        seen = client.api.inspect_container(_containers(run_id)[0]["Id"])
    finally:
        lease.release()
        backend.close()
        client.close()
    assert [mount for mount in seen["Mounts"] if mount["Type"] == "bind"] == []
    assert seen["HostConfig"]["CapDrop"] == ["ALL"]
    assert "SYS_ADMIN" not in str(seen["HostConfig"]["CapAdd"])
    assert seen["HostConfig"]["NetworkMode"] == "none"


def test_what_a_run_changed_can_be_applied(tmp_path):
    work = tmp_path / "work"
    (work / "d").mkdir(parents=True)
    (work / "a").write_text("old")
    (work / "b").write_text("old")
    (work / "d" / "gone").write_text("x")
    code = (
        "import os; open('a', 'w').write('new' * 500_000); open('b', 'w').write('new')\n"
        "os.remove('d/gone'); os.rmdir('d'); os.symlink('a', 'l'); os.mkfifo('p')\n"
        "open(b'\\xff\\n', 'w').write('odd'); open('s', 'w').close(); os.chmod('s', 0o4755)"
    )
    with Runner(home=tmp_path / "home", backend="docker") as runner:
        outcome = runner.run(code=code, language="python", cwd=work)
        assert outcome.exit_code == 0, outcome.stderr.data
        (work / "b").write_text("mine")
        fates = {
            os.fsencode(each.change.path): each.fate.value
            for each in runner.apply(outcome.run_id).results
        }
    assert fates == {
        b"a": "applied", b"b": "changed", b"d": "applied", b"d/gone": "applied", b"l": "applied",
        b"p": "unsupported", b"s": "applied", b"\xff\n": "applied",
    }  # fmt: skip
    assert (work / "a").read_text() == "new" * 500_000
    assert (work / "b").read_text() == "mine"
    assert (os.readlink(work / "l"), (work / "d").exists()) == ("a", False)
    assert (work / "s").stat().st_mode & 0o7777 == 0o755
    assert Path(os.fsdecode(bytes(work) + b"/\xff\n")).read_text() == "odd"


def test_an_image_that_is_not_there_is_said_so():
    backend = create(image="runner/no-such-image:none")
    with pytest.raises(BackendUnavailableError, match=r"no-such-image.*build-images"):
        backend.acquire(_Docker().base_spec(), "no-image")
    backend.close()


def test_an_engine_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(BackendUnavailableError, match="no Docker engine answers at unix://"):
        create(base_url=f"unix://{tmp_path}/none.sock")
