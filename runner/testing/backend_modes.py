"""The part of the contract about what a run sees of its folder, and where its changes go."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import BackendError
from runner.model.limits import LimitName
from runner.model.outcome import Termination
from runner.model.profile import WorkspaceMode
from runner.model.spec import InjectedFile
from runner.testing.backend_filling import FILL, FILL_INODES
from runner.testing.backend_harness import BackendHarness, Ran, expect, same

SOMEBODY, SOMEBODY_ELSE = 61001, 61002
"""Users without an account: owners of what a test as root binds."""

APART = (WorkspaceMode.COPY, WorkspaceMode.COPY_ON_WRITE)
BOUNDED = (*APART, WorkspaceMode.TMPFS)

_CHANGE = "printf new > a; rm b; mkdir d; printf deep > d/e; ln -s a link"

_SET_ID = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
refused = 0
def fchmodat2(bits):  # errno 38: the kernel has no such call
    if libc.syscall(452, -100, b"own", bits, 0) and ctypes.get_errno() in (1, 38):
        raise PermissionError
for bits in (0o4755, 0o2755):
    for attempt in (
        lambda: os.chmod("own", bits),
        lambda: os.fchmod(os.open("own", os.O_RDONLY), bits),
        lambda: os.chmod("own", bits, dir_fd=os.open(".", os.O_RDONLY)),
        lambda: fchmodat2(bits),
        lambda: os.close(os.open(f"made-{bits}", os.O_CREAT | os.O_WRONLY, bits)),
        lambda: os.mknod(f"node-{bits}", bits | 0o100000),
        lambda: os.close(os.open(".", os.O_TMPFILE | os.O_WRONLY, bits)),
    ):
        try:
            attempt()
        except PermissionError:
            refused += 1
os.chmod("own", 0o1755)
os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o755))
print(refused)
"""
_GUARDED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(what):
    try:
        what()
    except OSError as error:
        return
    print("done", what.__code__.co_firstlineno, flush=True)
def write(path):
    with open(path, "a") as file:
        file.write("evil")
def swap(one, other):
    if libc.renameat2(-100, one.encode(), -100, other.encode(), 2):
        raise OSError(ctypes.get_errno(), "renameat2")
os.mkdir("other"); write("other/config"); write("plain")
tried(lambda: write(".git/config"))
tried(lambda: write(".git/hooks/pre-commit"))
tried(lambda: write(".git/modules/sub/config"))
tried(lambda: write(".bashrc"))
tried(lambda: write(".vscode/tasks.json"))
tried(lambda: os.truncate(".git/config", 0))
tried(lambda: os.unlink(".git/config"))
tried(lambda: os.unlink(".git/hooks/kept"))
tried(lambda: os.rename("other", ".git"))
tried(lambda: os.rename(".git", "moved"))
tried(lambda: os.rename(".git/hooks", ".git/moved"))
tried(lambda: os.rename(".git/modules/sub", ".git/modules/moved"))
tried(lambda: os.rename("plain", ".bashrc"))
tried(lambda: os.rename(".vscode", "moved"))
tried(lambda: swap("other", ".git"))
tried(lambda: swap("plain", ".bashrc"))
tried(lambda: os.link(".git/config", "linked"))
tried(lambda: os.chmod(".git/config", 0o777))
tried(lambda: write("/proc/self/cwd/.git/config"))
tried(lambda: write(f"/proc/self/fd/{os.open('.git/config', os.O_RDONLY)}"))
write(".git/index"); write("other/fine"); os.rename("other/fine", "fine"); print("worked")
"""


class ModeContract(BackendHarness):
    """`copy` and `cow` keep the folder, `tmpfs` hides it, `bind` is the folder."""

    def test_copies_are_told_and_the_original_stays(self) -> None:
        for mode in APART:
            with self.folder(a="old", b="gone", kept="kept") as folder:
                ran = self.shell(f"{_CHANGE}; cat kept", **self.on(folder, mode)).exited()
                same(_names(folder), ["a", "b", "kept"])
                same((folder / "a").read_text(), "old")
            same(ran.stdout, b"kept")
            same(_told(ran), ["a", "b", "d", "d/e", "link"])

    def test_an_empty_folder_at_the_same_place(self) -> None:
        with self.folder(a="old", b="gone") as folder:
            text = "ls -A; pwd; printf made > a; mkdir d; printf deep > d/e"
            ran = self.shell(text, **self.on(folder, WorkspaceMode.TMPFS)).exited()
            same(ran.lines, [str(folder)])
            same(_told(ran), ["a", "d", "d/e"])
            same({change.kind.value for change in ran.ending.changes}, {"created"})
            same(((folder / "a").read_text(), _names(folder)), ("old", ["a", "b"]))

    def test_a_file_injected_into_an_empty_folder(self) -> None:
        with self.folder() as folder:
            file = InjectedFile(f"{folder}/sub/one.sh", b"echo as decided")
            more = self.on(folder, WorkspaceMode.TMPFS)
            ran = self.shell("sh sub/one.sh; echo bad > sub/one.sh", files=(file,), **more)
            same(ran.lines, ["as decided"])
            expect("sub/one.sh" not in _told(ran), f"told as a change: {ran.ending.changes}")

    def test_bytes_are_held_in_every_mode_that_is_apart(self) -> None:
        for mode in BOUNDED:
            self._ends_full(mode, FILL)

    def test_inodes_are_held_in_every_mode_that_is_apart(self) -> None:
        for mode in BOUNDED:
            self._ends_full(mode, FILL_INODES)

    def test_a_bound_folder_is_changed_at_once_and_nothing_is_listed(self) -> None:
        with self._bindable(a="old", b="gone", kept="kept") as folder:
            ran = self.shell(f"{_CHANGE}; cat kept", **self.on(folder, WorkspaceMode.BIND)).exited()
            same((ran.stdout, ran.ending.changes), (b"kept", ()))
            expect(not ran.ending.changes_truncated, "the list says that it was cut")
            same(_names(folder), ["a", "d", "kept", "link"])
            same(((folder / "a").read_text(), (folder / "d/e").read_text()), ("new", "deep"))
            owner = folder.stat()
            for name in ("a", "d", "d/e", "link"):
                made = (folder / name).lstat()
                same((made.st_uid, made.st_gid), (owner.st_uid, owner.st_gid))

    def test_a_bound_folder_is_written_as_its_owner_only(self) -> None:
        if os.geteuid() != 0:
            return  # nobody but root can make files of others
        with self._bindable(own="o", others="o", closed="c") as folder:
            os.chown(folder / "others", SOMEBODY_ELSE, SOMEBODY_ELSE)
            os.chown(folder / "closed", 0, 0)
            (folder / "closed").chmod(0o600)
            text = (
                "(echo x > own) && echo own; (echo x >> others) && echo others; "
                "cat closed && echo closed; chmod 777 others closed; cat others"
            )
            ran = self.shell(f"{text}; true", **self.on(folder, WorkspaceMode.BIND)).exited()
            same(ran.lines, ["own", "o"])
            same(stat.S_IMODE((folder / "closed").stat().st_mode), 0o600)

    def test_a_bound_folder_of_root_is_refused(self) -> None:
        if os.geteuid() != 0:
            return
        with self.folder(a="a") as folder:
            same("root" in self._refusal(folder), True)

    def test_no_file_in_a_bound_folder_gets_set_id_bits(self) -> None:
        with self._bindable(own="x") as folder:
            ran = self.python(_SET_ID, **self.on(folder, WorkspaceMode.BIND)).exited()
            same(ran.lines, ["14"])
            same(stat.S_IMODE((folder / "own").stat().st_mode), 0o1755)
            same(_names(folder), ["made", "own"])

    def test_guarded_paths_of_a_bound_folder_are_read_only_and_stay(self) -> None:
        with self._bindable() as folder:
            for name in (".git/hooks", ".git/modules/sub", ".vscode"):
                (folder / name).mkdir(parents=True)
            guarded = (".git/config", ".git/hooks/kept", ".git/modules/sub/config", ".bashrc")
            for name in guarded:
                (folder / name).write_text("honest")
            self._give(folder)
            ran = self.python(_GUARDED, **self.on(folder, WorkspaceMode.BIND)).exited()
            same(ran.lines, ["worked"])
            same([(folder / name).read_text() for name in guarded], ["honest"] * 4)
            same(_names(folder / ".git/hooks"), ["kept"])
            same(_names(folder / ".vscode"), [])
            same((folder / ".git/index").read_text(), "evil")

    def test_a_git_file_in_a_bound_folder_is_read_only(self) -> None:
        with self._bindable(**{".git": "gitdir: /elsewhere"}) as folder:
            text = "echo x > .git; rm -f .git; mv -f a .git; echo x > a; cat .git"
            ran = self.shell(text, **self.on(folder, WorkspaceMode.BIND)).exited()
            same(ran.lines, ["gitdir: /elsewhere"])
            same(((folder / ".git").read_text(), (folder / "a").exists()), (ran.lines[0], True))

    def test_a_link_where_a_guard_should_be_is_refused(self) -> None:
        with self._bindable() as folder:
            (folder / ".git").mkdir()
            (folder / ".git/hooks").symlink_to("/")
            self._give(folder)
            said = self._refusal(folder)
            expect(".git/hooks" in said and "link" in said, said)

    def _ends_full(self, mode: WorkspaceMode, text: str) -> None:
        with self.folder(a="1") as folder, self.backend() as backend:
            more = {"workspace_bytes": 4 << 20, "workspace_inodes": 200}
            ran = self.python(text, ".", backend=backend, **self.on(folder, mode), **more)
            same((mode, ran.ending.termination, ran.ending.limit),
                 (mode, Termination.LIMIT, LimitName.WORKSPACE))  # fmt: skip
            self.still_works(backend)

    def _refusal(self, folder: Path) -> str:
        with self.backend() as backend:
            try:
                self.shell("true", backend=backend, **self.on(folder, WorkspaceMode.BIND))
            except BackendError as error:
                self.still_works(backend)
                return str(error)
        raise AssertionError("it should have been refused")

    @contextmanager
    def _bindable(self, **files: str) -> Iterator[Path]:
        """A folder that belongs to an ordinary user."""
        with self.folder(**files) as folder:
            self._give(folder)
            yield folder

    def _give(self, folder: Path) -> None:
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)


def _told(ran: Ran) -> list[str]:
    return sorted(change.path for change in ran.ending.changes)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
