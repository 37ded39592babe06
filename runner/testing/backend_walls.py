"""The part of the contract about walls: what a run can't see, reach or change, and its twins."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.model.outcome import Change, ChangeKind
from runner.model.spec import InjectedFile
from runner.testing.backend_harness import BackendHarness, Given, Ran, expect, same
from runner.testing.fakes import MemoryContents

_CONNECT = """
import socket, sys
def tried(family, address):
    with socket.socket(family) as s:
        s.settimeout(5)
        try:
            s.connect(address)
            return "reached"
        except OSError:
            return "refused"
print(tried(socket.AF_INET, ("127.0.0.1", int(sys.argv[1]))))
print(tried(socket.AF_UNIX, "\\0" + sys.argv[2]))
with socket.create_server(("127.0.0.1", 0)) as own:
    print(tried(socket.AF_INET, own.getsockname()))
"""
_WRITE = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        print("wrote", path)
    except OSError:
        print("refused", path)
"""


class WallContract(BackendHarness):
    """Nothing of the host can be reached but what the spec shows."""

    def test_no_network_but_its_own_loopback(self) -> None:
        name = f"runner-contract-{os.urandom(8).hex()}"
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"\0{name}")
            unix.listen()
            ran = self.python(_CONNECT, str(tcp.getsockname()[1]), name).exited()
        same(ran.lines, ["refused", "refused", "reached"])

    def test_no_interface_but_loopback(self) -> None:
        text = "print([l.split(':')[0].strip() for l in list(open('/proc/net/dev'))[2:]])"
        same(self.python(text).exited().lines, ["['lo']"])

    def test_the_root_is_read_only(self) -> None:
        closed = ["/x", "/usr/x", "/etc/x", "/bin/x", "/proc/sys/kernel/core_pattern"]
        open_ = ["/tmp/x", "/dev/shm/x", "/home/agent/x", "/dev/null"]  # noqa: S108
        ran = self.python(_WRITE, *closed, *open_).exited()
        same(ran.lines, [*(f"refused {p}" for p in closed), *(f"wrote {p}" for p in open_)])

    def test_the_hosts_files_are_not_there(self) -> None:
        with self.folder(canary="the host's secret") as outside, self.folder(a="x") as inside:
            path = outside / "canary"
            path.chmod(0o644)
            outside.chmod(0o755)
            text = f"cat {path}; cat a"
            ran = self.shell(text, **self.on(inside)).exited()
        same(ran.stdout, b"x")

    def test_what_the_spec_shows_can_be_read_and_not_written(self) -> None:
        with self.folder(shown="y") as outside:
            outside.chmod(0o755)
            (outside / "shown").chmod(0o666)
            text = f"cat {outside}/shown; echo no > {outside}/shown; cat {outside}/shown"
            ran = self.shell(text, read=(str(outside),))
            same(ran.stdout, b"yy")
            same((outside / "shown").read_text(), "y")

    def test_no_privileges(self) -> None:
        ran = self.shell("cat /proc/self/status").exited()
        status = dict(line.split(":\t", 1) for line in ran.lines if ":\t" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            same((name, int(status[name], 16)), (name, 0))
        same((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))

    def test_its_user_namespace_maps_nobody_else(self) -> None:
        ran = self.shell("cat /proc/self/uid_map").exited()
        if "user_namespace" in ran.protections:
            mapped = [line.split() for line in ran.lines]
            expect(all(first[1] != "0" for first in mapped), f"the host's root is mapped: {mapped}")

    def test_no_namespace_can_be_made(self) -> None:
        text = (
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
            "print(libc.unshare(0x10000000), ctypes.get_errno(), libc.unshare(0))"
        )
        self.python(text)  # whatever it says of the second, the first is refused:
        same(self.python(text).exited().lines[0].split()[:2], ["-1", "1"])

    def test_it_sees_only_its_own_processes(self) -> None:
        text = "import os; print([p for p in os.listdir('/proc') if p == str(os.getppid())][:1])"
        self.python(text).exited()
        text = "import os; print(sum(p.isdigit() for p in os.listdir('/proc')) < 8)"
        same(self.python(text).exited().lines, ["True"])

    def test_no_descriptor_is_inherited(self) -> None:
        text = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
        # The fourth is the listing's own.
        same(self.python(text).exited().lines, ["[0, 1, 2, 3]"])

    def test_nothing_of_one_run_is_there_in_the_next(self) -> None:
        places = "/tmp/left /dev/shm/left /home/agent/left /var/tmp/left"  # noqa: S108
        with self.backend() as backend:
            self.shell(f"for p in {places}; do echo x > $p; done; ls {places}", backend=backend)
            ran = self.shell(f"ls {places} 2>/dev/null; true", backend=backend).exited()
        same(ran.stdout, b"")


class WorkspaceContract(BackendHarness):
    """The workspace is a copy: what a run changed is told, and the original stays."""

    def test_changes_are_told_and_the_original_stays(self) -> None:
        text = (
            "printf new > a; rm b; printf made > c; ln -s a link; mkfifo pipe; mkdir d; "
            "printf deep > d/e; chmod 700 kept.sh; cat kept"
        )
        with self._tree() as folder:
            before = _snapshot(folder)
            ran = self.shell(text, **self.on(folder)).exited()
            same(_snapshot(folder), before)
        same(ran.stdout, b"kept")
        found = {change.path: change for change in ran.ending.changes}
        for path, kind, type_, content in (
            ("a", ChangeKind.MODIFIED, "file", b"new"),
            ("b", ChangeKind.DELETED, "file", None),
            ("c", ChangeKind.CREATED, "file", b"made"),
            ("link", ChangeKind.CREATED, "symlink", b"a"),
            ("pipe", ChangeKind.CREATED, "fifo", None),
            ("d", ChangeKind.CREATED, "directory", None),
            ("d/e", ChangeKind.CREATED, "file", b"deep"),
        ):
            sha256 = None if content is None else hashlib.sha256(content).hexdigest()
            change = found.get(path)
            expect(change is not None, f"{path} is not among {sorted(found)}")
            if change is not None:
                same((path, change.kind, change.type), (path, kind, type_))
                same((path, change.sha256), (path, sha256))
        expect("kept" not in found and "sub/kept" not in found, f"not changed, but told: {found}")
        expect(not ran.ending.changes_truncated, "the list says that it was cut")

    def test_contents_of_changes_are_given(self) -> None:
        text = (
            "printf new > a; rm b; ln -s a link; mkdir d; printf run > d/run; "
            "chmod 4755 d/run || chmod 755 d/run; "  # a tier may refuse the first
            "head -c 3000000 /dev/zero > large"
        )
        sink = MemoryContents()
        with self._tree() as folder:
            old = {name: hashlib.sha256((folder / name).read_bytes()) for name in ("a", "b")}
            there = folder.stat()
            ran = self.shell(text, given=Given(contents=sink), **self.on(folder)).exited()
        found = {change.path: change for change in ran.ending.changes}
        same(ran.ending.workspace_identity, (there.st_dev, there.st_ino))
        for path, content in (("a", b"new"), ("link", b"a"), ("d/run", b"run")):
            same((path, found[path].withheld), (path, None))
            same(sink.kept.get(found[path].sha256 or ""), content)
        same(found["large"].withheld, "it is too large")
        same(found["large"].sha256, hashlib.sha256(bytes(3_000_000)).hexdigest())
        same((found["d/run"].executable, found["a"].executable), (True, False))
        for name in ("a", "b"):
            original = found[name].original
            expect(original is not None, f"what stood at {name} is not told")
            if original is not None:
                same((original.type, original.sha256), ("file", old[name].hexdigest()))
        same(found["d"].original, None)

    def test_no_change_is_no_change(self) -> None:
        with self._tree() as folder:
            ran = self.shell("cat a b kept sub/kept > /dev/null", **self.on(folder)).exited()
        same(ran.ending.changes, ())

    def test_the_copy_is_the_programs_to_write(self) -> None:
        with self._tree() as folder:
            text = "test -O a && test -w . && test -w sub && readlink in && cat in && ./kept.sh"
            ran = self.shell(text, **self.on(folder)).exited()
        same(ran.lines, ["a", "old ran"])

    def test_a_name_that_is_not_text(self) -> None:
        with self.folder() as folder:
            (folder / os.fsdecode(b"in-\xff\n")).write_text("i")
            text = r"cat in-*; printf x > $(printf 'out-\376')"
            ran = self.shell(text, **self.on(folder)).exited()
        same(ran.stdout, b"i")
        same([change.path for change in ran.ending.changes], [os.fsdecode(b"out-\xfe")])

    def test_no_workspace_is_an_empty_folder(self) -> None:
        ran = self.shell("ls -A; pwd; echo x > y").exited()
        same((ran.lines, ran.ending.changes), (["/home/agent"], ()))

    def test_an_injected_file_over_one_of_the_workspace(self) -> None:
        with self._tree() as folder:
            before = _snapshot(folder)
            path = f"{folder}/sub/kept.py"
            (folder / "sub/kept.py").write_text("print('from the folder')")
            file = InjectedFile(path, b"print('as decided')", executable=True)
            text = (
                f"python3 {path}; (echo bad > {path}) 2>/dev/null; rm -f {path} 2>/dev/null; "
                f"mv -f a {path} 2>/dev/null; python3 {path}; cat a"
            )
            ran = self.shell(text, files=(file,), **self.on(folder))
            (folder / "sub/kept.py").unlink()
            same([row for row in _snapshot(folder) if row[0] != "sub"],
                 [row for row in before if row[0] != "sub"])  # fmt: skip
        same(ran.lines, ["as decided", "as decided", "old "])
        same(_paths(ran), [])

    def test_an_injected_file_that_the_workspace_has_not(self) -> None:
        with self._tree() as folder:
            file = InjectedFile(f"{folder}/fresh/one.sh", b"echo as decided")
            ran = self.shell("sh fresh/one.sh; ls", files=(file,), **self.on(folder)).exited()
            expect(not (folder / "fresh").exists(), "the mount point came into the host's folder")
        same(ran.lines[0], "as decided")
        same([path for path in _paths(ran) if path != "fresh"], [])

    def test_a_very_deep_tree(self) -> None:
        text = (
            "import os\n"
            "for _ in range(3000):\n"
            "    os.mkdir('d' * 20); os.chdir('d' * 20)\n"
            "print('made')"
        )
        with self.folder() as folder, self.backend() as backend:
            more = {**self.on(folder), "workspace_inodes": 10_000, "workspace_bytes": 64 << 20}
            ran = self.python(text, backend=backend, **more).exited()
            same(ran.lines, ["made"])
            expect(bool(ran.ending.changes), "nothing is told of it")
            self.still_works(backend)

    def test_the_workspace_may_be_another_users_or_closed(self) -> None:
        with self._tree() as folder:
            (folder / "closed").write_text("c")
            (folder / "closed").chmod(0)
            self.shell("cat a", **self.on(folder)).exited()
            same(stat.S_IMODE((folder / "closed").stat().st_mode), 0)

    @contextmanager
    def _tree(self) -> Iterator[Path]:
        with self.folder(a="old ", b="gone", kept="kept") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "kept").write_text("kept")
            (folder / "in").symlink_to("a")
            (folder / "kept.sh").write_text("#!/bin/sh\necho ran\n")
            (folder / "kept.sh").chmod(0o755)
            yield folder


def _snapshot(folder: Path) -> list[tuple[str, int, int, bytes]]:
    """Every path with its mode, time and content."""
    rows = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        rows.append((str(path.relative_to(folder)), status.st_mode, status.st_mtime_ns, content))
    return rows


def _paths(ran: Ran) -> list[str]:
    changes: tuple[Change, ...] = ran.ending.changes
    return [change.path for change in changes]
