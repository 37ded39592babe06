"""Attacks on the tier `process`: each fails there, and its twin works where it may."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.backends.bpf import program_for
from runner.backends.native import create, scratch
from runner.backends.native.backend import NativeBackend
from runner.compile import compile_spec, tighten
from runner.errors import PolicyError, ProfileError, ProtectionMissingError
from runner.intake import build_request
from runner.model.outcome import Termination
from runner.model.profile import Isolation, Restrictions, Syscalls
from runner.model.protection import LANDLOCK_OF_PROCESS_TIER, Protection
from runner.model.rule import PolicyLayer
from runner.model.spec import SandboxSpec
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile
from runner.streams import CallbackSink, Cancellation
from runner.syscalls import Refusal
from runner.testing.backend_harness import (
    PYTHON,
    BackendHarness,
    Given,
    processes_with,
    run_lease,
)

TRY = """
import ctypes, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, action):
    try:
        print(name, "did", action())
    except OSError as error:
        print(name, "refused")
"""


class Tier(BackendHarness):
    def __init__(self, cache: Path, isolation: Isolation = Isolation.PROCESS) -> None:
        self.cache = cache
        self.isolation = isolation

    def make_backend(self) -> NativeBackend:
        backend = create(self.cache)
        assert isinstance(backend, NativeBackend)
        return backend

    def base_spec(self, **overrides: Any) -> SandboxSpec:
        return super().base_spec(**{"isolation": self.isolation, **overrides})

    def tried(self, text: str, *args: str, **more: Any) -> dict[str, str]:
        """Name -> `did`, with what came of it, or `refused`."""
        # Emulated machines take twenty times as long.
        patient = {"wall_s": 600.0, "cpu_time_s": 600.0}
        ran = self.python(TRY + text, *args, **patient, **more).exited()
        return dict(line.split(" ", 1) for line in ran.lines)


@pytest.fixture
def tier(tmp_path: Path, landlock_of_process_tier: None) -> Tier:
    return Tier(tmp_path / "cache")


@contextlib.contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user, outside."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "canary"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def outside(text: str, *args: str) -> dict[str, str]:
    """The same tries by a process of this user without a sandbox."""
    done = subprocess.run(
        [PYTHON, "-c", TRY + text, *args], capture_output=True, text=True, check=True, timeout=60
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def _open_to_all(folder: Path) -> None:
    """As root the run is another user, and pytest's folders are closed to those."""
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/") and len(above.parts) > 2:
            above.chmod(0o755)


FILES = """
path = sys.argv[1]
tried("read", lambda: open(path).read())
tried("write", lambda: open(path, "a").close())
tried("truncate", lambda: os.truncate(path, 3))
tried("list", lambda: os.listdir(os.path.dirname(path)))
tried("chmod", lambda: os.chmod(path, 0o600))
tried("utime", lambda: os.utime(path, (1, 1)))
tried("touch", lambda: os.utime(path))
tried("setxattr", lambda: os.setxattr(path, "user.x", b"1"))
tried("link", lambda: os.link(path, path + ".l"))
tried("symlink", lambda: os.symlink("x", path + ".s"))
tried("mkdir", lambda: os.mkdir(path + ".d"))
tried("mkfifo", lambda: os.mkfifo(path + ".f"))
tried("rename", lambda: os.rename(path, path + ".r"))
tried("unlink", lambda: os.unlink(path + ".r"))
"""


def test_files_outside_stay_as_they_are(tier: Tier, tmp_path: Path) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    _open_to_all(folder)
    folder.chmod(0o777)
    canary = folder / "canary"
    canary.write_text("canary")
    canary.chmod(0o666)
    before = canary.stat()
    got = tier.tried(FILES, str(canary))
    # Times and user attributes of what all may write are all that is left to a user of its own.
    left = {"touch", "setxattr"} if os.geteuid() == 0 else set()
    assert {name for name, result in got.items() if result != "refused"} <= left
    after = canary.stat()
    assert (canary.read_text(), after.st_mode) == ("canary", before.st_mode)
    assert os.listdir(folder) == ["canary"]
    twin = outside(FILES, str(canary))
    assert {name for name, result in twin.items() if result == "refused"} <= {"setxattr"}


def test_its_own_files_are_its_own(tier: Tier, tmp_path: Path) -> None:
    text = "open('own', 'w').write('own')\n" + FILES
    got = tier.tried(text, "./own")
    refused = {name for name, result in got.items() if result == "refused"}
    assert not refused


MOVES = """
for name in ("a", "b"):
    os.mkdir(name)
open("a/file", "w").close()
tried("rename", lambda: os.rename("a/file", "b/file"))
tried("link", lambda: os.link("b/file", "a/file"))
tried("out", lambda: os.rename("a/file", sys.argv[1] + "/file"))
tried("in", lambda: os.link("/usr/bin/env", "a/env"))
"""


def test_files_move_between_its_own_folders_alone(tier: Tier, tmp_path: Path) -> None:
    _open_to_all(tmp_path)
    tmp_path.chmod(0o777)
    got = tier.tried(MOVES, str(tmp_path))
    assert {name: said.split()[0] for name, said in got.items()} == {
        "rename": "did", "link": "did", "out": "refused", "in": "refused",
    }  # fmt: skip


def test_a_file_that_is_only_shown_can_not_be_changed_by_descriptor(
    tier: Tier, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    _open_to_all(shown)
    file = shown / "file"
    file.write_text("shown")
    text = """
fd = os.open(sys.argv[1], os.O_RDONLY)
tried("read", lambda: os.read(fd, 5))
tried("fchmod", lambda: os.fchmod(fd, 0o777))
tried("futimens", lambda: os.utime(fd, (1, 1)))
tried("fsetxattr", lambda: os.setxattr(fd, "user.x", b"1"))
def attributes():
    import fcntl
    return fcntl.ioctl(fd, 0x40086602, (0x80).to_bytes(8, "little"))
tried("setflags", attributes)
tried("chmod_by_proc", lambda: os.chmod(f"/proc/self/fd/{fd}", 0o777))
"""
    before = file.stat()
    got = tier.tried(text, str(file), read=(str(shown),))
    assert got.pop("read") == "did b'shown'"
    assert set(got.values()) == {"refused"}
    assert (file.stat().st_mode, file.stat().st_mtime) == (before.st_mode, before.st_mtime)
    assert outside(text, str(file))["fchmod"].startswith("did")


def test_other_processes_are_out_of_reach(tier: Tier) -> None:
    text = """
pid = int(sys.argv[1])
import resource
tried("signal", lambda: os.kill(pid, 0))
tried("stop", lambda: os.kill(pid, signal.SIGSTOP))
tried("parent", lambda: os.kill(os.getppid(), signal.SIGSTOP))
tried("queue", lambda: os.pidfd_open(pid) and signal.pidfd_send_signal(os.pidfd_open(pid), 9))
tried("limits", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (5, 5)))
tried("affinity", lambda: os.sched_setaffinity(pid, {0}))
tried("nice", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
tried("nice_user", lambda: os.setpriority(os.PRIO_USER, 0, 19))
tried("nice_parent", lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19))
tried("cmdline", lambda: open(f"/proc/{pid}/cmdline").read())
tried("environ", lambda: open(f"/proc/{pid}/environ").read())
tried("memory", lambda: open(f"/proc/{pid}/mem", "rb"))
tried("root", lambda: os.listdir(f"/proc/{pid}/root"))
def traced():
    if libc.ptrace(16, pid, 0, 0) < 0: raise OSError(ctypes.get_errno())
tried("ptrace", traced)
"""
    with sleeper() as process:
        for changes in (Syscalls(), Syscalls(allow=("ptrace",))):
            got = tier.tried(text, str(process.pid), syscalls=changes)
            assert set(got.values()) == {"refused"}
            assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
        gentle = """
import resource
pid = int(sys.argv[1])
tried("signal", lambda: os.kill(pid, 0))
tried("limits", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (5, 5)))
tried("nice", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
tried("cmdline", lambda: open(f"/proc/{pid}/cmdline").read())
"""
        assert "refused" not in outside(gentle, str(process.pid)).values()


def test_its_own_processes_are_in_reach(tier: Tier) -> None:
    text = """
import resource
child = os.fork()
if child == 0:
    signal.pause()
tried("signal", lambda: os.kill(child, 0))
tried("limits", lambda: resource.prlimit(0, resource.RLIMIT_NOFILE))
tried("affinity", lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))
tried("nice", lambda: os.nice(1))
tried("all", lambda: os.kill(-1, signal.SIGKILL))
tried("died", lambda: os.waitpid(child, 0)[1])
"""
    got = tier.tried(text)
    assert "refused" not in got.values()
    assert got["died"] == "did 9"


def test_no_socket_leads_out(tier: Tier, tmp_path: Path) -> None:
    text = """
def pair(kind):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    a.send(b"x")
    return b.recv(1)
for name in ("SOCK_STREAM", "SOCK_SEQPACKET", "SOCK_DGRAM", "SOCK_RAW"):
    tried(name, lambda: pair(getattr(socket, name)))
for family in range(1, 46):
    for kind in (1, 2, 3):
        tried(f"socket-{family}-{kind}", lambda: socket.socket(family, kind))
a, b = socket.socketpair()
tried("connect", lambda: a.connect(sys.argv[1]))
tried("bind", lambda: a.bind("x"))
tried("sendto", lambda: a.sendto(b"x", sys.argv[1]))
"""
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(tmp_path / "s")
        listener.bind(path)
        listener.listen()
        got = tier.tried(text, path)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert {name for name, result in got.items() if result != "refused"} == {
            "SOCK_STREAM", "SOCK_SEQPACKET",
        }  # fmt: skip
        twin = "s = socket.socket(socket.AF_UNIX)\ntried('connect', lambda: s.connect(sys.argv[1]))"
        assert outside(twin, path) == {"connect": "did None"}


def test_a_profile_can_not_take_the_tiers_refusals_back(tier: Tier) -> None:
    text = """
tried("socket", lambda: socket.socket())
def called(number, *words):
    if libc.syscall(number, *words) < 0: raise OSError(ctypes.get_errno())
tried("io_uring", lambda: called(425, 1, ctypes.create_string_buffer(256)))
tried("keyctl", lambda: called(250 if os.uname().machine == "x86_64" else 219, 0, -3, 0))
"""
    allow = ("socket", "io_uring", "keyring", "connect", "bind")
    got = tier.tried(text, syscalls=Syscalls(allow=allow))
    assert set(got.values()) == {"refused"}
    full = Tier(tier.cache, Isolation.FULL)
    assert "did" in str(full.tried(text, syscalls=Syscalls(allow=allow)))


def test_nothing_is_shared_by_name(tier: Tier) -> None:
    text = """
def called(name, *words):
    if getattr(libc, name)(*words) < 0: raise OSError(ctypes.get_errno())
tried("shmget", lambda: called("shmget", 0, 4096, 0o1600))
tried("semget", lambda: called("semget", 0, 1, 0o1600))
tried("msgget", lambda: called("msgget", 0, 0o1600))
tried("shm_open", lambda: open("/dev/shm/x", "w"))
tried("watch", lambda: called("inotify_add_watch", libc.inotify_init(), b"/tmp", 0xfff))
tried("memfd", lambda: os.memfd_create("x"))
"""
    got = tier.tried(text)
    assert got.pop("memfd").startswith("did")
    assert set(got.values()) == {"refused"}


DAEMON = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
print("ready", flush=True)
time.sleep(1000)
"""


def _with_daemons(tier: Tier, act: Any) -> None:
    """Run DAEMON, `act` on the lease once it is ready, and see that all of it is gone."""
    with tier.backend() as backend:
        spec = tier.base_spec(argv=(PYTHON, "-c", DAEMON))
        word = f"mark-{os.urandom(8).hex()}"
        spec = replace(spec, environment=(*spec.environment, ("RUNNER_TEST_MARK", word)))
        lease = backend.acquire(spec, word)
        try:
            with Cancellation() as cancel, contextlib.suppress(Exception):
                sink = CallbackSink(lambda _: act(lease, cancel))
                run_lease(lease, spec, Given(stdout=sink), cancel)
        finally:
            lease.release()
        deadline_s = time.monotonic() + 10
        while processes_with(word) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert not processes_with(word)
        tier.still_works(backend)


def test_nothing_outlives_a_cancelled_run(tier: Tier) -> None:
    _with_daemons(tier, lambda _, cancel: cancel.set())


@pytest.mark.parametrize("part", ["_builder", "_init"])
def test_nothing_outlives_a_part_of_the_launcher_that_is_killed(tier: Tier, part: str) -> None:
    _with_daemons(tier, lambda lease, _: os.kill(getattr(lease, part), signal.SIGKILL))


def test_nothing_outlives_the_supervisor(tier: Tier, tmp_path: Path) -> None:
    text = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_process_tier import DAEMON, Tier
from runner.streams import CallbackSink
from runner.testing.backend_harness import Given
word = sys.argv[1]
Tier(Path({str(tier.cache)!r})).run("/usr/bin/python3", "-c", DAEMON, word, mark=False,
    given=Given(stdout=CallbackSink(lambda _: print("ready", flush=True))))
"""
    word = f"mark-{os.urandom(8).hex()}"
    with subprocess.Popen(
        [sys.executable, "-c", text, word], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        assert len(processes_with(word)) > 1
        supervisor.kill()
    deadline_s = time.monotonic() + 20
    while processes_with(word) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not processes_with(word)
    # What it left on disk, the next one finds.
    place = scratch.place(tier.cache)
    left = [one for one in place.glob("runner-run-*") if word not in one.name]
    with tier.backend() as backend:
        tier.still_works(backend)
        backend.sweep()
    assert not [one for one in left if one.exists() and _owner_is_dead(one)]


def _owner_is_dead(folder: Path) -> bool:
    return scratch.owner_is_dead(folder.name.removeprefix("runner-"))


MESS = """
import os
os.mkdir("closed"); open("closed/x", "w").close()
os.mkdir("deep"); here = os.getcwd(); os.chdir("deep")
for n in range(1500): os.mkdir("d" * 20); os.chdir("d" * 20)
os.chdir(here)
os.symlink("/etc", "link"); os.mkfifo("fifo")
os.mkdir("shut", 0)
"""


def test_its_folder_is_removed_whatever_is_in_it(tier: Tier) -> None:
    place = scratch.place(tier.cache)
    before = set(place.glob("runner-run-*")) if place.exists() else set()
    for name in ("HOME", "TMPDIR"):
        text = f"import os; os.chdir(os.environ['{name}'])\n" + MESS
        tier.python(text, workspace_inodes=10_000, workspace_bytes=64 << 20).exited()
    left = set(place.glob("runner-run-*")) - before
    assert not [one for one in left if f"-{os.getpid()}-" in one.name]
    assert Path("/etc/passwd").exists()


def test_one_run_does_not_reach_another(tier: Tier) -> None:
    with tier.backend() as backend:
        first = tier.base_spec(argv=("/bin/sleep", "1000"))
        lease = backend.acquire(first, "first")
        try:
            folder = next(scratch.place(tier.cache).glob("runner-run-*-first"))
            text = """
tried("signal", lambda: os.kill(int(sys.argv[1]), 0))
tried("list", lambda: os.listdir(sys.argv[2] + "/tmp"))
tried("write", lambda: open(sys.argv[2] + "/tmp/x", "w"))
"""
            got = tier.tried(text, str(lease._init), str(folder), backend=backend)
            assert set(got.values()) == {"refused"}
        finally:
            lease.release()
        assert not folder.exists()


@pytest.mark.root
def test_as_root_it_is_a_user_of_its_own(tier: Tier) -> None:
    text = "import os; print(os.getuid(), os.getgroups(), os.getresuid()[2])"
    uid, groups, saved = tier.python(text).exited().lines[0].split(" ")
    assert (groups, saved) == ("[]", uid)
    assert int(uid) > 65536


def test_an_older_landlock_refuses_the_tier(tier: Tier) -> None:
    with tier.backend() as backend:
        spec = tier.base_spec(landlock_minimum=1000)
        with pytest.raises(ProtectionMissingError) as refused:
            backend.acquire(spec, "too-old")
        assert refused.value.protection == "landlock"


def test_the_outcome_names_what_is_missing(tier: Tier) -> None:
    ran = tier.run("/bin/true")
    assert {"user_namespace", "mount_namespace", "pid_namespace", "network_namespace",
            "ipc_namespace", "uts_namespace", "cgroup_namespace", "readonly_root",
            "private_proc"} <= set(ran.degraded)  # fmt: skip
    assert {"landlock", "seccomp", "no_capabilities", "no_new_privileges", "rlimits"} <= set(
        ran.protections
    )


def _profile(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return load_profile(str(file))


def test_it_is_chosen_by_name_alone(tmp_path: Path) -> None:
    assert {load_profile(name).isolation for name in ("agent", "ci", "locked")} == {Isolation.FULL}
    assert load_profile("agent-process").isolation is Isolation.PROCESS
    with pytest.raises(ProfileError, match=r"isolation: process has no .*mount_namespace"):
        _profile(tmp_path, "extends: agent\nisolation: process\n")
    with pytest.raises(ProfileError, match="stands on 'seccomp'"):
        _profile(tmp_path, "extends: agent-process\nisolation: process\noptional: [seccomp]\n")
    assert "isolation" not in build_request.__code__.co_varnames


def test_a_layer_forbids_it(tmp_path: Path) -> None:
    file = tmp_path / "layer.yaml"
    file.write_text("isolation: full\n")
    layer = load_policy_file(file)
    with pytest.raises(PolicyError, match="isolation: process"):
        tighten(load_profile("agent-process"), [layer])
    assert tighten(load_profile("agent"), [layer]).isolation is Isolation.FULL
    file.write_text("isolation: process\n")
    with pytest.raises(PolicyError):
        load_policy_file(file)


def test_a_layer_that_requires_what_it_has_not_refuses_it(tmp_path: Path) -> None:
    layer = Restrictions(PolicyLayer("layer"), requires=frozenset({Protection.PID_NAMESPACE}))
    request = build_request(argv=["true"], cwd=str(tmp_path))
    profile = tighten(load_profile("agent-process"), [layer])
    with pytest.raises(ProtectionMissingError) as refused:
        compile_spec(request, profile)
    assert refused.value.protection == "pid_namespace"
    compiled = compile_spec(request, load_profile("agent-process"))
    assert compiled.isolation is Isolation.PROCESS
    assert compiled.landlock_minimum == LANDLOCK_OF_PROCESS_TIER


def test_a_limit_ends_it(tier: Tier) -> None:
    ran = tier.python("while True: pass", wall_s=0.5)
    assert ran.ending.termination is Termination.LIMIT


WITHHELD = """
import sys
sys.path.insert(0, sys.argv[1])
from runner.backends.native.launcher import kernel
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.install_seccomp(open(sys.argv[2], "rb").read())
from runner import Runner, RunnerError
with Runner(home=sys.argv[3], backend="native") as runner:
    for profile in ("agent", "agent-process"):
        try:
            argv = ["sh", "-c", "cat a; echo b > b"]
            outcome = runner.run(argv, cwd=sys.argv[4], profile=profile)
            print(outcome.ok, outcome.stdout.data, [change.path for change in outcome.changes])
        except RunnerError as error:
            print(error.code, error.exit_code)
"""


def test_it_runs_where_namespaces_are_withheld(tier: Tier, workspace: Path) -> None:
    """And the full tier does not, and nothing falls back."""
    (workspace / "a").write_text("a")
    program = tier.cache.parent / "program.bpf"
    program.write_bytes(program_for((Refusal("unshare", errno.EPERM),)))
    package = str(Path(sys.modules["runner"].__file__ or "").resolve().parent.parent)
    home = str(tier.cache.parent / "home")
    words = [package, str(program), home, str(workspace)]
    done = subprocess.run(
        [sys.executable, "-c", WITHHELD, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.splitlines() == ["protection_missing 125", "True b'a' ['b']"], done.stderr
    assert not (workspace / "b").exists()
