"""Who is under seccomp filters is told from who is not, also by a server that is under some."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, os, signal, struct, sys
from runner.surfaces.http.peers import _is_confined

libc = ctypes.CDLL(None, use_errno=True)

def filtered(count):
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))  # allow all
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(code))
    for _ in range(count):
        if libc.prctl(22, 2, program, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")

def client(count):
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        filtered(count)
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    return pid

clients = [client(count) for count in range(4)]
filtered(int(sys.argv[1]))
print(*(int(_is_confined(pid)) for pid in clients))
for pid in clients:
    os.kill(pid, 9)
"""


def confined(servers_filters: int) -> list[bool]:
    """Of clients under 0, 1, 2 and 3 filters."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(servers_filters)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [bool(int(each)) for each in done.stdout.split()]


def filters_here() -> int:
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Seccomp_filters"))


def test_filters_that_are_not_the_servers_confine():
    here = filters_here()  # of this machine's own: a container has one
    assert confined(0) == [False, True, True, True]
    # Two of a service manager: a program with one is still somebody's sandboxed one.
    assert confined(2) == [here > 0, True, False, True]
