"""What may be applied, in which order, and how it is shown: the pure half of applying."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.changes import manifest as manifests
from runner.changes.diff import Side, file_diff, unified
from runner.changes.manifest import Manifest
from runner.changes.plan import chosen, is_plain, leads_out, ordered, unsupported
from runner.changes.protected import PROTECTED, names, protected
from runner.errors import RequestError, StateError
from runner.model.guarded import GUARDED_PATHS
from runner.model.outcome import Change, ChangeKind, Original


def change(path: str, kind: str = "created", type_: str = "file", was: str | None = None) -> Change:
    original = None if was is None else Original(was, "00", executable=False)
    return Change(path, ChangeKind(kind), type_, "11", 1, original=original)


# Path, whether it is protected.
PATHS = (
    (".git/hooks/pre-commit", True),
    ("a/b/.git/hooks/pre-commit", True),
    (".GIT/Hooks/pre-commit", True),
    (".g\u200cit/hooks/pre-commit", True),
    (".git/config", True),
    (".git", True),
    (".git/worktrees/x/config.worktree", True),
    (".git/modules/x/hooks/post-checkout", True),
    (".git/rebase-merge/git-rebase-todo", True),
    ("server.git/hooks/update", True),
    ("any/hooks/post-receive", True),
    (".bashrc", True),
    ("home/.Profile", True),
    (".envrc", True),
    (".vscode/tasks.json", True),
    (".vscode", True),
    (".github/workflows/ci.yml", True),
    (".husky/pre-push", True),
    (".idea/runConfigurations/x.xml", True),
    (".claude/settings.json", True),
    (".mcp.json", True),
    ("sub/sitecustomize.py", True),
    ("a/.git/refs/.git/hooks/pre-commit", True),
    (".git/objects/x/.envrc", True),
    (".git/objects/ab/cd", False),
    ("sub/.git/refs/heads/hooks/post-x", False),
    (".git/refs/heads/main", False),
    (".git/index", False),
    (".git/HEAD", False),
    ("package.json", False),
    ("Makefile", False),
    ("src/hooks/useState.ts", False),
    ("git/hooks", False),
    ("bashrc", False),
    ("docs/.gitignore", False),
    ("github/workflows/ci.yml", False),
)


@pytest.mark.parametrize(("path", "is_protected"), PATHS)
def test_what_executes_unasked_is_protected(path, is_protected):
    assert (protected(path) is not None) is is_protected


@pytest.mark.parametrize("pattern", GUARDED_PATHS)
def test_what_a_bound_folder_guards_is_protected(pattern):
    path = pattern.replace("*", "name")
    assert protected(path) or protected(f"{path}/below")


def test_every_pattern_is_written_as_it_is_compared():
    for reason, patterns in PROTECTED:
        assert reason
        for pattern in patterns:
            assert pattern == pattern.casefold()
            assert pattern.startswith("**/")


def test_a_profiles_globs_start_at_the_workspace():
    assert names(".git/hooks/x", [".git/hooks/*"])
    assert not names("sub/.git/hooks/x", [".git/hooks/*"])
    assert names("sub/.git/hooks/x", ["**/.git/hooks/*"])
    assert names("a", ["*"])
    assert not names("a/b", ["*"])


@pytest.mark.parametrize(
    ("path", "fine"),
    [
        ("a", True), ("a/b", True), ("..a", True), ("a\nb", True), (os.fsdecode(b"\xff"), True),
        ("", False), ("/a", False), ("a/", False), ("../a", False), ("a/../b", False),
        ("a//b", False), (".", False), ("a\0b", False), ("x" * 256, False), ("x/" * 2048, False),
    ],
)  # fmt: skip
def test_a_plain_path_leads_down(path, fine):
    assert is_plain(path) is fine
    assert (unsupported(change(path)) is None) is fine


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        ("l", "a", False), ("l", "./a/../b", False), ("d/l", "../a", False),
        ("l", "/etc/passwd", True), ("l", "..", True), ("d/l", "../../x", True),
        ("d/l", "a/../../..", True),
    ],
)  # fmt: skip
def test_links_that_lead_out(path, target, out):
    assert leads_out(change(path, type_="symlink"), target) is out


def test_what_is_never_applied():
    for type_ in ("fifo", "socket", "device"):
        assert unsupported(change("x", type_=type_)) is not None
        assert unsupported(change("x", "deleted", type_, was=type_)) is None
    assert unsupported(change("x", "modified", "directory", was="directory")) is not None
    assert unsupported(change("x", "modified", "directory", was="file")) is None


def test_paths_choose():
    changes = [change("a"), change("d/b"), change("d/c/e"), change("dx")]
    assert chosen(changes, [], "/w") == [0, 1, 2, 3]
    assert chosen(changes, ["d"], "/w") == [1, 2]
    assert chosen(changes, ["/w/d/c", "a"], "/w") == [0, 2]
    assert chosen(changes, ["."], "/w") == [0, 1, 2, 3]
    for wrong in ("b", "../w2/a", "/etc/passwd", "d/../.."):
        with pytest.raises(RequestError):
            chosen(changes, [wrong], "/w")


def test_the_order_is_one_in_which_each_step_can_be_done():
    changes = [
        change("gone", "deleted", "directory", was="directory"),
        change("gone/in", "deleted", was="file"),
        change("was-folder", "modified", "file", was="directory"),
        change("was-folder/in", "deleted", was="file"),
        change("new", type_="directory"),
        change("new/sub", type_="directory"),
        change("new/sub/file"),
        change("was-file", "modified", "directory", was="file"),
        change("was-file/in"),
    ]
    done = [each.path for _, each in ordered(enumerate(changes))]
    for first, then in (
        ("new", "new/sub"), ("new/sub", "new/sub/file"), ("was-file", "was-file/in"),
        ("gone/in", "gone"), ("was-folder/in", "was-folder"), ("was-file/in", "gone"),
    ):  # fmt: skip
        assert done.index(first) < done.index(then)


def test_a_manifest_comes_back_as_it_was():
    manifest = Manifest(
        "run-1", "/w", 1, 2, (change(os.fsdecode(b"\xff\n"), "modified", was="symlink"),), True, 77
    )
    data = manifests.encode(manifest)
    assert manifests.decode(data) == manifest
    assert manifests.size_of(data[: manifests.SIZE_HEAD_BYTES]) == 77
    assert data.isascii()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version":2}', b'{"version":1}', b"\xff"])
def test_what_is_no_manifest_is_said_to_be_none(data):
    with pytest.raises(StateError):
        manifests.decode(data)


LINES = st.lists(st.sampled_from([b"a", b"b", b"c", b"\r", b"x y", b""]), max_size=30)


@given(LINES, LINES, st.booleans(), st.booleans())
def test_a_diff_leads_from_one_to_the_other(tmp_path_factory, old, new, old_ends, new_ends):
    before = b"\n".join(old) + (b"\n" if old_ends and old else b"")
    after = b"\n".join(new) + (b"\n" if new_ends and new else b"")
    assert patched(before, list(unified(before, after))) == after


def patched(before: bytes, body: list[bytes]) -> bytes:
    """Apply hunks by hand: every line of context and every removed one must be there."""
    lines = before.splitlines(keepends=True) if b"\r" not in before else split(before)
    text = split(b"".join(body))
    out: list[bytes] = []
    at = 0
    for number, line in enumerate(text):
        if line.startswith(b"@@"):
            start, _, length = line.split()[1][1:].partition(b",")
            first = int(start) - (length != b"0")
            out += lines[at:first]
            at = first
            continue
        if line.startswith(b"\\"):
            continue
        following = text[number + 1] if number + 1 < len(text) else b""
        content = line[1:-1] if following.startswith(b"\\") else line[1:]
        if line[:1] in b" -":
            assert lines[at] == content
            at += 1
        if line[:1] in b" +":
            out.append(content)
    return b"".join(out + lines[at:])


def split(text: bytes) -> list[bytes]:
    parts = text.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def test_git_takes_it(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    old, new = b"one\ntwo\nthree\n", b"one\nTWO\nthree"
    path = 'odd "name"\n'
    (tmp_path / path).write_bytes(old)
    shown = file_diff(
        Change(path, ChangeKind.MODIFIED, "file"),
        Side("file", executable=False, content=old),
        Side("file", executable=True, content=new),
        None,
    )
    assert (shown.added, shown.removed) == (2, 2)
    done = subprocess.run(
        ["git", "apply"], input=shown.text, cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / path).read_bytes() == new
    assert os.access(tmp_path / path, os.X_OK)


def test_binaries_and_what_can_not_be_shown_are_told():
    made = Change("b", ChangeKind.CREATED, "file")
    binary = file_diff(made, None, Side("file", executable=False, content=b"a\0b"), None)
    assert b"Binary files /dev/null and b/b differ" in binary.text
    assert (binary.added, binary.removed) == (None, None)
    unknown = file_diff(made, None, Side("file", executable=False, content=None), "too large")
    assert unknown.note == "too large"
    folder = file_diff(Change("d", ChangeKind.CREATED, "directory"), None, None, None)
    assert folder.text == b""


def test_hostile_texts_cost_no_more_than_their_size():
    """Each line stands a thousand times on both sides, in another order: no line is an anchor."""
    old = b"".join(b"%d\n" % (number % 50) for number in range(50_000))
    new = b"".join(b"%d\n" % (number * 7 % 50) for number in range(50_000))
    body = list(unified(old, new))
    assert patched(old, body) == new


def test_modules_take_no_surprise_from_long_lists():
    changes = [change(f"d{n}", type_="directory") for n in range(5)]
    done = [each.path for _, each in ordered(enumerate(changes))]
    assert all(first < then for first, then in pairwise(done))
    assert Path(done[0]).name == "d0"
