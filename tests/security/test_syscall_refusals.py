"""Every refused system call, made against the real kernel: refused as stated, and not without.

Inside a sandbox each call of the list fails with the errno stated. Behind the same filter with an
errno that no kernel gives, it fails with that: so it is the filter that answers, and not a missing
capability. Under a profile that allows it, it gets another answer, where that can be told.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runner.backends.bpf import program_for
from runner.backends.native import create
from runner.backends.native.filters import compiled
from runner.model.profile import Syscalls
from runner.ports import Backend
from runner.syscall_names import NAMES, NUMBERS
from runner.syscalls import GROUPS, KNOWN, Masked, Refusal, refusals
from runner.testing.backend_harness import BackendHarness, Given

MARK = 4000
"""An errno that the kernel has no use for; the largest that a filter can give is 4095."""
EVERYTHING = Syscalls(allow=(*GROUPS, "socket", "ioctl", "personality"))
CLONE_THREAD = 0x00010000
"""Refused by the kernel without CLONE_SIGHAND (clone(2)): so no child is made behind the filter."""
NO_FD = 0xFFFFFFFF
TELLING = frozenset({
    "add_key", "adjtimex", "chroot", "clock_adjtime", "clone", "clone3", "fsconfig",
    "io_uring_enter", "ioctl", "kcmp", "keyctl", "modify_ldt", "mount_setattr",
    "name_to_handle_at", "open_tree", "personality", "pidfd_getfd", "process_madvise",
    "process_vm_readv", "process_vm_writev", "ptrace", "request_key", "setns", "unshare",
})  # fmt: skip
"""Calls that ask for no capability before anything else: an ordinary program can tell whether it
was the filter that answered. The others fail with EPERM either way."""

CALLS = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
for number, words in json.load(sys.stdin):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(word) for word in words))
    print(0 if result >= 0 else ctypes.get_errno())
"""
FILTERED = """
import sys
sys.path.insert(0, sys.argv[1])
from runner.backends.native.launcher import kernel
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.install_seccomp(open(sys.argv[2], "rb").read())
"""


def _number(name: str) -> int | None:
    """Of a call on this machine's architecture; None: it has none here."""
    import pyseccomp

    if name in NUMBERS:
        return NUMBERS[name]
    arch = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[platform.machine()]
    number = pyseccomp.resolve_syscall(arch, name)
    return number if number >= 0 else None


def _arguments(refusal: Refusal) -> list[int]:
    """Six words that meet the condition and, where the kernel hears them, do no harm."""
    words = [0] * 6
    if refusal.name == "ioctl":
        words[0] = NO_FD
    if refusal.name == "clone":
        words[0] = CLONE_THREAD
    if refusal.name == "unshare":
        words[0] = 1  # no flag of that name: EINVAL
    if refusal.when is not None:
        when = refusal.when
        words[when.index] = words[when.index] & ~when.mask | when.value
    return words


def _cases() -> list[tuple[Refusal, int, list[int]]]:
    """Each refusal as it is stated, and with bit 32 set where the kernel reads an int."""
    cases = []
    for refusal in refusals():
        number = _number(refusal.name)
        if number is None:
            continue
        words = _arguments(refusal)
        cases.append((refusal, number, words))
        if refusal.when is not None:
            high = list(words)
            high[refusal.when.index] |= 1 << 32
            cases.append((refusal, number, high))
    return cases


class _Native(BackendHarness):
    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def make_backend(self) -> Backend:
        return create(self._cache)

    def answers(self, changes: Syscalls) -> list[int]:
        calls = json.dumps([(number, words) for _, number, words in _cases()]).encode()
        ran = self.python(CALLS, given=Given(stdin=calls), syscalls=changes).exited()
        return [int(line) for line in ran.lines]


@pytest.fixture
def sandboxes(native: None, tmp_path: Path) -> _Native:
    return _Native(tmp_path / "cache")


def _told(answers: list[int]) -> list[tuple[str, list[int], int]]:
    return [(r.name, words, got) for (r, _, words), got in zip(_cases(), answers, strict=True)]


def test_each_call_is_refused_with_its_errno(sandboxes: _Native) -> None:
    expected = [(refusal.name, words, refusal.errno_code) for refusal, _, words in _cases()]
    assert _told(sandboxes.answers(Syscalls())) == expected


def test_each_call_gets_another_answer_where_a_profile_allows_it(sandboxes: _Native) -> None:
    told = _told(sandboxes.answers(EVERYTHING))
    stated = {refusal.name: refusal.errno_code for refusal, _, _ in _cases()}
    same = {name for name, _, got in told if got == stated[name]}
    assert not same & TELLING
    reached = {words[0] & 0xFFFFFFFF for name, words, got in told if name == "socket"}
    assert len(reached) > 50


def _outside(tmp_path: Path, wanted: tuple[Refusal, ...]) -> list[int]:
    """The same calls behind only this filter, by a process of ours without a sandbox."""
    program = tmp_path / "program.bpf"
    program.write_bytes(program_for(wanted))
    package = Path(sys.modules["runner"].__file__ or "").resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", FILTERED + CALLS, str(package), str(program)],
        input=json.dumps([(number, words) for _, number, words in _cases()]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [int(line) for line in done.stdout.split()]


def test_it_is_the_filter_that_refuses_each_call(tmp_path: Path) -> None:
    marked = tuple(replace(refusal, errno_code=MARK) for refusal in refusals())
    assert {got for _, _, got in _told(_outside(tmp_path, marked))} == {MARK}


def test_each_group_can_be_allowed_alone() -> None:
    for group, names in GROUPS.items():
        left = {refusal.name for refusal in refusals(Syscalls(allow=(group,)))}
        assert not left & set(names), group
        alone = {refusal.name for refusal in refusals(Syscalls(allow=names))}
        assert alone == left, group


def test_newer_names_go_by_number(tmp_path: Path) -> None:
    """As refused by a profile that names them: behind the mark, each answers."""
    wanted = tuple(Refusal(name, MARK) for name in NUMBERS)
    program = tmp_path / "program.bpf"
    program.write_bytes(program_for(wanted))
    package = Path(sys.modules["runner"].__file__ or "").resolve().parent.parent
    calls = json.dumps([(number, [0] * 6) for number in NUMBERS.values()])
    for text, expected in ((FILTERED + CALLS, True), (CALLS, False)):
        done = subprocess.run(
            [sys.executable, "-c", text, str(package), str(program)],
            input=calls,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert [int(line) == MARK for line in done.stdout.split()] == [expected] * len(NUMBERS)


FOREIGN = """
import ctypes, mmap, sys
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex(sys.argv[1]))
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print("went on")
"""
FOREIGN_CALLS = {
    "int 0x80": "b814000000cd80c3",  # mov eax, 20 (getpid of i386); int 0x80; ret
    "x32": "b8270000400f05c3",  # mov eax, 0x40000027 (getpid of x32); syscall; ret
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has foreign calls")
@pytest.mark.parametrize("kind", FOREIGN_CALLS)
def test_a_foreign_call_kills(sandboxes: _Native, kind: str) -> None:
    ran = sandboxes.python(FOREIGN, FOREIGN_CALLS[kind])
    assert (ran.ending.signal, ran.stdout) == (31, b"")  # SIGSYS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has foreign calls")
@pytest.mark.parametrize("kind", FOREIGN_CALLS)
def test_a_foreign_call_outside_is_not_killed_for_it(kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", FOREIGN, FOREIGN_CALLS[kind]], check=False)
    assert done.returncode != -31


def test_a_profile_can_not_weaken_what_a_layer_denies() -> None:
    """A layer denies the group, the profile allows a call of it: the conditions stay as well."""
    both = refusals(Syscalls(deny=("namespace",), allow=("unshare",)))
    newuser = 0x10000000
    assert Refusal("clone", errno.EPERM, Masked(0, newuser, newuser)) in both
    assert Refusal("unshare", errno.EPERM) in both
    allowed = refusals(Syscalls(allow=("unshare",)))
    assert not [one for one in allowed if one.name in {"clone", "unshare"}]


def test_a_call_refused_outright_has_no_conditions() -> None:
    assert [r for r in refusals(Syscalls(deny=("socket",))) if r.name == "socket"] == [
        Refusal("socket", errno.EPERM)
    ]


def test_the_names_are_those_of_libseccomp_and_the_kernel() -> None:
    """None is known that libseccomp can't compile, none that it names is unknown."""
    import pyseccomp

    for name in NAMES:
        assert program_for((Refusal(name, errno.EPERM),)), name
    for arch in (pyseccomp.Arch.X86_64, pyseccomp.Arch.AARCH64):
        named = set()
        for number in range(451):
            with contextlib.suppress(ValueError):
                named.add(pyseccomp.resolve_syscall(arch, number).decode())
        assert named <= KNOWN


class TestCache:
    """What is kept of compiled filters can't be made to mean something else."""

    def _kept(self, cache: Path) -> Path:
        (file,) = cache.glob("seccomp-*.bpf")
        return file

    def test_what_is_kept_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = tmp_path / "cache"
        first = compiled(refusals(), cache)
        monkeypatch.setattr(
            "runner.backends.native.filters.program_for", lambda _: pytest.fail("compiled again")
        )
        assert compiled(refusals(), cache) == first

    @pytest.mark.parametrize(
        "harm",
        [
            lambda file: file.write_bytes(file.read_bytes()[:-8]),
            lambda file: file.write_bytes(file.read_bytes()[:-3]),
            lambda file: file.write_bytes(b""),
            lambda file: file.write_bytes(bytes(32) + b"\x06\0\0\0\0\0\xff\x7f"),
            lambda file: file.write_bytes(file.read_bytes() + bytes(8 * 5000)),
            lambda file: file.chmod(0o666),
            lambda file: (file.rename(file.with_suffix(".x")), file.symlink_to(f"{file.stem}.x")),
            lambda file: (file.unlink(), os.mkfifo(file)),
            pytest.param(
                lambda file: os.chown(file, 65534, 65534), marks=pytest.mark.root, id="another's"
            ),
        ],
    )
    def test_what_was_changed_is_compiled_anew(self, tmp_path: Path, harm) -> None:
        cache = tmp_path / "cache"
        first = compiled(refusals(), cache)
        file = self._kept(cache)
        harm(file)
        assert compiled(refusals(), cache) == first
        assert file.is_file()
        assert not file.is_symlink()
        assert file.stat().st_uid == os.geteuid()
        assert file.read_bytes()[32:] == first

    def test_one_lists_filter_is_not_taken_for_anothers(self, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        loose = compiled(refusals(EVERYTHING), cache)
        loose_file = self._kept(cache)
        strict = compiled(refusals(), cache)
        (strict_file,) = set(cache.glob("seccomp-*.bpf")) - {loose_file}
        strict_file.write_bytes(loose_file.read_bytes())
        assert compiled(refusals(), cache) == strict != loose

    def test_nothing_is_taken_from_a_folder_that_others_write(self, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        first = compiled(refusals(), cache)
        file = self._kept(cache)
        file.unlink()
        cache.chmod(0o777)
        assert compiled(refusals(), cache) == first
        assert not list(cache.iterdir())
