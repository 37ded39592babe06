"""87, 100: memory that is no process's own: memory files, System V segments, mapped nowhere."""

import contextlib
import ctypes
import os
import time

from probe import LIBC, main

LIMITS = {"memory": "96MiB", "wall": "25s", "open_files": 64}
EXPECTED = {"attack": {"termination": "limit", "limit": "memory"}}
WITHOUT = {
    "cgroup": {"attack": {}, "gap": "memory that is mapped nowhere is in no process's count"},
}
PART = 16 << 20
PARTS = 14
CREATE = 0o1600  # IPC_CREAT
GAPS = {
    "process": {
        "a segment": "what has a name that all programs of the machine share is refused",
    },
}


def segment(size):
    """A System V segment that was written and is attached nowhere any more."""
    number = LIBC.shmget(0, ctypes.c_size_t(size), CREATE)
    if number < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    LIBC.shmat.restype = ctypes.c_void_p
    address = LIBC.shmat(number, None, 0)
    ctypes.memset(address, 1, size)
    LIBC.shmdt(ctypes.c_void_p(address))


def attack(probe):
    probe.begun()
    part = os.urandom(1 << 20)
    for _ in range(PARTS):
        fd = os.memfd_create("held")
        for _ in range(PART >> 20):
            os.write(fd, part)
        with contextlib.suppress(PermissionError):  # where they would be everybody's
            segment(PART)
    time.sleep(1)  # to be looked at, where somebody looks


def twin(probe):
    fd = os.memfd_create("held")
    probe.works("a memory file", lambda: os.write(fd, bytes(1 << 20)))
    probe.works("a segment", lambda: segment(1 << 20))


main(attack, twin)
