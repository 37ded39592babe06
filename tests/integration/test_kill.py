"""runner killed at random moments, a few times; scripts/soak-kill does it for long."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner import Runner
from runner.backends.native.cgroups import UnifiedHierarchy, owner_name

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import _soak_machine as machine  # noqa: E402

BUSY_SEED = 7
"""Chosen so that its first round kills the supervisor while the program runs."""


def soak(tmp_path, *words, **environment):
    """The script's exit code, its summary as an object, and what it printed."""
    summary = tmp_path / "summary.json"
    done = subprocess.run(
        [sys.executable, SCRIPTS / "_soak_kill.py", *words, "--json", summary],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = done.stdout + done.stderr
    return done.returncode, json.loads(summary.read_text()) if summary.exists() else said, said


@pytest.mark.slow
def test_nothing_survives_a_kill(native, tmp_path):
    code, found, said = soak(tmp_path, "--times", "12", "--seed", "1")
    assert code == 0, said
    assert found["rounds"] == 12
    assert found["violations"] == []
    assert found["victims"]["supervisor"] >= 6
    assert found["recovered"] >= 2


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        (
            "import runner.stores.sqlite as m; m.SqliteStore.recover = lambda self: []",
            "the record was ['run.decided', 'run.started'] and became",
        ),
        (
            "import runner.backends.native.zygote as m; m._BOOT = m._BOOT.replace('; zygote.main', "
            "'; import os, time; os.fork() or (os.closerange(0, 9), time.sleep(99)); zygote.main')",
            "lives on: ",
        ),
    ],
    ids=["no recovery", "a launcher that leaves a child"],
)
def test_a_broken_runner_is_found_out(native, tmp_path, broken, seen):
    """The twin: the same rounds fail when what they look for is there."""
    custom = tmp_path / "custom"
    custom.mkdir()
    # sitecustomize is imported by each Python that starts, the soak's own runner among them.
    (custom / "sitecustomize.py").write_text(broken)
    path = os.pathsep.join(filter(None, [str(custom), os.environ.get("PYTHONPATH")]))
    code, found, said = soak(
        tmp_path, "--times", "1", "--seed", str(BUSY_SEED), "--bound", "3", PYTHONPATH=path
    )
    assert code == 1, said
    assert any(seen in violation for violation in found["violations"]), said


def test_control_groups_of_the_dead_are_found(tmp_path):
    """Judged by names alone, so on plain folders."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    unreaped = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, unreaped, os.WEXITED | os.WNOWAIT)
    own = owner_name("run-own")
    _, namespace, pid, ticks, _ = own.split("-", 4)
    dead = [
        f"run-{namespace}-{gone.pid}-{ticks}-run-gone",
        f"run-{namespace}-{unreaped}-{ticks}-run-unreaped",
        f"run-{namespace}-{pid}-{int(ticks) - 1}-run-number-used-again",
    ]
    others = [own, f"run-1-{gone.pid}-{ticks}-run-in-another-container", "run-1", "somebody"]
    for name in (*dead, *others):
        (tmp_path / name).mkdir()
    try:
        swept = UnifiedHierarchy(tmp_path, "").sweep()
    finally:
        os.waitpid(unreaped, 0)
    assert not swept.left
    assert sorted(swept.removed) == sorted(f"control group {tmp_path / name}" for name in dead)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_the_next_start_removes_control_groups(native, runner_home, tmp_path):
    """Where this user has any; `runner clean` is not needed for it."""
    work = tmp_path / "work"
    work.mkdir()
    code = (
        "import os, sys; from runner import Runner; from runner.streams import CallbackSink\n"
        "Runner(home=sys.argv[1]).run(['sh', '-c', 'echo begun; sleep 3600'], cwd=sys.argv[2], "
        "stdout=CallbackSink(lambda _: os.kill(os.getpid(), 9)))"
    )
    killed = subprocess.run([sys.executable, "-c", code, runner_home, work], check=False)
    assert killed.returncode == -9
    with Runner(home=runner_home) as runner:
        (dead,) = runner.recovered
        if "cgroup" in runner.run(["true"], cwd=work).degraded:
            pytest.skip("this user has no control groups here")
        assert machine.cgroup_folders(dead) == []
