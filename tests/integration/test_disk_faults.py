"""Disks that are full, read-only or failing, as they are: small ones of the test's own, mounted in
a mount namespace, and real runs. A run is refused or stopped with an error that says what to do;
what was written is there; and once there is space again, each run has exactly one end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCENE = """
import errno, json, os, subprocess, sys
from collections import Counter
from pathlib import Path
from runner import Runner, RunnerError
from runner.streams import CallbackSink

top = Path(sys.argv[1])
disk, work = top / "disk", top / "work"
home, filler = disk / "home", disk / "filler"
# An agent's run, whose program says `ready` and goes on when it is told so.
WAITS = "echo ready; read told; echo done > made"

def fill():
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

def free():
    filler.unlink()

def attempt(runner, *, during=None, shell=WAITS, **options):
    '''What became of a run; `during` is called when the program has said something.'''
    (work / "made").unlink(missing_ok=True)
    source, target = os.pipe()
    said = False
    def heard(_):
        nonlocal said
        if during is not None and not said:
            during()
        if not said:
            os.write(target, b"go on\\n")
        said = True
    try:
        outcome = runner.run(
            shell=shell, cwd=work, stdin=source, stdout=CallbackSink(heard), **options
        )
    except RunnerError as error:
        return {"code": error.code, "exit": error.exit_code, "message": str(error)}
    finally:
        os.close(source)
        os.close(target)
    changes = {change.path: change.withheld for change in outcome.changes}
    return {"termination": str(outcome.termination), "run": outcome.run_id, "changes": changes}

def ends():
    '''How many ends each run has that began, and whether the log holds.'''
    with Runner(home=home) as runner:
        began, ended = [], Counter()
        for event in runner.store.events():
            if event.kind == "run.decided":
                began.append(event.run_id)
            if event.kind in ("run.ended", "run.recovered"):
                ended[event.run_id] += 1
        kinds = Counter(event.kind for event in runner.store.events())
        found = runner.store.verify()
        return {"ends": [ended[run] for run in began], "holds": found.ok, "kinds": kinds}

def say(**told):
    print(json.dumps(told))
"""


def _play(tmp_path: Path, mount: str, scene: str, before: str = "") -> dict[str, Any]:
    """Run a scene on a disk that `mount` (a shell command) mounts at $DISK; what it says."""
    for name in ("disk", "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    shell = f'{mount} || exit 77\n{before}\nexec "$PYTHON" -c "$SCENE" "$TOP"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell],
        env={
            **os.environ,
            "DISK": str(tmp_path / "disk"),
            "TOP": str(tmp_path),
            "PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SCENE": SCENE + scene,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"this disk can't be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(told, dict)
    return told


TMPFS = 'mount -t tmpfs -o size=6m,mode=0755 none "$DISK"'
EXT4 = (
    'truncate -s 16M "$TOP/image" && mkfs.ext4 -q -F "$TOP/image" && '
    'mount -o loop,errors=remount-ro "$TOP/image" "$DISK"'
)
DISKS = pytest.mark.parametrize("disk", [TMPFS, EXT4], ids=["tmpfs", "ext4"])
# In a user namespace of one's own a disk could be mounted, but no sandbox be built: its root is
# nobody outside. What a user's runner does without room, test_store_processes.py shows.
pytestmark = [pytest.mark.usefixtures("native"), pytest.mark.root]


def _refused(told: dict[str, Any]) -> None:
    assert told["exit"] == 125, told
    assert told["code"] in ("record_failed", "state_unusable"), told
    assert any(word in told["message"] for word in ("disk is full", "No space left")), told
    assert "free some space" in told["message"], told


def test_doctor_tells_of_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    told = _play(
        tmp_path,
        TMPFS,
        """
Runner(home=home).close()
command = "import sys; from runner.surfaces.cli.main import main; sys.exit(main())"
words = [sys.executable, "-c", command, "doctor"]
done = subprocess.run(
    words, env={**os.environ, "RUNNER_HOME": str(home)}, capture_output=True, text=True
)
say(said=done.stdout, code=done.returncode)
""",
    )
    assert told["code"] == 0, told
    assert "MiB FREE: without room runs are refused" in told["said"], told


@DISKS
def test_a_full_disk_starts_nothing(tmp_path: Path, disk: str) -> None:
    told = _play(
        tmp_path,
        disk,
        """
with Runner(home=home) as runner:
    first = attempt(runner, profile="agent")
    fill()
    refused = attempt(runner, shell="echo done > made")
    made = (work / "made").exists()
try:
    Runner(home=home).close()
    opened = None
except RunnerError as error:
    opened = str(error)
free()
with Runner(home=home) as runner:
    again = attempt(runner)
say(first=first, refused=refused, made=made, again=again, opened=opened, **ends())
""",
    )
    assert told["first"]["termination"] == told["again"]["termination"] == "exited"
    _refused(told["refused"])
    assert not told["made"]
    assert told["holds"]
    assert set(told["ends"]) == {1}


@DISKS
@pytest.mark.parametrize("process", ["goes on", "ends"])
def test_a_disk_that_fills_during_a_run(tmp_path: Path, disk: str, process: str) -> None:
    """The run's end can't be recorded: an error; and once there is space, it has one."""
    told = _play(
        tmp_path,
        disk,
        f"""
with Runner(home=home, settings=None) as runner:
    before = attempt(runner)
    stopped = attempt(runner, during=fill)
    if {process == "goes on"}:
        free()
        after = attempt(runner)
if {process == "ends"}:
    free()
    with Runner(home=home) as runner:
        recovered = runner.recovered
        after = attempt(runner)
    with Runner(home=home) as runner:
        assert not runner.recovered
say(stopped=stopped, before=before, after=after, **ends())
""",
    )
    _refused(told["stopped"])
    assert told["holds"]
    assert told["ends"] == [1, 1, 1]
    assert told["after"]["termination"] == "exited"
    if process == "goes on":  # the supervisor lives, and knows how the run ended
        assert "run.recovered" not in told["kinds"]
    else:
        assert told["kinds"]["run.recovered"] + told["kinds"]["run.ended"] == 3


@DISKS
def test_output_that_can_not_be_kept_stops_the_run(tmp_path: Path, disk: str) -> None:
    told = _play(
        tmp_path,
        disk,
        """
with Runner(home=home) as runner:
    stopped = attempt(runner, during=fill, shell=WAITS + "; head -c 300000 /dev/urandom; sleep 60")
    free()
    after = attempt(runner)
say(stopped=stopped, after=after, **ends())
""",
    )
    _refused(told["stopped"])
    assert told["after"]["termination"] == "exited"
    assert told["holds"]
    assert told["ends"] == [1, 1]


@DISKS
def test_changes_that_can_not_be_kept_are_listed(tmp_path: Path, disk: str) -> None:
    """The run holds; its list says which content is not kept, and why."""
    told = _play(
        tmp_path,
        disk,
        """
with Runner(home=home) as runner:
    told = attempt(runner, shell="head -c 14000000 /dev/urandom > large; echo x > small; echo")
    left = os.listdir(home / "changes")
say(told=told, left=left, **ends())
""",
    )
    if told["told"].get("termination") is None:
        _refused(told["told"])
    else:
        assert "could not be written" in told["told"]["changes"]["large"]
    assert told["holds"]
    assert told["ends"] == [1]


def test_a_read_only_disk_is_refused_and_read(tmp_path: Path) -> None:
    told = _play(
        tmp_path,
        TMPFS,
        """
from runner.stores.reader import open_log
with Runner(home=home) as runner:
    attempt(runner)
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
command = [sys.executable, "-c", "from runner.surfaces.cli.main import main; main()"]
env = {**os.environ, "RUNNER_HOME": str(home)}
def call(*words):
    done = subprocess.run([*command, *words], env=env, cwd=work, capture_output=True, text=True)
    return done.returncode, done.stderr, done.stdout
refused, read = call("run", "--", "true"), call("audit", "verify")
subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
with Runner(home=home) as runner:
    after = attempt(runner)
say(refused=refused, read=read, after=after, **ends())
""",
    )
    code, said, _ = told["refused"]
    assert code == 125
    assert "can't be written: make it writable" in said
    assert told["read"][0] == 0, told["read"]
    assert told["read"][2].split()[1] == "events,"
    assert told["holds"]
    assert told["ends"] == [1, 1]


def test_a_disk_that_fails_in_use_becomes_read_only(tmp_path: Path) -> None:
    """ext4 finds an error (here one that is asked for) and takes no more writes."""
    told = _play(
        tmp_path,
        EXT4,
        """
device = os.stat(disk).st_dev
block = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
trigger = Path(f"/sys/fs/ext4/{block}/trigger_fs_error")
if not trigger.exists():
    say(skip="this kernel can't be asked for an error of ext4")
    sys.exit()
def fail():
    trigger.write_text("a test asks for it")
with Runner(home=home) as runner:
    before = attempt(runner)
    stopped = attempt(runner, during=fail)
    refused = attempt(runner, shell="echo done > made")
    made = (work / "made").exists()
subprocess.run(["umount", "-l", str(disk)], check=True)
subprocess.run(["mount", "-o", "loop", str(top / "image"), str(disk)], check=True)
with Runner(home=home) as runner:
    after = attempt(runner)
say(stopped=stopped, refused=refused, made=made, after=after, before=before, **ends())
""",
    )
    if "skip" in told:
        pytest.skip(told["skip"])
    for each in (told["stopped"], told["refused"]):
        assert each["exit"] == 125, each
        assert each["code"] == "record_failed"
        assert any(w in each["message"] for w in ("read-only", "Read-only", "failing disk")), each
    assert not told["made"]
    assert told["holds"]
    assert told["ends"] == [1, 1, 1]
    assert told["after"]["termination"] == "exited"


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, as a quota fails: not with ENOSPC (setrlimit(2))."""
    told = _play(
        tmp_path,
        TMPFS,
        """
import resource
with Runner(home=home) as runner:
    before = attempt(runner)
    size = max(f.stat().st_size for f in home.glob("runner.db*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
    refused = [attempt(runner, shell="echo done > made") for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = attempt(runner)
say(refused=refused, after=after, **ends())
""",
    )
    stopped = [each for each in told["refused"] if "exit" in each]
    assert stopped
    for each in stopped:
        assert (each["exit"], each["code"]) == (125, "record_failed")
        assert "a limit on files" in each["message"]
    assert told["after"]["termination"] == "exited"
    assert told["holds"]
    assert set(told["ends"]) == {1}


def test_an_archive_on_a_full_disk_removes_nothing(tmp_path: Path) -> None:
    told = _play(
        tmp_path,
        TMPFS,
        """
from contextlib import closing
from runner.clock import SystemClock
from runner.stores import sqlite
from runner.stores.archiving import archive
with Runner(home=home) as runner:
    attempt(runner, shell="echo changes nothing")
with closing(sqlite.create(home, SystemClock())) as store:
    before = list(store.events())
    fill()
    try:
        archive(store, disk / "archive", 4, prune_too=True)
        message = None
    except RunnerError as error:
        message = str(error)
    same = list(store.events()) == before
    left = [f.name for f in (disk / "archive").glob("*")] if (disk / "archive").exists() else []
    free()
    done = archive(store, disk / "archive", 4, prune_too=True).pruned
say(message=message, same=same, left=left, done=done, **ends())
""",
    )
    assert "free some space" in told["message"]
    assert told["same"]
    assert told["left"] == []
    assert told["done"] == 4
    assert told["holds"]
