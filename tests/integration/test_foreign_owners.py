"""A workspace with files of other users and groups: a repository that a group shares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import Runner
from runner.backends.native.launcher import foreign
from runner.errors import BackendError

SOMEBODY = 61001
SHARED = 61002
"""A user and a group without an account, for tests as root."""
PROFILE = "extends: agent\nworkspace: {mode}\nlimits: {{{limits}}}\n"


@pytest.fixture
def group() -> int:
    """A group that is not the user's own and that they may give a file to."""
    if os.geteuid() == 0:
        return SHARED
    further = sorted(set(os.getgroups()) - {os.getegid()})
    if not further:
        pytest.skip("needs a user with a supplementary group, or root")
    return further[0]


@pytest.fixture
def shared(work: Path, group: int) -> Path:
    """`own` beside what has another group: a file, a folder, one with set-gid."""
    fill(work, group, os.geteuid() or SOMEBODY, os.getegid() or SOMEBODY)
    return work


def fill(work: Path, group: int, uid: int, gid: int) -> None:
    for name in ("folder", "inherits", "own"):
        (work / name).mkdir()
    for name in ("file", "closed", "folder/file", "inherits/file", "own/file", "own/other"):
        (work / name).write_text(f"{name}\n")
    (work / "own/link").symlink_to("file")
    for path in (work, *work.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)
    for name in ("file", "closed", "folder", "folder/file", "inherits", "own/other", "own/link"):
        os.chown(work / name, -1, group, follow_symlinks=False)
    (work / "file").chmod(0o664)
    (work / "closed").chmod(0o600)
    (work / "inherits").chmod(0o2775)


WRITING = """
set -e
for name in file closed folder/file inherits/file own/other; do echo more >> $name; done
touch folder/new inherits/new; mkdir folder/made; mv own/link own/moved; chmod +x file
"""
CHANGED = {
    "file", "closed", "folder/file", "inherits/file", "own/other", "folder/new", "inherits/new",
    "folder/made", "own/link", "own/moved",
}  # fmt: skip


def profile(tmp_path: Path, mode: str = "cow", limits: str = "") -> str:
    path = tmp_path / f"{mode}.yaml"
    path.write_text(PROFILE.format(mode=mode, limits=limits))
    return str(path)


@pytest.mark.parametrize("mode", ["cow", "copy"])
def test_what_a_group_shares_is_written_and_applied(runner, shared, group, tmp_path, mode):
    outcome = runner.run(shell=WRITING, cwd=shared, profile=profile(tmp_path, mode))
    assert outcome.ok, outcome.stderr.data
    assert {change.path for change in outcome.changes} == CHANGED
    assert (shared / "file").read_text() == "file\n"
    applied = runner.apply(outcome.run_id)
    assert {result.fate.value for result in applied.results} == {"applied"}
    assert (shared / "file").read_text() == "file\nmore\n"
    kept = {name: (shared / name).stat() for name in ("file", "closed", "own/other")}
    assert {found.st_gid for found in kept.values()} == {group}
    assert kept["file"].st_mode & 0o777 == 0o775
    assert kept["closed"].st_mode & 0o777 == 0o600
    assert (shared / "inherits/new").stat().st_gid == group


@pytest.mark.usefixtures("landlock_of_process_tier")
def test_the_process_tier_works_on_a_copy_of_it(runner, shared):
    outcome = runner.run(shell=WRITING, cwd=shared, profile="agent-process")
    assert outcome.ok, outcome.stderr.data
    assert {change.path for change in outcome.changes} == CHANGED


@pytest.mark.docker
def test_a_container_works_on_a_copy_of_it(shared, tmp_path):
    with Runner(home=tmp_path / "home", backend="docker") as docker:
        outcome = docker.run(shell=WRITING, cwd=shared)
    assert outcome.ok, outcome.stderr.data
    assert {change.path for change in outcome.changes} == CHANGED


def test_what_is_only_read_is_no_change(runner, shared, tmp_path):
    reading = "cat file folder/file; ls -R; touch own/file; echo folder/file > own/file"
    outcome = runner.run(shell=reading, cwd=shared, profile=profile(tmp_path))
    assert outcome.ok
    assert [change.path for change in outcome.changes] == ["own/file"]


def test_what_the_host_changes_meanwhile_is_no_change_of_the_run(runner, shared, tmp_path):
    """Nor is it overwritten by one of the run's: it was not what the run saw."""
    go_r, go_w = os.pipe()

    out_r, out_w = os.pipe()

    def meanwhile() -> None:
        os.read(out_r, 16)
        (shared / "folder/file").write_text("theirs\n")
        (shared / "file").write_text("theirs\n")
        os.write(go_w, b"\n")

    thread = threading.Thread(target=meanwhile)
    thread.start()
    with os.fdopen(out_w, "wb", buffering=0) as out:
        outcome = runner.run(
            shell="echo up; read line; echo mine >> file",
            cwd=shared,
            profile=profile(tmp_path),
            stdin=go_r,
            stdout=out,
        )
    thread.join()
    for fd in (go_r, go_w, out_r):
        os.close(fd)
    assert [change.path for change in outcome.changes] == ["file"]
    assert [result.fate.value for result in runner.apply(outcome.run_id).results] == ["changed"]
    assert (shared / "file").read_text() == "theirs\n"


def test_it_has_to_fit(runner, shared, group, tmp_path):
    with (shared / "large").open("wb") as large:
        large.write(os.urandom(3 << 20))
    told = profile(tmp_path, limits="workspace: 2MiB")
    if os.geteuid() == 0:
        os.chown(shared / "large", SOMEBODY, SOMEBODY)
    own = runner.run(["true"], cwd=shared, profile=told)  # it lies beneath, where there is a layer
    os.chown(shared / "large", -1, group)
    if own.ok:
        with pytest.raises(BackendError, match="another user or group"):
            runner.run(["true"], cwd=shared, profile=told)


@pytest.mark.root
def test_what_could_not_be_written_is_refused_as_outside(runner, work, tmp_path):
    """And what the folder's owner could not read is not shown by laying it."""
    fill(work, SHARED, SOMEBODY, SOMEBODY)
    for name in ("roots", "secret"):
        (work / name).mkdir()
        (work / name / "file").write_text("root's\n")
    (work / "secret/theirs").write_text("behind\n")
    os.chown(work / "secret/theirs", SOMEBODY, SHARED)
    (work / "secret").chmod(0o700)
    told = profile(tmp_path)
    shell = "cat roots/file; echo x > roots/file; echo y > roots/new; mv secret s; cat secret/*"
    outcome = runner.run(shell=shell, cwd=work, profile=told)
    assert outcome.stdout.data == b"root's\n"
    assert outcome.stderr.data.count(b"Permission denied") == 3
    assert outcome.changes == ()


DRIVER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_foreign_owners as told
from runner import Runner
here = Path(sys.argv[2])
work = here / "work"
work.mkdir()
told.fill(work, told.SHARED, os.geteuid(), os.getegid())
with Runner(home=here / "home", backend="native") as runner:
    outcome = runner.run(shell=told.WRITING, cwd=work, profile=told.profile(here))
    assert outcome.ok, outcome
    assert {change.path for change in outcome.changes} == told.CHANGED, outcome.changes
    fates = {result.fate.value for result in runner.apply(outcome.run_id).results}
assert fates == {"applied"}, fates
assert (work / "file").stat().st_gid == told.SHARED
print("all of it")
"""


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that another user reaches, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="runner-shared-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.root
def test_as_a_user_with_a_further_group(native, anybodys):
    """The same as root becomes that user, for whom no account has to be made."""
    os.chown(anybodys, SOMEBODY, SOMEBODY)
    who = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": [SHARED]}
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(anybodys),
        "PYTHONPATH": str(Path(foreign.__file__).parents[4]),
    }
    try:
        subprocess.run([sys.executable, "-c", "import runner"], env=environment, check=True, **who)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this clone, or its Python, is closed to other users")
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, here, str(anybodys)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **who,
    )
    if "namespace" in done.stderr:
        pytest.skip(f"an ordinary user has no sandbox here: {done.stderr.splitlines()[-1]}")
    assert done.stdout == "all of it\n", done.stderr


def test_a_large_folder_of_ones_own_is_not_searched_to_its_end(tmp_path, group, monkeypatch):
    """Nearest first; where many in a row are one's own no further one is looked for."""
    source, upper = tmp_path / "source", tmp_path / "upper"
    (source / "deep").mkdir(parents=True)
    upper.mkdir()
    for name in ("near", "deep/far"):
        (source / name).write_text(name)
        os.chown(source / name, -1, group)
    for number in range(30):
        (source / "deep" / f"{number}").touch()
    descriptors = [os.open(path, os.O_RDONLY) for path in (source, upper)]
    try:
        monkeypatch.setattr(foreign, "PATIENCE", 2)
        assert set(foreign.lay(*descriptors, None)) <= {b"near"}
        shutil.rmtree(upper)
        upper.mkdir()
        os.close(descriptors.pop())
        descriptors.append(os.open(upper, os.O_RDONLY))
        monkeypatch.setattr(foreign, "PATIENCE", 100)
        assert set(foreign.lay(*descriptors, None)) == {b"near", b"deep", b"deep/far"}
    finally:
        for fd in descriptors:
            os.close(fd)
    assert (upper / "deep/far").read_text() == "deep/far"
    assert sorted(path.name for path in upper.rglob("*")) == ["deep", "far", "near"]
