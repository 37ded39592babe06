"""66, 81, 83, 84: limits raised, or init's taken away, address layout and filter loosened."""

import ctypes
import errno
import os
import resource
import struct
import time

from probe import APART, call, main

LOOSE = (0x0040000, 0x0100000, 0x0200000, 0x0400000, 0x0800000, 0x8000000)
"""Flags of personality(2) that take protection away."""
ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
FILTER = 1  # SECCOMP_SET_MODE_FILTER


class Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


GAPS = {
    "process": {
        "its own by its number": "a filter knows constants only: a limit of one's own is set by 0",
    },
    "docker": {
        "CPU has a bound": "processor time is held by the control group alone",
    },
}


def add_filter():
    program = Program(1, ALLOW_ALL)
    return call("seccomp", FILTER, 0, ctypes.byref(program))


def leave_orphan():
    """Work for init; comes back when the orphan has ended, too, and closed what it had."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.fork()
        os._exit(0)
    os.close(writing)
    os.wait()
    os.read(reading, 1)
    os.close(reading)


def attack(probe):
    for name in ("NPROC", "NOFILE", "CORE", "CPU", "RTPRIO", "NICE", "MEMLOCK", "MSGQUEUE"):
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is None:
            continue
        _, hard = resource.getrlimit(number)
        probe.same(f"{name} has a bound", hard == resource.RLIM_INFINITY, False)
        if hard == resource.RLIM_INFINITY:
            continue
        probe.refused(name, lambda n=number, h=hard: resource.setrlimit(n, (h + 1, h + 1)))
        free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        probe.refused(name, lambda n=number, f=free: resource.setrlimit(n, f))
    # Init has the same user: without processor time it would be killed, and the run with it.
    init = os.getppid()
    for name in ("CPU", "DATA", "AS", "NOFILE", "NPROC", "FSIZE"):
        number = getattr(resource, f"RLIMIT_{name}")
        probe.refused(
            f"{name} of init", lambda n=number: resource.prlimit(init, n, (0, 0)), errno.EPERM
        )
        high = struct.pack("=QQ", 0, 0)
        probe.refused(
            f"{name} of init, by a number with a bit more",
            lambda n=number, h=high: call("prlimit64", init | 1 << 32, n, h, 0),
            errno.EPERM,
        )
    caller = probe.facts["pid"]
    full = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for what, action in (
        ("limit", lambda: resource.prlimit(caller, resource.RLIMIT_NOFILE, full)),
        ("limits read", lambda: resource.prlimit(caller, resource.RLIMIT_NOFILE)),
        ("priority", lambda: os.setpriority(os.PRIO_PROCESS, caller, 19)),
        ("processors", lambda: os.sched_setaffinity(caller, {0})),
        ("scheduler", lambda: os.sched_setscheduler(caller, os.SCHED_IDLE, os.sched_param(0))),
    ):
        probe.refused(f"the caller's {what}", action)
    if not APART:  # else they are the priorities of the run alone
        probe.refused("the user's priorities", lambda: os.setpriority(os.PRIO_USER, 0, 19))
    for count in range(400):
        leave_orphan()
        if count % 20 == 0:
            time.sleep(0.01)  # on a busy machine init is late, and what it didn't reap counts
    for flag in (*LOOSE, 0x80000000, 0x80040000):
        for high in (0, 1 << 32):
            probe.refused("personality", lambda f=flag | high: call("personality", f), errno.EPERM)
    add_filter()
    probe.refused("mount behind a second filter", lambda: call("mount", 0, 0, 0, 0, 0), errno.EPERM)
    probe.refused("a lower score", lambda: os.nice(-1))


def twin(probe):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = resource.RLIMIT_NOFILE, (min(64, hard), hard)
    probe.works("its own by its number", lambda: resource.prlimit(os.getpid(), *own))
    probe.works("lowered", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)))
    probe.works("asked", lambda: call("personality", 0xFFFFFFFF))
    probe.works("a filter of its own", add_filter)


main(attack, twin)
