"""81, 83, 84: limits raised, address randomisation switched off, the filter loosened."""

import ctypes
import errno
import os
import resource
import struct

from probe import call, main

LOOSE = (0x0040000, 0x0100000, 0x0200000, 0x0400000, 0x0800000, 0x8000000)
"""Flags of personality(2) that take protection away."""
ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
FILTER = 1  # SECCOMP_SET_MODE_FILTER


class Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def add_filter():
    program = Program(1, ALLOW_ALL)
    return call("seccomp", FILTER, 0, ctypes.byref(program))


def attack(probe):
    for name in ("NPROC", "NOFILE", "CORE", "CPU", "RTPRIO", "NICE", "MEMLOCK", "MSGQUEUE"):
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is None:
            continue
        _, hard = resource.getrlimit(number)
        probe.same(f"{name} has a bound", hard == resource.RLIM_INFINITY, False)
        probe.refused(name, lambda n=number, h=hard: resource.setrlimit(n, (h + 1, h + 1)))
        free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        probe.refused(name, lambda n=number, f=free: resource.setrlimit(n, f))
    for flag in (*LOOSE, 0x80000000, 0x80040000):
        for high in (0, 1 << 32):
            probe.refused("personality", lambda f=flag | high: call("personality", f), errno.EPERM)
    add_filter()
    probe.refused("mount behind a second filter", lambda: call("mount", 0, 0, 0, 0, 0), errno.EPERM)
    probe.refused("a lower score", lambda: os.nice(-1))


def twin(probe):
    probe.works("lowered", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)))
    probe.works("asked", lambda: call("personality", 0xFFFFFFFF))
    probe.works("a filter of its own", add_filter)


main(attack, twin)
