"""A small soak, and its watcher shown what it is there to find; scripts/soak does it for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.backends.native.zygote import owner_of

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
from _soak_watch import growth  # noqa: E402

# Watches a process of its own, because it makes that the one that orphans come to. What is planted
# stands in `break_it`; what the watcher says of the machine before and after it is printed.
PLANTED = """
import ctypes, json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import _soak_watch
from _soak_machine import Descendants
from runner import Runner
_soak_watch.QUIET_S = 4.0
Descendants()
home, work, kind = Path(sys.argv[2]), sys.argv[3], sys.argv[4]

def in_a_child(action):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        action()
        os.write(write, b"x")
        time.sleep(600)
    os.close(write)
    if os.read(read, 1) != b"x":
        sys.exit("could not be planted")
    os.close(read)
    return pid

def mount_in_a_namespace():
    uid, libc = os.geteuid(), ctypes.CDLL(None)
    if libc.unshare(0x10000000 | 0x20000) != 0:  # CLONE_NEWUSER | CLONE_NEWNS
        os._exit(1)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    libc.mount(None, b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
    if libc.mount(b"planted", os.fsencode(work), b"tmpfs", 0, None) != 0:
        os._exit(1)

def group():
    from runner.backends.native import cgroups
    from runner.model.limits import UNLIMITED, Limits
    unified = cgroups.unified_has_controllers()
    made = cgroups.find_unified_as_root if unified else cgroups.find_legacy
    none = Limits(*[UNLIMITED] * len(Limits.__dataclass_fields__))
    return made().create("planted", none)

with Runner(home=home, backend="native") as runner:
    if not runner.run(["true"], cwd=work).ok:
        sys.exit("a run does not work")
    watch = _soak_watch.Watch(home, work)
    clean = watch.look(0)
    planted = pid = None
    match kind:
        case "process":
            pid = in_a_child(lambda: None)
        case "daemon":
            def leave():
                os.setsid()
                if os.fork():
                    os._exit(0)
            read, write = os.pipe()
            if (first := os.fork()) == 0:
                leave()
                os.write(write, str(os.getpid()).encode())
                time.sleep(600)
            pid = int(os.read(read, 20))
        case "mount" | "namespace":
            pid = in_a_child(mount_in_a_namespace)
        case "descriptor":
            pid = in_a_child(mount_in_a_namespace)
            planted = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            os.kill(pid, 9)
            pid = None
        case "group":
            planted = group()
        case "state":
            (home / "forgotten").write_text("")
    dirty = watch.look(1)
    if pid is not None:
        os.kill(pid, 9)
    if kind == "descriptor":
        os.close(planted)
    if kind == "group":
        planted.remove()
    after = watch.look(2)
    print(json.dumps([{**{k: sorted(v) for k, v in look.left.items()}, "counts": look.counts}
                      for look in (clean, dirty, after)]))
"""


@pytest.fixture
def planted(native, tmp_path):
    """What the watcher finds before something is planted, while it is there, and after."""
    work = tmp_path / "work"
    work.mkdir()

    def look(kind: str) -> list[dict]:
        done = subprocess.run(
            [sys.executable, "-c", PLANTED, SCRIPTS, tmp_path / "home", work, kind],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        clean, dirty, after = json.loads(done.stdout)
        for each in (clean, after):
            assert each.keys() == {"counts"}, each
        return [clean, dirty, after]

    return look


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("process", {"process"}),
        ("daemon", {"process"}),
        ("mount", {"process", "mount", "namespace"}),
        ("descriptor", {"descriptor of a namespace"}),
        pytest.param("group", {"control group"}, marks=pytest.mark.root),
    ],
)
def test_the_watcher_finds(planted, kind, found):
    _, dirty, after = planted(kind)
    assert dirty.keys() - {"counts"} == found
    if kind == "mount":
        assert any(line.startswith("planted on ") for line in dirty["mount"])
    if kind == "descriptor":
        assert dirty["counts"]["supervisor_fds"] == after["counts"]["supervisor_fds"] + 1


def test_the_watcher_finds_what_stays_in_the_state_folder(planted):
    clean, dirty, _ = planted("state")
    assert dirty["counts"]["state_entries"] == clean["counts"]["state_entries"] + 1


def test_growth_is_a_slope_and_no_jump():
    runs = [float(n * 50) for n in range(20)]
    noise = [(-1) ** n * 3.0 for n in range(20)]
    steady = [(x, 100.0 + e) for x, e in zip(runs, noise, strict=True)]
    jump = [(x, y + (1000.0 if x > 500 else 0.0)) for x, y in steady]
    leak = [(x, y + 0.1 * x) for x, y in steady]
    assert growth(steady, 0.001) is None
    assert growth(jump, 0.001) is None
    assert growth(leak, 0.001) == pytest.approx(0.1, rel=0.1)
    assert growth(leak, 0.2) is None  # allowed
    assert growth(leak[:5], 0.001) is None  # too few tell nothing


@pytest.mark.slow
def test_nothing_stays_behind(native, tmp_path):
    summary = tmp_path / "summary.json"
    done = subprocess.run(
        [
            sys.executable, SCRIPTS / "_soak.py", "--runs", "16", "--at-once", "4",
            "--seed", "3", "--json", summary,
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(summary.read_text())
    assert (found["runs"], found["wrong"]) == (16, [])


LEAK = """
import runner.backends.native.lease as lease
release = lease.NativeLease.release
def leaking(self):
    import os
    os.dup(self._control.fileno())
    return release(self)
lease.NativeLease.release = leaking
"""


@pytest.mark.slow
def test_a_runner_that_leaks_is_found_out(native, tmp_path):
    """The twin: the same soak fails on a runner that keeps a descriptor of each run."""
    custom = tmp_path / "custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text(LEAK)
    path = os.pathsep.join(filter(None, [str(custom), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, SCRIPTS / "_soak.py", "--runs", "8", "--at-once", "4", "--seed", "3"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert "stay open after the Runner is closed" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def stopped_launcher(native, runner_home, tmp_path) -> Iterator[tuple[int, Path]]:
    """A launcher that was stopped before its supervisor died, so that it can't see that."""
    work = tmp_path / "work"
    work.mkdir()
    code = (
        "import os, signal, sys, psutil; from runner import Runner\n"
        "r = Runner(home=sys.argv[1], backend='native'); r.run(['true'], cwd=sys.argv[2])\n"
        "(launcher,) = psutil.Process().children()\n"
        "print(launcher.pid, flush=True); launcher.suspend(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, runner_home, work], stdout=subprocess.PIPE, check=False
    )
    pid = int(done.stdout)
    yield pid, work
    if words_of(pid):
        os.kill(pid, 9)


def words_of(pid: int) -> list[str]:
    """A process's command line; empty when it is gone, or waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def test_clean_ends_a_launcher_that_was_stopped(stopped_launcher, run_cli):
    pid, _ = stopped_launcher
    assert owner_of(words_of(pid)) is not None
    done = run_cli("clean")
    assert done.returncode == 0, done.stderr
    assert f"removed: process {pid} " in done.stdout
    deadline_s = time.monotonic() + 60
    while words_of(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not words_of(pid)
    told = run_cli("audit", "show", "--json").stdout.splitlines()
    swept = [e["data"] for e in map(json.loads, told) if e["kind"] == "machine.swept"]
    # Control groups of other tests' dead supervisors may have been swept as well.
    assert [
        event["backend"]
        for event in swept
        if any(f"process {pid} " in line for line in event["removed"]["first"])
    ] == ["native"]
    assert all(event.keys() == {"backend", "removed", "left"} for event in swept)


def test_clean_leaves_the_launchers_of_the_living(native, run_cli, tmp_path, runner_home):
    """The twin."""
    from runner import Runner

    work = tmp_path / "work"
    work.mkdir()
    with Runner(home=tmp_path / "other", backend="native") as living:
        assert living.run(["true"], cwd=work).ok
        assert "removed: process" not in run_cli("clean").stdout
        assert living.run(["true"], cwd=work).ok
