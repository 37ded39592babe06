"""49, 93, 101, 102: descriptors and variables that were inherited; more than the limit of them."""

import contextlib
import errno
import os
import stat

from probe import in_child, main

LIMITS = {"open_files": 64}
GIVEN = {
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "PYTHONDONTWRITEBYTECODE",
    "LC_CTYPE", "PYTHONPATH", "GIT_CONFIG_NOSYSTEM",
}  # fmt: skip
GAPS = {
    "docker": {
        "again by name": "the pipes are another user's: they can't be opened by name",
    },
}


def attack(probe):
    with contextlib.suppress(PermissionError):  # where /proc is closed
        names = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        probe.same("descriptors", names, [0, 1, 2, 3])  # the last is the listing's own
    for fd in (0, 1, 2):
        probe.same(f"kind of {fd}", stat.S_ISFIFO(os.fstat(fd).st_mode), True)
        probe.refused(f"seek {fd}", lambda fd=fd: os.lseek(fd, 0, 0))
    for fd in range(3, 300):
        probe.refused(f"use {fd}", lambda fd=fd: os.fstat(fd), errno.EBADF)
    probe.same("variables", set(os.environ) - GIVEN, set())
    probe.refused("more", lambda: [os.pipe() for _ in range(64)], errno.EMFILE)


def twin(probe):
    probe.works("many", lambda: [os.pipe() for _ in range(20)])
    probe.works("again by name", lambda: os.open("/dev/stdout", os.O_WRONLY))
    probe.same("a child's", in_child(lambda: os.write(1, b"")), 0)


main(attack, twin)
