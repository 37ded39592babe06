"""27, 100: what an earlier run left is not there, in files or in the kernel."""

import contextlib
import ctypes
import os

from probe import LIBC, PLACES, main, read, write

ORDER = ("twin", "attack", "twin")
KEY = 0x52554E
CREATE = 0o1666  # IPC_CREAT and everybody's
GAPS = {
    "process": {
        "shared memory": "what has a name that all programs of the machine share is refused",
        "find it again": "what has a name that all programs of the machine share is refused",
    },
}


def queue(flags):
    result = LIBC.mq_open(b"/left", flags, 0o666, None)
    if result < 0:
        raise OSError(ctypes.get_errno(), "mq_open")
    return result


def shared(size, flags):
    result = LIBC.shmget(KEY, ctypes.c_size_t(size), flags)
    if result < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    return result


def attack(probe):
    for folder in PLACES:
        probe.refused(f"left in {folder}", lambda f=folder: read(f"{f}/left"))
    probe.refused("left in /var/tmp", lambda: read("/var/tmp/left"))
    probe.refused("a message queue", lambda: queue(os.O_RDONLY))
    probe.refused("shared memory", lambda: shared(4096, 0))
    with contextlib.suppress(PermissionError):  # where /proc is closed
        probe.same("semaphores", read("/proc/sysvipc/sem").count(b"\n"), 1)


def twin(probe):
    for folder in PLACES:
        probe.works(
            f"leave in {folder}", lambda f=folder: write(f"{f}/left", b"x", os.O_CREAT | os.O_EXCL)
        )
    with contextlib.suppress(PermissionError):  # where Landlock guards them too
        queue(os.O_RDWR | os.O_CREAT | os.O_EXCL)
    probe.works("shared memory", lambda: shared(4096, CREATE))
    probe.works("find it again", lambda: shared(4096, 0))


main(attack, twin)
