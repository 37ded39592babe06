"""Modes, owners, times and attributes in the tier `process`: its own files, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_process_tier import TRY, Tier, outside

from runner.backends.native.launcher import metadata
from runner.model.outcome import Termination
from runner.model.profile import Syscalls, WorkspaceMode
from runner.model.spec import Workspace
from runner.testing.backend_harness import PYTHON, Given

as_a_user = pytest.mark.skipif(
    os.geteuid() == 0, reason="as root the run's user owns nothing outside, and nothing is emulated"
)


@pytest.fixture
def tier(tmp_path: Path, landlock_of_process_tier: None) -> Tier:
    return Tier(tmp_path / "cache")


class Canary:
    """A file of this user, outside of what any run may change."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.path = folder / "canary"
        self.path.write_text("canary")
        self.path.chmod(0o640)
        os.utime(self.path, (5, 5))
        os.utime(folder, (5, 5))
        self.before = self.state()

    def state(self) -> tuple[Any, ...]:
        seen = (self.path.stat(), self.folder.stat())
        return (
            [(s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, s.st_nlink) for s in seen],
            os.listxattr(self.path),
            os.listdir(self.folder),
        )

    def is_as_it_was(self) -> bool:
        return self.state() == self.before


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "outside")


CALLS = """
import errno
def called(name, *words):
    if getattr(libc, name)(*words) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
def path_calls(path, fd=None):
    raw = os.fsencode(path)
    times = (ctypes.c_long * 4)(1, 1, 1, 1)
    return {
        "chmod": lambda: called("chmod", raw, 0o777),
        "fchmodat": lambda: called("fchmodat", -100, raw, 0o777, 0),
        "chown": lambda: called("chown", raw, os.getuid(), os.getgid()),
        "lchown": lambda: called("lchown", raw, os.getuid(), os.getgid()),
        "fchownat": lambda: called("fchownat", -100, raw, os.getuid(), os.getgid(), 0x100),
        "utime": lambda: called("utime", raw, times),
        "utimes": lambda: called("utimes", raw, times),
        "futimesat": lambda: called("futimesat", -100, raw, times),
        "utimensat": lambda: called("utimensat", -100, raw, times, 0),
        "now": lambda: called("utimensat", -100, raw, None, 0x100),
        "setxattr": lambda: called("setxattr", raw, b"user.x", b"1", 1, 0),
        "lsetxattr": lambda: called("lsetxattr", raw, b"user.x", b"1", 1, 0),
        "removexattr": lambda: called("removexattr", raw, b"user.x"),
        "lremovexattr": lambda: (called("lsetxattr", raw, b"user.y", b"1", 1, 0),
                                 called("lremovexattr", raw, b"user.y")),
    }
def fd_calls(fd):
    times = (ctypes.c_long * 4)(1, 1, 1, 1)
    return {
        "fchmod": lambda: called("fchmod", fd, 0o777),
        "fchmodat2": lambda: called("syscall", 452, fd, b"", 0o777, 0x1000),
        "fchown": lambda: called("fchown", fd, os.getuid(), os.getgid()),
        "fchownat": lambda: called("fchownat", fd, b"", os.getuid(), os.getgid(), 0x1000),
        "futimens": lambda: called("futimens", fd, times),
        "futimesat": lambda: called("futimesat", fd, None, times),
        "utimensat": lambda: called("utimensat", fd, b"", times, 0x1000),
        "by_proc": lambda: called("chmod", b"/proc/self/fd/%d" % fd, 0o777),
        "fsetxattr": lambda: called("fsetxattr", fd, b"user.x", b"1", 1, 0),
        "fremovexattr": lambda: called("fremovexattr", fd, b"user.x"),
    }
def all_of(calls, at):
    for name, call in calls.items():
        tried(f"{at}:{name}", call)
"""


def _refused_all(got: dict[str, str]) -> None:
    assert got
    assert {name for name, result in got.items() if result != "refused"} == set()


@as_a_user
def test_each_call_on_its_own_files_and_on_none_outside(tier: Tier, canary: Canary) -> None:
    text = f"""
{CALLS}
open("own", "w").close()
os.mkdir("folder")
os.symlink("own", "link")
all_of(path_calls("own"), "relative")
all_of(path_calls(os.getcwd() + "/own"), "absolute")
all_of(path_calls("folder"), "folder")
all_of(path_calls("folder/../folder/"), "slash")
all_of(path_calls("."), "dot")
all_of(fd_calls(os.open("own", os.O_RDONLY)), "fd")
all_of(fd_calls(os.open("folder", os.O_RDONLY)), "fd_of_folder")
"""
    got = tier.tried(text)
    assert {name for name, result in got.items() if not result.startswith("did")} == set()

    text = f"""
{CALLS}
outside = sys.argv[1]
os.mkdir("sub")
ways = {{"absolute": outside, "up": "../" * 40 + outside, "folder": os.path.dirname(outside),
        "slash": os.path.dirname(outside) + "/", "root": "/", "proc": "/proc/self/root" + outside,
        "cwd": "/proc/self/cwd/../" + "../" * 40 + outside, "twice": "/" + outside,
        "run": "../run", "scratch": "..", "parent": os.path.dirname(os.getcwd()),
        "from_root": os.getcwd() + "/../" * 40 + outside}}
os.symlink(outside, "to_file")
os.symlink("/", "to_root")
os.symlink("../" * 40, "to_top")
os.symlink("to_root", "sub/again")
os.symlink("/proc/self/root", "sub/magic")
ways |= {{"link": "to_file", "through": "to_root" + outside, "top": "to_top" + outside,
         "magic": "sub/magic" + outside}}
for name, path in ways.items():
    calls = path_calls(path)
    if name == "link":
        calls = {{n: c for n, c in calls.items() if n[0] != "l" and n not in ("fchownat", "now")}}
    all_of(calls, name)
os.chdir(os.path.dirname(outside))
all_of(path_calls("canary"), "chdir")
all_of(path_calls("."), "dot")
folder = os.open(".", os.O_PATH)
all_of({{"fchmodat": lambda: called("fchmodat", folder, b"canary", 0o777, 0)}}, "dirfd")
all_of(fd_calls(folder), "fd_of_folder")
all_of(fd_calls(os.open("canary", os.O_PATH)), "fd_of_file")
"""
    _refused_all(tier.tried(text, str(canary.path)))
    assert canary.is_as_it_was()
    twin = outside(CALLS + "all_of(path_calls(sys.argv[1]), 'twin')", str(canary.path))
    assert twin["twin:chmod"] == "did None"
    assert not canary.is_as_it_was()


@as_a_user
def test_no_descriptor_of_a_shown_file_is_taken_for_an_own(tier: Tier, canary: Canary) -> None:
    """Not when an own file has taken the name that it had, either."""
    text = f"""
{CALLS}
fd = os.open(sys.argv[1], os.O_RDONLY)
tried("read", lambda: os.read(fd, 6))
all_of(fd_calls(fd), "shown")
all_of(fd_calls(os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)), "folder")
for n in (0, 1):
    tried(f"stream{{n}}", lambda: os.fchmod(n, 0o777))
tried("link", lambda: os.link(sys.argv[1], "linked"))
tried("link_fd", lambda: called("linkat", fd, b"", -100, b"linked", 0x1000))
tried("link_proc", lambda: called("linkat", -100, b"/proc/self/fd/%d" % fd, -100, b"linked", 0x400))
tried("rename", lambda: os.rename(sys.argv[1], "renamed"))
"""
    with canary.path.open("rb") as stdin:
        got = tier.tried(
            text,
            str(canary.path),
            read=(str(canary.folder),),
            given=Given(stdin=stdin.fileno()),
        )
    assert got.pop("read") == "did b'canary'"
    _refused_all(got)
    assert canary.is_as_it_was()


@as_a_user
def test_set_id_bits_are_refused_by_every_call(tier: Tier) -> None:
    text = f"""
{CALLS}
open("own", "w").close()
fd = os.open("own", os.O_RDWR)
for bits in (0o4755, 0o2755, 0o6755):
    tried(f"chmod{{bits}}", lambda: called("chmod", b"own", bits))
    tried(f"fchmod{{bits}}", lambda: called("fchmod", fd, bits))
    tried(f"fchmodat{{bits}}", lambda: called("fchmodat", -100, b"own", bits, 0))
    tried(f"fchmodat2{{bits}}", lambda: called("syscall", 452, fd, b"", bits, 0x1000))
    high = ctypes.c_long(bits | 1 << 32)
    tried(f"high{{bits}}", lambda: called("syscall", 452, fd, b"", high, 0x1000))
assert not os.stat("own").st_mode & 0o6000
os.chmod("own", 0o1755)
"""
    _refused_all(tier.tried(text))


@as_a_user
def test_the_kernels_own_errors_come_back(tier: Tier, tmp_path: Path) -> None:
    text = f"""
{CALLS}
def code(name, action):
    try:
        action()
        print(name, 0)
    except OSError as error:
        print(name, errno.errorcode[error.errno])
open("own", "w").close()
os.mkdir("shut"); open("shut/x", "w").close(); os.chmod("shut", 0)
os.symlink("loop", "loop"); os.symlink("nothing", "dangling"); os.symlink("own", "link")
code("missing", lambda: os.chmod("no", 0o600))
code("empty", lambda: os.chmod("", 0o600))
code("dangling", lambda: os.chmod("dangling", 0o600))
code("nofollow", lambda: os.utime("dangling", follow_symlinks=False))
code("loop", lambda: os.chmod("loop", 0o600))
code("not_a_folder", lambda: os.chmod("own/x", 0o600))
code("slash", lambda: os.chmod("own/", 0o600))
code("long", lambda: called("chmod", b"a/" * 2048, 0o600))
code("long_name", lambda: os.chmod("a" * 300, 0o600))
code("null", lambda: called("chmod", None, 0o600))
code("nowhere", lambda: called("chmod", ctypes.c_void_p(1 << 46), 0o600))
code("kernel", lambda: called("chmod", ctypes.c_void_p(0xffffffff81000000), 0o600))
code("bad_fd", lambda: os.fchmod(999, 0o600))
code("negative_fd", lambda: called("fchmod", -1, 0o600))
code("shut", lambda: os.chmod("shut/x", 0o600))
code("open_again", lambda: os.chmod("shut", 0o700))
code("others", lambda: os.chown("own", 0, 0))
code("flags", lambda: called("syscall", 452, -100, b"own", 0o600, 0x8000))
code("link_mode", lambda: called("syscall", 452, -100, b"link", 0o600, 0x100))
code("microseconds", lambda: called("utimes", b"own", (ctypes.c_long * 4)(1, 2000000, 1, 0)))
code("nanoseconds", lambda: called("utimensat", -100, b"own", (ctypes.c_long * 4)(1, -1, 1, 0), 0))
code("times_nowhere", lambda: called("utimensat", -100, b"own", ctypes.c_void_p(8), 0))
code("no_attribute", lambda: os.removexattr("own", "user.none"))
code("acl", lambda: os.setxattr("own", "system.posix_acl_access", b"x"))
code("security", lambda: os.setxattr("own", "security.capability", b"x"))
code("large", lambda: os.setxattr("own", "user.x", b"x" * 65537))
code("unlinked", lambda: (lambda fd: (os.unlink("own"), os.fchmod(fd, 0o600)))(os.open("own", 0)))
r, w = os.pipe()
code("pipe", lambda: os.fchmod(r, 0o600))
"""
    got = dict(line.split() for line in tier.python(TRY + text).exited().lines)
    done = subprocess.run(
        [PYTHON, "-c", TRY + text], cwd=tmp_path, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    twin = dict(line.split() for line in done.stdout.splitlines())
    refused = {"acl": "ENOTSUP", "security": "ENOTSUP", "unlinked": "EPERM", "pipe": "EPERM"}
    assert got == {**twin, **refused}
    assert {"ENOENT", "ELOOP", "ENOTDIR", "ENAMETOOLONG", "EFAULT", "EBADF", "EACCES", "EINVAL",
            "E2BIG", "ENODATA"} <= set(twin.values())  # fmt: skip


ANYTHING = """
import random
seed, *numbers = map(int, sys.argv[1:])
random.seed(seed)
os.mkdir("d"); open("own", "w").close(); os.mkfifo("p")
os.symlink("own", "l"); os.symlink("/", "r"); os.symlink(os.getcwd(), "abs")
os.open("own", 0)
here = os.fsencode(os.getcwd())
texts = [ctypes.create_string_buffer(text) for text in (
    b"own", b"l", b"d/..", b"", b"/", b"../x", b"a" * 5000, b"\\xff", b"/proc/self/fd/3",
    b"/proc/self/fd/999999999", b"r/own", b"abs/own", b"./" * 2000 + b"own", b"..", b".", here,
    here + b"//own", b"user.x", b"user.", b"p", bytes(32), b"\\xff" * 32)]
values = [0, 1, 2, 3, -1, -100, 1 << 32, 1 << 63, 0o777, 0o600, 0x1000, 0x100, 7, 65536, 65537,
          1 << 46, (1 << 47) - 4097, *[ctypes.addressof(text) for text in texts] * 2]
done = 0
for _ in range(6000):
    words = [ctypes.c_ulong(random.choice(values) & ((1 << 64) - 1)) for _ in range(6)]
    done += libc.syscall(ctypes.c_long(random.choice(numbers)), *words) == 0
    for folder in ("d", "."): os.chmod(folder, 0o700)
print("done", done)
tried("last", lambda: os.chmod("own", 0o600))
"""


@as_a_user
@pytest.mark.parametrize("seed", range(3))
def test_whatever_words_a_call_has_init_stands(tier: Tier, seed: int) -> None:
    got = tier.tried(ANYTHING, str(seed), *map(str, metadata.CALLS))
    assert got["last"] == "did None"
    assert int(got["done"]) > 0


@as_a_user
def test_a_path_that_changes_while_it_is_read(tier: Tier, canary: Canary) -> None:
    """By another thread in memory, and by a link that is swapped: never the file outside."""
    text = f"""
import mmap, threading, time
{CALLS}
outside = os.fsencode(sys.argv[1])
open("own", "w").close()
os.mkdir("a"); open("a/canary", "w").close()
os.symlink(os.path.dirname(sys.argv[1]), "b")
shared = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
over = False
def other_words():
    while not over:
        shared[: len(outside) + 1] = outside + b"\\0"
        shared[:4] = b"own\\0"
def swap():
    while not over:
        called("syscall", 316 if os.uname().machine == "x86_64" else 276, -100, b"a", -100, b"b", 2)
threads = [threading.Thread(target=one) for one in (other_words, swap)]
for one in threads: one.start()
done = refused = 0
def count(*words):
    global done, refused
    try:
        called(*words)
        done += 1
    except OSError:
        refused += 1
for _ in range(1500):
    count("chmod", ctypes.c_void_p(address), 0o777)
    count("chmod", b"a/canary", 0o777)
    count("utimensat", -100, b"a/canary", None, 0)
over = True
for one in threads: one.join()
print("done", done)
print("refused", refused)
"""
    got = tier.tried(text, str(canary.path))
    assert int(got["done"]) > 0
    assert int(got["refused"]) > 0
    assert canary.is_as_it_was()


@as_a_user
def test_names_that_change_while_a_descriptor_is_looked_at(tier: Tier, canary: Canary) -> None:
    text = f"""
import threading
{CALLS}
fd = os.open(sys.argv[1], os.O_RDONLY)
os.mkdir("x"); os.mkdir("y"); open("x/own", "w").close()
own = os.open("x/own", os.O_RDONLY)
over = False
def move():
    while not over:
        os.rename("x/own", "y/own"); os.rename("y/own", "x/own")
        os.rename("x", "z"); os.rename("z", "x")
mover = threading.Thread(target=move); mover.start()
done = 0
for _ in range(1000):
    tried("shown", lambda: os.fchmod(fd, 0o777))
    try:
        os.fchmod(own, 0o700)
        done += 1
    except PermissionError:
        pass
over = True; mover.join()
print("own", done)
"""
    got = tier.tried(text, str(canary.path), read=(str(canary.folder),))
    assert got["shown"] == "refused"
    assert int(got["own"]) > 0
    assert canary.is_as_it_was()


@as_a_user
def test_many_threads_children_and_kills(tier: Tier) -> None:
    """Init serves each, and is there at the end; a thread killed in a call stops nobody."""
    text = f"""
import threading
{CALLS}
bad = []
def work(n):
    name = f"f{{n}}"
    open(name, "w").close()
    for i in range(160):
        mode = 0o600 | i % 8
        os.chmod(name, mode)
        if os.stat(name).st_mode & 0o777 != mode: bad.append(name)
threading.stack_size(256 << 10)
threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
for one in threads: one.start()
for one in threads: one.join()
print("bad", len(bad))
open("victim", "w").close()
for n in range(60):
    child = os.fork()
    if child == 0:
        while True: os.chmod("victim", 0o600)
    if n % 2: os.sched_yield()
    for _ in range(n): os.chmod("victim", 0o640)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
for _ in range(200):
    if os.fork() == 0:
        if os.fork() == 0: os.chmod("victim", 0o600)
        os._exit(0)
    os.wait()
tried("last", lambda: os.chmod("victim", 0o600))
"""
    got = tier.tried(text, processes=200)
    assert got == {"bad": "0", "last": "did None"}


@as_a_user
def test_devices_and_queues_hold_nobody_up(tier: Tier) -> None:
    text = f"""
{CALLS}
os.mkfifo("fifo")
tried("fifo", lambda: os.chmod("fifo", 0o600))
tried("fifo_times", lambda: os.utime("fifo"))
for name in ("null", "tty", "zero"):
    all_of(path_calls("/dev/" + name), name)
tried("device", lambda: os.fchmod(os.open("/dev/null", os.O_RDWR), 0o777))
r, w = os.pipe()
tried("pipe", lambda: os.fchmod(w, 0o777))
tried("memfd", lambda: os.fchmod(os.memfd_create("x"), 0o777))
"""
    got = tier.tried(text)
    assert (got.pop("fifo"), got.pop("fifo_times")) == ("did None", "did None")
    _refused_all(got)


FILTER = """
import struct
def install(action, numbers, flags=0):
    code = [(0x20, 0, 0, 0)]
    for number in numbers: code += [(0x15, 0, 1, number), (6, 0, 0, action)]
    code.append((6, 0, 0, 0x7fff0000))
    raw = b"".join(struct.pack("=HBBI", *one) for one in code)
    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))
    got = libc.syscall(317 if os.uname().machine == "x86_64" else 277, 1, flags,
                       ctypes.byref(Program(len(code), raw)))
    if got < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return got
NUMBERS = (90, 91, 268, 452) if os.uname().machine == "x86_64" else (52, 53, 452)
"""


@as_a_user
def test_a_filter_of_the_programs_own_opens_nothing(tier: Tier, canary: Canary) -> None:
    """Allowing, asking a listener that is not there, or tracing; and there is one listener only."""
    for action in (0x7FFF0000, 0x7FC00000, 0x7FF00000, 0x7FFC0000):
        text = f"""
{CALLS}
{FILTER}
open("own", "w").close()
tried("listener", lambda: install(0x7fc00000, NUMBERS, 8))
tried("filter", lambda: install({action}, NUMBERS))
tried("outside", lambda: os.chmod(sys.argv[1], 0o777))
tried("own", lambda: os.chmod("own", 0o600))
"""
        got = tier.tried(text, str(canary.path))
        assert (got["listener"], got["filter"], got["outside"]) == ("refused", "did 0", "refused")
        assert got["own"] == ("refused" if action == 0x7FC00000 else "did None")
    assert canary.is_as_it_was()


@as_a_user
def test_a_profile_still_refuses_by_name(tier: Tier, canary: Canary) -> None:
    text = CALLS + "open('own', 'w').close()\n"
    text += "tried('own', lambda: os.chmod('own', 0o600))\n"
    text += "tried('times', lambda: os.utime('own'))\n"
    text += "tried('outside', lambda: os.chmod(sys.argv[1], 0o777))\n"
    denied = Syscalls(deny=("chmod", "fchmodat", "seccomp", "sendmsg"))
    got = tier.tried(text, str(canary.path), syscalls=denied)
    assert got == {"own": "refused", "times": "did None", "outside": "refused"}
    allowed = Syscalls(allow=("chmod", "fchmodat", "ptrace", "userfaultfd", "unshare", "mount"))
    got = tier.tried(text, str(canary.path), syscalls=allowed)
    assert got == {"own": "did None", "times": "did None", "outside": "refused"}
    assert canary.is_as_it_was()


@as_a_user
def test_namespaces_that_a_profile_allows_show_nothing_as_an_own_file(
    tier: Tier, canary: Canary
) -> None:
    """A folder outside can't be mounted among its own, and a root of its own is not asked."""
    text = f"""
{CALLS}
open("own", "w").close()
os.mkdir("at")
outside = sys.argv[1]
def mounted():
    called("mount", os.path.dirname(outside).encode(), b"at", None, 4096, None)
tried("namespaces", lambda: called("unshare", 0x30020000))  # user, mount, pid
tried("mount", mounted)
tried("mounted", lambda: os.chmod("at/canary", 0o777))
tried("own", lambda: os.chmod("own", 0o600))
sys.stdout.flush(); child = os.fork()
if child == 0:
    tried("in_pid_namespace", lambda: os.chmod("own", 0o600))
    tried("outside", lambda: os.chmod(outside, 0o777))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
here = os.getcwd()
tried("chroot", lambda: os.chroot(os.path.dirname(outside)))
tried("in_root", lambda: os.chmod("/canary", 0o777))
tried("by_name", lambda: os.chmod(here + "/own", 0o600))
os._exit(sys.stdout.flush() or 0)
"""
    got = tier.tried(
        text.replace("child = os.fork()", "sys.stdout.flush()\nchild = os.fork()"),
        str(canary.path),
        syscalls=Syscalls(allow=("unshare", "mount", "chroot", "setns")),
    )
    expected = dict.fromkeys(("mount", "mounted", "outside", "in_root"), "refused")
    assert {name: got[name] for name in expected} == expected
    assert (got["own"], got["in_pid_namespace"]) == ("did None", "did None")
    assert canary.is_as_it_was()


@as_a_user
def test_who_can_not_be_looked_into_is_refused(tier: Tier) -> None:
    """A program that made itself undumpable has taken back what the call needs."""
    text = f"""
{CALLS}
open("own", "w").close()
libc.prctl(4, 0, 0, 0, 0)
tried("closed", lambda: os.chmod("own", 0o600))
libc.prctl(4, 1, 0, 0, 0)
tried("open", lambda: os.chmod("own", 0o600))
"""
    assert tier.tried(text) == {"closed": "refused", "open": "did None"}


@as_a_user
def test_init_outlives_its_program_by_nothing(tier: Tier) -> None:
    """A call under way when the program ends, or is ended, holds nothing up."""
    text = f"""
{CALLS}
open("own", "w").close()
for _ in range(4):
    if os.fork() == 0:
        while True: os.chmod("own", 0o600)
print("x", 1, flush=True)
os.kill(os.getpid(), signal.SIGKILL) if sys.argv[1] == "kill" else None
while sys.argv[1] == "spin": os.chmod("own", 0o600)
"""
    assert tier.python(TRY + text, "kill").ending.signal == signal.SIGKILL
    tier.python(TRY + text, "exit").exited()
    ran = tier.python(TRY + text, "spin", wall_s=1.0)
    assert ran.ending.termination is Termination.LIMIT


HONEST = """
set -eu
touch new new2
touch -d 2001-02-03 old
mkdir -p src/deep
printf x > src/deep/file
chmod 750 src/deep/file
chmod -R u+w src
cp -p src/deep/file copied
cp -a src copied_tree
test "$(stat -c %a copied)" = 750
install -m 711 src/deep/file installed
test "$(stat -c %a installed)" = 711
tar cf tree.tar src
mkdir out
tar xpf tree.tar -C out
test "$(stat -c %a out/src/deep/file)" = 750
(cd src/deep && touch ../up && chmod 600 ../up)
touch "$PWD/absolute" "$HOME/home" "$TMPDIR/tmp"
chgrp "$(id -g)" new
ln -s new link && touch -h link && touch link
mkdir -m 700 private && test "$(stat -c %a private)" = 700
mv new2 "$TMPDIR/moved" && chmod 600 "$TMPDIR/moved"
git init -q repo && cd repo && git config user.email a@b && git config user.name a
git config core.filemode | grep -q true
echo a > a && git add a && git commit -qm one && git log --oneline | grep -q one
cd .. && git clone -q repo cloned 2>/dev/null && test -f cloned/a
python3 -c '
import os, shutil, tempfile, time
shutil.copy2("old", "old2")
assert os.stat("old").st_mtime == os.stat("old2").st_mtime
shutil.copytree("src", "src2")
os.utime("new", (7, 7)); assert os.stat("new").st_mtime == 7
os.chmod("new", 0o604); assert os.stat("new").st_mode & 0o777 == 0o604
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0)
with tempfile.NamedTemporaryFile() as file:
    os.fchmod(file.fileno(), 0o644)
    os.utime(file.fileno(), (3, 3))
    assert os.fstat(file.fileno()).st_mtime == 3
import zipfile
with zipfile.ZipFile("z.zip", "w") as z: z.write("src/up")
'
echo all
"""


def test_honest_programs_change_modes_and_times(tier: Tier, tmp_path: Path) -> None:
    with tier.folder(a="x") as folder:
        given = Workspace(WorkspaceMode.COPY_ON_WRITE, str(folder), str(folder))
        environment = (("PATH", "/usr/bin:/bin"), ("HOME", "/home/agent"), ("LC_ALL", "C"))
        ran = tier.shell(
            HONEST, workspace=given, cwd=str(folder), environment=environment,
            workspace_bytes=64 << 20,
        )  # fmt: skip
        assert ran.exited().lines == ["all"], ran.stderr
        changed = {change.path: change for change in ran.ending.changes}
    assert changed["installed"].executable
    assert not changed["new"].executable


def test_what_it_shut_is_still_told_and_removed(tier: Tier) -> None:
    """Its own three folders a user can't shut: they are measured by that user."""
    text = """
import os
open("a", "w").close()
os.mkdir("sub"); open("sub/x", "w").close()
os.chmod("sub/x", 0); os.chmod("sub", 0)
for path in (os.environ["HOME"], os.environ["TMPDIR"], "."):
    os.chmod(path, 0o755)
    try: os.chmod(path, 0)
    except PermissionError: print("refused")
"""
    with tier.folder(b="x") as folder:
        given = Workspace(WorkspaceMode.COPY_ON_WRITE, str(folder), str(folder))
        ran = tier.python(text, workspace=given, cwd=str(folder)).exited()
    assert ran.lines == ([] if os.geteuid() == 0 else ["refused"] * 3)
    assert {"a", "sub"} <= {change.path for change in ran.ending.changes}


TAKEN = """
import sys
sys.path.insert(0, sys.argv[1])
from runner.backends.native.launcher import kernel, unotify
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
if sys.argv[4] == "taken":
    kernel.install_seccomp(unotify.filter_for(()), kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER)
from runner import Runner, RunnerError
with Runner(home=sys.argv[2], backend="native") as runner:
    try:
        print(runner.run(["touch", "a"], cwd=sys.argv[3], profile="agent-process").ok)
    except RunnerError as error:
        print(error.code, error.exit_code, error)
"""


@as_a_user
@pytest.mark.parametrize("state", ["taken", "free"])
def test_a_listener_that_is_taken_refuses_the_tier(
    tier: Tier, tmp_path: Path, workspace: Path, state: str
) -> None:
    package = str(Path(sys.modules["runner"].__file__ or "").resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", TAKEN, package, str(tmp_path / "home"), str(workspace), state],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if state == "free":
        assert done.stdout == "True\n", done.stderr
    else:
        assert done.stdout.startswith("protection_missing 125"), done.stderr
        assert "listener" in done.stdout
