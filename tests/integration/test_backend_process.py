"""The tier `process`, held to the contract of every backend, with its exceptions by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runner.backends.native import create
from runner.errors import BackendError, ProtectionMissingError
from runner.model.limits import LimitName
from runner.model.outcome import Termination
from runner.model.profile import Isolation, WorkspaceMode
from runner.model.protection import NOT_IN_PROCESS_TIER
from runner.model.spec import RUN_FOLDER, InjectedFile, SandboxSpec, Workspace
from runner.ports import Backend
from runner.testing.backend_contract import BackendContract
from runner.testing.backend_filling import FILL, FILL_INODES
from runner.testing.backend_harness import PYTHON, expect, holds_processes, same


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, landlock_of_process_tier: None) -> Path:
    TestProcessTier.cache_folder = tmp_path_factory.mktemp("cache")
    return TestProcessTier.cache_folder


@pytest.mark.usefixtures("cache")
class TestProcessTier(BackendContract):
    cache_folder: Path

    def make_backend(self) -> Backend:
        return create(self.cache_folder)

    def base_spec(self, **overrides: Any) -> SandboxSpec:
        return super().base_spec(**{"isolation": Isolation.PROCESS, **overrides})

    # What follows takes the place of the contract's test of the same name, where the tier can't do
    # what that one asks for; each says what holds instead.

    def test_no_workspace_is_an_empty_folder(self) -> None:
        """It is empty, but it stands elsewhere than /home/agent."""
        text = "import os; print(os.getcwd() == os.environ['HOME'], os.listdir())"
        same(self.python(text).exited().lines, ["True []"])

    def test_it_starts_in_the_folder_asked_for(self) -> None:
        text = "import os; print(os.getcwd())"
        same(self.python(text, cwd="/usr").exited().lines, ["/usr"])
        with self.folder(a="x") as folder:
            (folder / "sub").mkdir()
            ran = self.python(text, **{**self.on(folder), "cwd": f"{folder}/sub"}).exited()
        expect(ran.lines[0].endswith("/workspace/sub"), f"it started in {ran.lines}")

    def test_an_injected_file_over_one_of_the_workspace(self) -> None:
        """It has its bytes at the start, in the copy; there the program may change it."""
        with self.folder(a="old ") as folder:
            (folder / "kept.py").write_text("print('from the folder')")
            path = f"{folder}/kept.py"
            file = InjectedFile(path, b"print('as decided')", executable=True)
            ran = self.run(PYTHON, path, files=(file,), **self.on(folder)).exited()
            same((ran.lines, ran.ending.changes), (["as decided"], ()))
            text = "python3 kept.py; rm kept.py; echo mine > kept.py; cat kept.py"
            ran = self.shell(text, files=(file,), **self.on(folder)).exited()
            same(ran.lines, ["as decided", "mine"])
            same((folder / "kept.py").read_text(), "print('from the folder')")

    def test_an_injected_file_that_the_workspace_has_not(self) -> None:
        with self.folder(a="x") as folder:
            path = f"{folder}/fresh/one.sh"
            file = InjectedFile(path, b"echo as decided")
            ran = self.run("/bin/sh", path, files=(file,), **self.on(folder)).exited()
            expect(not (folder / "fresh").exists(), "it came into the host's folder")
        same(ran.lines, ["as decided"])

    def test_injected_files_have_exactly_their_bytes(self) -> None:
        """Only words of the command that name one whole are exchanged for where it stands."""
        script = InjectedFile(f"{RUN_FOLDER}/a.sh", b'#!/bin/sh\necho ran "$@"\n', executable=True)
        data = InjectedFile(f"{RUN_FOLDER}/data", bytes(range(256)))
        files = (script, data)
        same(self.run(script.path, "x", files=files).exited().stdout, b"ran x\n")
        same(self.run("/bin/cat", data.path, files=files).exited().stdout, data.content)
        text = "import os, sys\nfor a in (os.unlink, lambda p: open(p, 'w')):\n"
        text += "    try: a(sys.argv[1]); print('done')\n    except OSError: print('refused')"
        ran = self.run(PYTHON, "-c", text, data.path, files=files).exited()
        same(ran.lines, ["refused", "refused"])

    def test_a_missing_protection_is_refused_by_name(self) -> None:
        """Also where the machine has it, if the tier has not."""
        with self.backend() as backend:
            for status in backend.probe():
                there = status.in_force and status.protection not in NOT_IN_PROCESS_TIER
                spec = self.base_spec(requires=frozenset({status.protection}))
                try:
                    backend.acquire(spec, f"contract-{status.protection.value}").release()
                except ProtectionMissingError as error:
                    same((there, error.protection), (False, status.protection.value))
                else:
                    expect(there, f"{status} was granted though it is missing")

    def test_no_network_but_its_own_loopback(self) -> None:
        """It has no loopback either; the ends of a pair are all the sockets there are."""
        text = (
            "import socket\n"
            "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):\n"
            "    try: socket.socket(family); print('made')\n"
            "    except PermissionError: print('refused')\n"
            "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))"
        )
        same(self.python(text).exited().lines, ["refused"] * 4 + ["b'x'"])

    def test_no_interface_but_loopback(self) -> None:
        """None is told of."""
        same(self._refused("/proc/net/dev", "/proc/self/net/dev", "/sys/class/net"), 3)

    def test_it_sees_only_its_own_processes(self) -> None:
        """It sees none, its own neither."""
        same(self._refused("/proc", "/proc/self", f"/proc/{os.getpid()}/cmdline"), 3)

    def test_its_user_namespace_maps_nobody_else(self) -> None:
        same(self._refused("/proc/self/uid_map"), 1)

    def _refused(self, *paths: str) -> int:
        text = (
            "import os, sys\nfor path in sys.argv[1:]:\n"
            "    try: os.open(path, os.O_RDONLY); print('opened', path)\n"
            "    except PermissionError: print('refused')"
        )
        return self.python(text, *paths).exited().lines.count("refused")

    def test_the_root_is_read_only(self) -> None:
        """So are /tmp, /dev/shm and the home that other programs share; its own are elsewhere."""
        text = (
            "import os, sys\n"
            "for path in sys.argv[1:]:\n"
            "    try: os.close(os.open(os.path.expandvars(path), os.O_WRONLY | os.O_CREAT))\n"
            "    except OSError: print('refused')\n"
            "    else: print('wrote')\n"
        )
        closed = ["/x", "/usr/x", "/etc/x", "/bin/x", "/proc/sys/kernel/core_pattern", "/tmp/x",
                  "/dev/shm/x", "/var/tmp/x", "$HOME/../x", "$HOME/../run/x"]  # fmt: skip
        open_ = ["$TMPDIR/x", "$HOME/x", "/dev/null"]
        ran = self.python(text, *closed, *open_).exited()
        same(ran.lines, ["refused"] * len(closed) + ["wrote"] * len(open_))

    def test_no_privileges(self) -> None:
        """As prctl(2) and capget(2) tell it: /proc/self/status can't be read."""
        text = (
            "import ctypes, struct\n"
            "libc = ctypes.CDLL(None)\n"
            "header, data = struct.pack('=Ii', 0x20080522, 0), ctypes.create_string_buffer(24)\n"
            "nnp, seccomp = libc.prctl(39, 0, 0, 0, 0), libc.prctl(21, 0, 0, 0, 0)\n"
            "print(nnp, seccomp, libc.capget(header, data), any(data.raw))"
        )
        same(self.python(text).exited().lines, ["1 2 0 False"])

    def test_no_descriptor_is_inherited(self) -> None:
        text = (
            "import os\nfound = []\nfor fd in range(256):\n"
            "    try: os.fstat(fd); found.append(fd)\n"
            "    except OSError: pass\nprint(found)"
        )
        same(self.python(text).exited().lines, ["[0, 1, 2]"])

    def test_argv_is_passed_byte_for_byte(self) -> None:
        words = ["two words", "a'b\"c", "line\nbreak", "", "ünï", "$HOME `id` *", "\udcff\udc80"]
        text = (
            "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
        )
        ran = self.python(text, *words).exited()
        same(ran.stdout, b"\0".join(os.fsencode(word) for word in words))

    def test_the_environment_is_exactly_what_was_given(self) -> None:
        """And TMPDIR, what keeps git from /etc, and HOME where it was the sandbox's."""
        given = (("PATH", "/usr/bin:/bin"), ("A", ""), ("B", "x=y\nz"), ("C", "\udcfe"))
        same(self._environment(given), sorted(os.fsencode(f"{k}={v}") for k, v in given))
        same(self._environment((("HOME", "/srv/me"),)), [b"HOME=/srv/me"])

    def _environment(self, given: tuple[tuple[str, str], ...]) -> list[bytes]:
        ran = self.run("/usr/bin/env", "-0", environment=given, mark=False).exited()
        words = ran.stdout.rstrip(b"\0").split(b"\0")
        return sorted(set(words) - {b"GIT_CONFIG_NOSYSTEM=1"} - _starting(words, b"TMPDIR=/"))

    def test_workspace_bytes(self) -> None:
        """Looked at five times a second, not held by the kernel; as are the next ones."""
        with self.folder(a="1") as folder:
            more = {**self.on(folder), "workspace_bytes": 4 << 20}
            self._ends_by(LimitName.WORKSPACE, FILL, ".", **more)

    def test_workspace_bytes_in_tmp(self) -> None:
        text = f"import os, sys; sys.argv[1] = os.environ['TMPDIR']\n{FILL}"
        self._ends_by(LimitName.WORKSPACE, text, "", workspace_bytes=4 << 20)

    def test_memory_in_files_counts_as_what_may_be_written(self) -> None:
        """There are no files in memory but a memfd, which the memory limit counts."""
        same(self._refused("/dev/shm"), 1)

    def test_workspace_inodes(self) -> None:
        with self.folder(a="1") as folder:
            more = {**self.on(folder), "workspace_inodes": 200}
            self._ends_by(LimitName.WORKSPACE, FILL_INODES, ".", **more)

    def test_a_sparse_file_costs_nothing(self) -> None:
        """Up to the limit; a larger one is refused by RLIMIT_FSIZE."""
        text = (
            "import os, sys; os.truncate(os.open('a', os.O_CREAT | os.O_WRONLY), int(sys.argv[1]))"
        )
        with self.folder() as folder:
            more = {**self.on(folder), "workspace_bytes": 4 << 20}
            ran = self.python(text, str(3 << 20), **more).exited()
            same([(c.path, c.size_bytes) for c in ran.ending.changes], [("a", 3 << 20)])
            self.python(text, str(5 << 20), **more).exited(1)

    def test_what_does_not_fit_is_refused_before_it_is_copied(self) -> None:
        with self.folder(a="x" * 100_000) as folder, self.backend() as backend:
            spec = self.base_spec(workspace_bytes=50_000, **self.on(folder))
            with pytest.raises(BackendError, match="does not fit"):
                backend.acquire(spec, "contract-too-large")
            self.still_works(backend)

    def test_an_empty_folder_at_the_same_place(self) -> None:
        """It is empty, and what is made in it is told; but it stands elsewhere."""
        with self.folder(a="x") as folder:
            workspace = Workspace(WorkspaceMode.TMPFS, None, str(folder))
            ran = self.shell("ls; echo y > b", workspace=workspace, cwd=str(folder)).exited()
        same((ran.lines, [change.path for change in ran.ending.changes]), ([], ["b"]))

    def test_a_bound_folder_of_root_is_refused(self) -> None:
        """So is any other: without mounts nothing in it can be guarded."""
        with self.folder(a="x") as folder:
            more = self.on(folder, WorkspaceMode.BIND)
            with pytest.raises(ValueError, match="isolation: full"):
                self.base_spec(**more)

    test_a_bound_folder_is_changed_at_once_and_nothing_is_listed = (
        test_a_bound_folder_of_root_is_refused
    )
    test_a_bound_folder_is_written_as_its_owner_only = test_a_bound_folder_of_root_is_refused
    test_no_file_in_a_bound_folder_gets_set_id_bits = test_a_bound_folder_of_root_is_refused
    test_guarded_paths_of_a_bound_folder_are_read_only_and_stay = (
        test_a_bound_folder_of_root_is_refused
    )
    test_a_git_file_in_a_bound_folder_is_read_only = test_a_bound_folder_of_root_is_refused
    test_a_link_where_a_guard_should_be_is_refused = test_a_bound_folder_of_root_is_refused

    def _bomb(self, text: str) -> None:
        """Exact with a control group; else the user's other processes are counted with it."""
        with self.backend() as backend:
            ran = self.python(text, processes=20, wall_s=10.0, backend=backend)
            same(ran.ending.termination, Termination.LIMIT)
            if holds_processes(ran):
                same(ran.ending.limit, LimitName.PROCESSES)
                expect((ran.ending.usage.processes or 0) <= 20, f"too many lived: {ran.ending}")
            self.still_works(backend)


def _starting(words: list[bytes], prefix: bytes) -> set[bytes]:
    return {word for word in words if word.startswith(prefix)}
