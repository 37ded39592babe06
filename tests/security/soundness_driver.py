"""Runs shell texts under ptrace, inside a sandbox, and tells of every program that was executed.

Standard library only: `soundness.py` starts it in a sandbox with a job file as its one argument.
For each text it prints a line `{"start": N}`, and when all of its processes are dead
`{"n": N, "end": "exited" | "wall" | "execs", "ran": [{"file", "words", "by"}, …]}`: the path that
execve(2) was given, the words, and the program that did it.

A tracee stops at PTRACE_EVENT_EXEC in its new image before its first instruction (ptrace(2)); its
words are read then, from memory that nobody else has.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import struct
import sys
import time

PTRACE_CONT, PTRACE_SEIZE, PTRACE_LISTEN = 7, 0x4206, 0x4208
PTRACE_GETEVENTMSG = 0x4201
OPTIONS = 0x2 | 0x4 | 0x8 | 0x10 | 0x100000  # fork, vfork, clone, exec; kill all when we die
FORKS, EXEC, STOP = (1, 2, 3), 4, 128
WALL = 0x40000000  # __WALL: children of any kind
AT_EXECFN = 31
JOB_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
FILES = ("a", "b c", "d.txt", "sub/e", "sub/f.py", "x")

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, data: int = 0) -> bool:
    """Whether it worked; a tracee may have been killed meanwhile."""
    return libc.ptrace(request, pid, None, data) == 0


def executed(pid: int) -> tuple[str, list[str]]:
    """The path and the words that a process was executed with."""
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        words = stream.read().split(b"\0")[:-1]
    with open(f"/proc/{pid}/auxv", "rb") as stream:
        pairs = dict(struct.iter_unpack("LL", stream.read()))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as stream:
        stream.seek(pairs[AT_EXECFN])
        path = stream.read(4096).partition(b"\0")[0]
    return os.fsdecode(path), [os.fsdecode(word) for word in words]


def parent(pid: int) -> int:
    """The process that a process was forked by."""
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return int(stream.read().rpartition(b")")[2].split()[1])


class Run:
    """One text and all processes that come of it."""

    def __init__(self, item: dict, job: dict) -> None:
        self.item, self.job = item, job
        self.alive: set[int] = set()
        self.programs: dict[int, str] = {}
        self.ran: list[dict] = []
        self.count = 0
        self.end = "exited"

    def go(self) -> None:
        """Run it to its end."""
        signal.signal(signal.SIGALRM, lambda *_: self.stop("wall"))
        self.start()
        signal.setitimer(signal.ITIMER_REAL, self.job["wall_s"], 0.05)
        while True:
            try:
                pid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                break
            self.event(pid, status)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def start(self) -> None:
        ready, go = os.pipe()
        while True:
            try:
                pid = os.fork()
                break
            except BlockingIOError:
                time.sleep(0.01)
        if pid == 0:
            try:
                self.become(ready)
            finally:
                os._exit(127)
        os.close(ready)
        ptrace(PTRACE_SEIZE, pid, OPTIONS)
        self.alive.add(pid)
        self.programs[pid] = ""
        os.write(go, b".")
        os.close(go)

    def become(self, ready: int) -> None:
        os.read(ready, 1)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.setsid()
        stdin = os.open(self.job["input"], os.O_RDONLY)
        null = os.open("/dev/null", os.O_RDWR)
        for target, source in ((0, stdin), (1, null), (2, null)):
            os.dup2(source, target)
        stubs = self.job["stubs"]
        path = stubs["fail" if self.item["fail"] else "pass"]
        environment = {
            "PATH": path, "HOME": "/home/agent", "LANG": "C.UTF-8", "TERM": "dumb", "e": "p9",
        }  # fmt: skip
        os.execve(path + "/bash", ["bash", "-c", self.item["text"]], environment)

    def event(self, pid: int, status: int) -> None:
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self.alive.discard(pid)
            return
        self.alive.add(pid)
        number, event = os.WSTOPSIG(status), status >> 16
        if event == EXEC:
            self.execute(pid)
        elif event in FORKS:
            child = ctypes.c_ulong()
            libc.ptrace(PTRACE_GETEVENTMSG, pid, None, ctypes.byref(child))
            self.programs.setdefault(child.value, self.programs.get(pid, "?"))
        if self.end != "exited":
            self.kill(pid)
        elif event == STOP and number in JOB_STOPS:
            ptrace(PTRACE_LISTEN, pid)
        else:
            ptrace(PTRACE_CONT, pid, 0 if event else number)

    def execute(self, pid: int) -> None:
        try:
            file, words = executed(pid)
        except (OSError, KeyError):
            return  # killed meanwhile
        by = self.programs.get(pid)
        if by is None:  # the child was faster than the news of its birth
            by = self.programs.get(parent(pid), "?")
        self.programs[pid] = os.path.basename(file)
        found = {"file": file, "words": words, "by": by}
        if found not in self.ran:
            self.ran.append(found)
        self.count += 1
        if self.count >= self.job["execs"]:
            self.stop("execs")

    def stop(self, why: str) -> None:
        if self.end == "exited":
            self.end = why
        for pid in tuple(self.alive):
            self.kill(pid)

    def kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            self.alive.discard(pid)


def in_folder(path: str) -> None:
    """A folder of the text's own, with some files for it to find."""
    os.makedirs(path + "/sub")
    os.chdir(path)
    for name in FILES:
        with open(name, "w") as stream:
            stream.write("a\nb c\n")


def main() -> None:
    with open(sys.argv[1]) as stream:
        job = json.load(stream)
    top = os.getcwd()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # a text may signal all it can
    for item in job["items"]:
        print(json.dumps({"start": item["n"]}), flush=True)
        folder = f"{top}/t{item['n']}"
        in_folder(folder)
        run = Run(item, job)
        run.go()
        print(json.dumps({"n": item["n"], "end": run.end, "ran": run.ran}), flush=True)
        os.chdir(top)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
