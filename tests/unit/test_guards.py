"""What is guarded in a folder that is bound, found without following a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.backends import guards
from runner.backends.guards import Guards, UnguardedError, find, mount_point_below, open_below
from runner.model.guarded import GUARDED_PATHS


def found(folder: Path, patterns: tuple[str, ...] = GUARDED_PATHS) -> Guards:
    fd = os.open(folder, os.O_PATH)
    try:
        return find(fd, patterns)
    finally:
        os.close(fd)


def make(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")


def test_what_is_there_is_guarded_and_its_folders_are_pinned(tmp_path):
    assert found(tmp_path) == Guards((), ())
    make(tmp_path, ".git/config", ".git/index", ".git/modules/a/config", ".bashrc", "src/.bashrc")
    make(tmp_path, ".git/worktrees/b/gitdir", ".vscode/tasks.json")
    assert found(tmp_path) == Guards(
        (".git", ".git/modules", ".git/modules/a", ".git/worktrees", ".git/worktrees/b"),
        (".bashrc", ".git/config", ".git/modules/a/config", ".git/worktrees/b/gitdir", ".vscode"),
    )


def test_a_file_where_a_folder_should_be_is_guarded_itself(tmp_path):
    make(tmp_path, ".git")
    assert found(tmp_path) == Guards((), (".git",))


def test_modules_with_a_slash_in_their_name_and_nothing_beside_them(tmp_path):
    make(tmp_path, ".git/modules/a/b/config", ".git/modules/a/HEAD", ".git/modules/file")
    pinned = (".git", ".git/modules", ".git/modules/a", ".git/modules/a/b")
    assert found(tmp_path) == Guards(pinned, (".git/modules/a/b/config",))


def test_a_folder_that_holds_nothing_guarded_is_not_pinned(tmp_path):
    make(tmp_path, ".git/index")
    assert found(tmp_path) == Guards((), ())


@pytest.mark.parametrize("place", [".git", ".git/hooks", ".git/modules/a", ".bashrc", ".vscode"])
def test_a_link_can_not_be_guarded(tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to("/etc")
    with pytest.raises(UnguardedError, match="symbolic link"):
        found(tmp_path)


@pytest.mark.unprivileged
def test_a_closed_folder_can_not_be_guarded(tmp_path):
    make(tmp_path, ".git/config")
    (tmp_path / ".git").chmod(0)
    with pytest.raises(UnguardedError, match=r"\.git/ in the workspace is closed"):
        found(tmp_path)
    (tmp_path / ".git").chmod(0o700)


def test_there_can_be_too_many(tmp_path, monkeypatch):
    make(tmp_path, *(f".git/modules/{n}/config" for n in range(5)))
    assert len(found(tmp_path).read_only) == 5
    monkeypatch.setattr(guards, "MOST_GUARDS", 4)
    with pytest.raises(UnguardedError, match="more than 4"):
        found(tmp_path)


def test_nothing_is_opened_through_a_link(tmp_path):
    make(tmp_path, "real/file")
    (tmp_path / "link").symlink_to("real")
    fd = os.open(tmp_path, os.O_PATH)
    os.close(open_below(fd, "real/file"))
    with pytest.raises(NotADirectoryError):
        open_below(fd, "link/file")
    os.close(fd)


def test_descriptors_are_closed_again(tmp_path):
    make(tmp_path, ".git/config", ".git/modules/a/config")
    before = len(list(Path("/proc/self/fd").iterdir()))
    found(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_mount_points_are_found_below_only(tmp_path):
    assert mount_point_below(str(tmp_path)) is None
    assert mount_point_below("/dev") is not None
