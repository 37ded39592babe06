"""What a profile says of the workspace, from the file to the outcome and the log."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runner import Runner
from runner.backends.native import create
from runner.errors import BackendError, PolicyError, RequestError
from runner.model.profile import WorkspaceMode
from runner.schema.outcome import outcome_document
from runner.settings import PolicyFolder, Setting, load_settings
from runner.testing.backend_contract import BackendContract

SOMEBODY = 61001
"""A user without an account, who owns what a test as root binds."""
PROFILE = "extends: agent\nworkspace: {mode}\nlimits: {{workspace: unlimited, inodes: unlimited}}\n"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a").write_text("old")
    give(folder)
    return folder


def give(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)


def profile(tmp_path: Path, mode: str) -> str:
    path = tmp_path / f"{mode}.yaml"
    path.write_text(PROFILE.format(mode=mode))
    return str(path)


@pytest.mark.parametrize(
    ("mode", "seen", "kept", "changes"),
    [
        ("cow", "old", "old", ["a"]),
        ("copy", "old", "old", ["a"]),
        ("tmpfs", "", "old", ["a"]),
        ("none", "", "old", []),
        ("bind", "old", "new", []),
    ],
)
def test_each_mode_from_profile_to_log(runner, work, tmp_path, mode, seen, kept, changes):
    outcome = runner.run(
        shell="cat a 2>/dev/null; printf new > a", cwd=work, profile=profile(tmp_path, mode)
    )
    assert outcome.ok
    assert outcome.stdout.data.decode() == seen
    assert (work / "a").read_text() == kept
    assert [change.path for change in outcome.changes] == changes
    document = json.loads(json.dumps(outcome_document(outcome, with_output=False)))
    assert document["workspace"]["mode"] == mode
    started = next(e for e in runner.store.events(outcome.run_id) if e.kind == "run.started")
    assert json.loads(started.body)["data"]["workspace"] == mode
    assert runner.store.verify().failure is None


def test_a_denied_run_has_no_workspace(runner, work, tmp_path):
    outcome = runner.run(["sudo", "true"], cwd=work, profile=profile(tmp_path, "bind"))
    assert outcome.workspace is None


@pytest.mark.parametrize("mode", ["bind", "tmpfs"])
def test_folders_that_no_run_may_have(runner, tmp_path, mode):
    told = profile(tmp_path, mode)
    for folder in ("/", "/etc", "/home", tmp_path / "home", tmp_path):
        with pytest.raises(RequestError, match="workspace"):
            runner.run(["true"], cwd=folder, profile=told)


def test_a_bound_folder_that_holds_its_profile_is_refused(runner, work, tmp_path):
    (work / "nested").mkdir()
    own = profile(work / "nested", "bind")
    for name in (own, profile(tmp_path, "cow")):
        if name == own:
            with pytest.raises(RequestError, match=r"holds the profile .*bind\.yaml"):
                runner.run(["true"], cwd=work, profile=name)
        else:
            assert runner.run(["true"], cwd=work, profile=name).ok
    # A profile elsewhere whose base lies in the folder is no better.
    extending = tmp_path / "extending.yaml"
    extending.write_text(f"extends: {own}\n")
    with pytest.raises(RequestError, match="holds the profile"):
        runner.run(["true"], cwd=work, profile=str(extending))


def test_a_bound_folder_that_holds_runner_or_its_settings_is_refused(work, tmp_path, native):
    settings = load_settings({"home": str(tmp_path / "home")})
    (work / "profiles").mkdir()
    changed = replace(settings, profile_dirs=Setting((work / "profiles",), "test"))
    with Runner(settings=changed) as runner, pytest.raises(RequestError, match="holds profiles"):
        runner.run(["true"], cwd=work, profile=profile(tmp_path, "bind"))
    with Runner(home=tmp_path / "home") as runner:
        for folder in (Path(sys.modules["runner"].__file__).parent, Path(sys.prefix)):
            with pytest.raises(RequestError):
                runner.run(["true"], cwd=folder, profile=profile(tmp_path, "bind"))


def test_a_policy_forbids_to_bind(work, tmp_path, native):
    layers = tmp_path / "policy.d"
    layers.mkdir()
    (layers / "10.yaml").write_text("workspace_modes: [none, tmpfs, copy, cow]\n")
    settings = load_settings({"home": str(tmp_path / "home")})
    folders = (PolicyFolder(layers, "user"),)
    with Runner(settings=replace(settings, policy_dirs=Setting(folders, "test"))) as runner:
        assert runner.run(["true"], cwd=work, profile=profile(tmp_path, "copy")).ok
        with pytest.raises(PolicyError, match="workspace: bind, which is not permitted"):
            runner.run(["true"], cwd=work, profile=profile(tmp_path, "bind"))
    assert (work / "a").read_text() == "old"


def test_a_request_can_not_bound_what_is_bound(runner, work, tmp_path):
    limits = {"workspace": "1MiB"}
    with pytest.raises(RequestError, match="can't be held"):
        runner.run(["true"], cwd=work, profile=profile(tmp_path, "bind"), limits=limits)
    assert runner.run(["true"], cwd=work, profile=profile(tmp_path, "cow"), limits=limits).ok


def test_a_script_of_a_bound_folder_is_what_was_decided(runner, work, tmp_path):
    script = work / "one.py"
    script.write_text("import sys; open('one.py', 'w').write('x'); print(sys.argv[0])\n")
    give(work)
    outcome = runner.run(script=script, cwd=work, profile=profile(tmp_path, "bind"))
    assert outcome.ok
    assert outcome.stdout.data == b"/run/runner/one.py\n"
    assert script.read_text() == "x"


class _Native(BackendContract):
    __test__ = False
    cache: Path

    def make_backend(self):
        return create(self.cache)


@pytest.fixture
def specs(tmp_path, native) -> _Native:
    made = _Native()
    made.cache = tmp_path / "cache"
    return made


MOUNT = 'grep -F " $PWD " /proc/self/mountinfo'


def test_a_copy_is_a_copy_where_an_overlay_could_be(specs, work):
    ran = specs.shell(MOUNT, **specs.on(work, WorkspaceMode.COPY)).exited()
    assert " tmpfs " in ran.lines[0]
    assert " overlay " not in ran.lines[0]


def test_a_bound_folder_has_no_set_id_files_and_no_devices(specs, work):
    ran = specs.shell(MOUNT, **specs.on(work, WorkspaceMode.BIND)).exited()
    options = ran.lines[0].split()[5].split(",")
    assert {"nosuid", "nodev", "rw"} <= set(options)


@pytest.mark.root
def test_a_bound_folder_is_refused_where_owners_can_not_be_mapped(specs, tmp_path):
    # An overlay can be mounted, but not with other owners (no FS_ALLOW_IDMAP up to Linux 6.18).
    trial = tmp_path / "trial"
    for name in ("lower", "upper", "work", "merged"):
        (trial / name).mkdir(parents=True)
    give(trial)
    script = (
        "import ctypes, sys; from pathlib import Path\n"
        "from runner.backends.native.launcher import kernel, workspace as w\n"
        "kernel.unshare(kernel.CLONE_NEWNS)\n"
        "kernel.mount('none', '/', '', kernel.MS_REC | kernel.MS_PRIVATE)\n"
        "t = sys.argv[1]\n"
        "kernel.mount('o', t + '/merged', 'overlay', 0,\n"
        "    f'lowerdir={t}/lower,upperdir={t}/upper,workdir={t}/work')\n"
        "tree = kernel.open_tree(kernel.AT_FDCWD, t + '/merged', recursive=False)\n"
        "try:\n"
        "    w.lay('bind', tree, 70000)\n"
        "except w.WorkspaceError as error:\n"
        "    print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(trial)], capture_output=True, text=True, check=False
    )
    if "overlay" in done.stderr:
        pytest.skip("no overlay can be mounted here")
    assert done.stdout.startswith("refused: the workspace lies on a file system"), done


def test_a_folder_swapped_for_a_link_is_not_bound(specs, work, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    give(other)
    spec = specs.base_spec(**specs.on(work, WorkspaceMode.BIND))
    shutil.rmtree(work)
    work.symlink_to(other)
    with specs.backend() as backend, pytest.raises(BackendError, match="replaced"):
        backend.acquire(spec, "swapped")


def test_a_mount_in_a_bound_folder_or_a_closed_repository_is_refused(specs, work):
    if os.geteuid() == 0:
        (work / ".git").mkdir(mode=0o700)  # root's, in somebody's folder
    else:
        (work / ".git").mkdir()
        (work / ".git/hooks").symlink_to("/tmp")
    with specs.backend() as backend:
        spec = specs.base_spec(**specs.on(work, WorkspaceMode.BIND))
        with pytest.raises(BackendError, match=r"\.git"):
            backend.acquire(spec, "closed")
