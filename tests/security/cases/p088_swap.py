"""88: memory sent to where it does not count: paged out, locked, given back lazily, swap taken."""

import ctypes
import errno
import mmap
import os
import time

from probe import LIBC, call, main

LIMITS = {"memory": "96MiB", "wall": "25s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "memory"}}
MADV_PAGEOUT, MADV_COLD = 21, 20
PART = 24 << 20


def attack(probe):
    for name in ("swapon", "swapoff"):
        probe.refused(name, lambda name=name: call(name, b"old\0", 0), errno.EPERM)
    for path in ("/proc/sys/vm/swappiness", "/proc/sys/vm/overcommit_memory"):
        probe.refused(path, lambda path=path: os.open(path, os.O_WRONLY))
    probe.refused("all memory locked", lock_all, errno.ENOMEM, errno.EPERM)
    probe.begun()
    for _ in range(8):
        if os.fork() == 0:
            held = mmap.mmap(-1, PART, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            held.write(os.urandom(1 << 20) * (PART >> 20))
            for advice in (MADV_COLD, MADV_PAGEOUT):
                address = ctypes.addressof(ctypes.c_char.from_buffer(held))
                LIBC.madvise(ctypes.c_void_p(address), ctypes.c_size_t(PART), advice)
            time.sleep(60)
    time.sleep(60)


def lock_all():
    """mlockall(2), now and for what comes; ENOMEM once RLIMIT_MEMLOCK is over."""
    if LIBC.mlockall(3) < 0:
        raise OSError(ctypes.get_errno(), "mlockall")
    held = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.write(b"x")


def twin(probe):
    held = mmap.mmap(-1, PART, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    probe.works("some memory", lambda: held.write(b"x" * PART))
    address = ctypes.addressof(ctypes.c_char.from_buffer(held))
    probe.same(
        "advice", LIBC.madvise(ctypes.c_void_p(address), ctypes.c_size_t(PART), MADV_COLD), 0
    )
    probe.same("as written", held[PART - 1], ord("x"))


main(attack, twin)
