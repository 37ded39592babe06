"""The stage for `soundness.py`: stub programs, a sandbox that lets its own be traced, batches.

Every name that a text holds exists as a stub, a program of a few instructions that prints a line
and exits with 0 (or, from the other folder, 1). Shells and wrappers are the machine's own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner import Runner
from runner.ports import OutputSink

REAL = (
    "bash", "sh", "dash", "env", "timeout", "xargs", "find", "nice", "nohup", "setsid", "stdbuf",
    "ionice", "chrt", "taskset", "flock", "script", "setpriv", "prlimit", "setarch", "linux32",
    "linux64", "awk", "mawk", "gawk", "sed", "split", "sort", "tar", "git", "perl", "make",
    "start-stop-daemon", "run-parts", "ssh-agent", "choom", "busybox", "zsh", "ksh", "watch",
    "uclampset", "cat", "base64", "tr", "rev", "printf", "echo", "seq", "head", "tail", "tee",
    "env", "chroot", "unshare", "nsenter", "ed", "parallel", "xz", "gzip", "id", "expr",
)  # fmt: skip
"""What is the machine's own where it has it; all else is a stub."""
TRANSPARENT = frozenset(REAL) - {"perl", "make", "zsh", "ksh", "git"}
"""What these execute must have been read; of the others only the language is."""
_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_TOKEN = re.compile(r"[A-Za-z_0-9][A-Za-z0-9_.+-]{0,40}")
_INPUT = "a\nb c\np1\n"
PROFILE = """
name: soundness
extends: agent
description: Shell texts under a tracer of their own
syscalls:
  allow: [ptrace]
read: [{stage}]
limits:
  wall: {wall}s
  cpu_time: {wall}s
  output: 512MiB
  processes: 200
  inodes: 200000
rules:
  default: allow
"""
# x86-64 and AArch64, by machine: exit status and message are put in below.
_CODE = {
    "x86_64": (
        62,
        # lea rsi,[rip+0x1a]; mov edx,2; mov edi,1; mov eax,1; syscall; mov edi,N; mov eax,60;
        # syscall; message
        b"\x48\x8d\x35\x1d\x00\x00\x00\xba\x02\x00\x00\x00\xbf\x01\x00\x00\x00\xb8\x01\x00\x00\x00"
        b"\x0f\x05\xbf%c\x00\x00\x00\xb8\x3c\x00\x00\x00\x0f\x05a\n",
    ),
}


def stub(status: int) -> bytes:
    """An ELF program that prints a line and exits; a script where this machine's code is unknown.

    elf(5): a file header and one segment that maps the whole file.
    """
    found = _CODE.get(platform.machine())
    if found is None:
        return f"#!/bin/sh\necho a\nexit {status}\n".encode()
    machine, code = found
    code %= status
    base, head = 0x400000, 64 + 56
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little")
        + machine.to_bytes(2, "little") + (1).to_bytes(4, "little")
        + (base + head).to_bytes(8, "little") + (64).to_bytes(8, "little") + bytes(8 + 4)
        + (64).to_bytes(2, "little") + (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
        + bytes(6)
    )  # fmt: skip
    size = head + len(code)
    segment = (
        (1).to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes(8)
        + base.to_bytes(8, "little") * 2 + size.to_bytes(8, "little") * 2
        + (0x1000).to_bytes(8, "little")
    )  # fmt: skip
    return header + segment + code


@dataclass(frozen=True)
class Item:
    """A text to run; `fail`: the stubs exit with 1."""

    text: str
    source: str
    fail: bool = False


@dataclass
class Executed:
    """What ran of a text."""

    end: str
    """`exited`, `wall`, `execs` (limits), or `lost`: it ended the tracer."""
    ran: list[dict] = field(default_factory=list)


class _Lines(OutputSink):
    """Lines of the driver's output, as they come."""

    def __init__(self) -> None:
        self.data = bytearray()

    def fileno(self) -> int | None:
        return None

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


class Stage:
    """A folder that sandboxes see read-only, and a runner."""

    def __init__(self, folder: Path, wall_s: float, execs: int = 300) -> None:
        self.folder = folder.resolve()
        self.wall_s, self.execs = wall_s, execs
        self._batch = 0
        (self.folder / "work").mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("soundness_driver.py"), self.folder / "driver.py")
        for name, status in (("pass", 0), ("fail", 1)):
            (self.folder / f"stub-{name}").write_bytes(stub(status))
            (self.folder / f"stub-{name}").chmod(0o755)
        self._runner = Runner(home=self.folder / "state", backend="native")

    def close(self) -> None:
        self._runner.close()

    def run(self, items: Sequence[Item]) -> list[Executed]:
        """Run texts in one sandbox, and in another from where one ended the tracer."""
        done: list[Executed] = []
        while len(done) < len(items):
            rest = [(number, items[number]) for number in range(len(done), len(items))]
            lines, why = self._sandbox(rest)
            before = len(done)
            done += _results(lines)
            started = sum("start" in line for line in lines)
            if before + started > len(done):
                done.append(Executed("lost"))
            elif before == len(done):
                raise RuntimeError(f"the sandbox ran nothing: {why}")
        return done

    def _sandbox(self, items: Sequence[tuple[int, Item]]) -> tuple[list[dict], str]:
        self._batch += 1
        shown = self.folder / f"batch{self._batch}"
        shown.mkdir(mode=0o755)
        try:
            stubs = self._stubs(shown, (item.text for _, item in items))
            (shown / "input").write_text(_INPUT)
            job = {
                "stubs": stubs, "wall_s": self.wall_s, "execs": self.execs,
                "input": str(shown / "input"),
                "items": [{"n": n, "text": i.text, "fail": i.fail} for n, i in items],
            }  # fmt: skip
            (shown / "job.json").write_text(json.dumps(job))
            shutil.copy(self.folder / "driver.py", shown / "driver.py")
            wall = int(60 + len(items) * (self.wall_s + 1))
            profile = self.folder / f"soundness{self._batch}.yaml"
            profile.write_text(PROFILE.format(stage=json.dumps(str(shown)), wall=wall))
            lines = _Lines()
            outcome = self._runner.run(
                [_python(), "-I", "-S", str(shown / "driver.py"), str(shown / "job.json")],
                profile=str(profile), cwd=self.folder / "work", stdout=lines,
            )  # fmt: skip
        finally:
            shutil.rmtree(shown)
        whole = lines.data.decode("ascii", "replace").split("\n")[:-1]
        said = outcome.stderr.data.decode(errors="replace").strip().splitlines()
        why = f"{outcome.termination} {outcome.exit_code} {outcome.decision.reason} {said[-1:]}"
        return [json.loads(line) for line in whole], why

    def _stubs(self, shown: Path, texts: Iterable[str]) -> dict[str, str]:
        names = {f"p{number}" for number in range(16)}
        for text in texts:
            names.update(_TOKEN.findall(text))
        found = {}
        for kind in ("pass", "fail"):
            folder = shown / kind
            folder.mkdir(mode=0o755)
            for name in REAL:
                path = shutil.which(name, path=":".join(_FOLDERS))
                if path and not (folder / name).exists():
                    (folder / name).symlink_to(path)
            program = self.folder / f"stub-{kind}"
            for name in names:
                if not os.path.lexists(folder / name):
                    os.link(program, folder / name)
            found[kind] = str(folder)
        return found


def _results(lines: Sequence[dict]) -> Iterator[Executed]:
    for line in lines:
        if "ran" in line:
            yield Executed(line["end"], line["ran"])


def _python() -> str:
    """An interpreter that the sandbox shows."""
    return str(Path(sys.base_prefix, "bin", "python3").resolve())
