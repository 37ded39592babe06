"""Fresh workspaces: private, written without following anything, and gone at the end."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from runner.errors import RequestError
from runner.surfaces.http.fresh import FreshWorkspaces


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_files_are_written_where_they_should(tmp_path):
    with FreshWorkspaces() as fresh:
        folder = fresh.make("run-1", {"a/b/c": b"1", "a/d": b"2", "e": b""})
        assert (folder / "a/b/c").read_bytes() == b"1"
        assert (folder / "a/d").read_bytes() == b"2"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        for files in ({"a": b"", "a/b": b""}, {"a/b": b"", "a": b""}):
            with pytest.raises(RequestError, match="folder as well"):
                fresh.make("run-2", files)
            assert not (folder.parent / "run-2").exists()
        fresh.remove("run-1")
        fresh.remove("run-1")
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_server_left_is_removed_and_what_a_live_one_has_is_not(tmp_path):
    left = tmp_path / f"runner-serve-{os.geteuid()}-dead"
    left.mkdir()
    (left / "lock").touch()
    (left / "run-1").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    link = tmp_path / f"runner-serve-{os.geteuid()}-link"
    link.symlink_to(elsewhere)
    with FreshWorkspaces() as first:
        kept = first.make("run-1", {"x": b""})
        assert not left.exists()
        with FreshWorkspaces():
            assert (kept / "x").exists()
        assert (elsewhere / "lock").exists()
