"""20, 67, 77, 78: set-uid bits, file capabilities and programs from memory give no rights."""

import contextlib
import errno
import os
import subprocess
import sys

from probe import PLACES, TMP, main, write

PYTHON = os.path.realpath(sys.executable)

CAPABILITY = bytes.fromhex("0100000200000020000000000000000000000000")
"""Of version 2, cap_sys_admin permitted and effective (linux/capability.h)."""


def copied(path, mode):
    """A Python of the run's own, with set-ID bits where they can be set."""
    with open(PYTHON, "rb") as file:
        write(path, file.read(), os.O_CREAT | os.O_EXCL, 0o755)
    with contextlib.suppress(PermissionError):
        os.chmod(path, mode)


def confined(probe, what, program, **more):
    argv = [program, "-I", "-S", "locks.py"]
    said = subprocess.run(argv, capture_output=True, check=False, text=True, **more)
    probe.same(f"locks of {what}", (said.stdout, said.returncode), ("locked\n", 0))


def attack(probe):
    probe.same("it is root", os.getuid() == 0, False)
    for folder in PLACES:
        path = f"{folder}/python"
        copied(path, 0o6755)
        confined(probe, path, path)
    probe.refused(
        "file capabilities", lambda: os.setxattr("python", "security.capability", CAPABILITY)
    )
    fd = os.memfd_create("python", 0)
    os.sendfile(fd, os.open(PYTHON, os.O_RDONLY), 0, 1 << 26)
    confined(probe, "memory", f"/proc/self/fd/{fd}", pass_fds=(fd,))
    for change in (os.setuid, os.setgid, os.seteuid):
        probe.refused(change.__name__, lambda change=change: change(0), errno.EINVAL, errno.EPERM)
    probe.refused("groups", lambda: os.setgroups([0]), errno.EPERM)
    for path in ("python", f"{TMP}/python"):
        probe.refused("an owner", lambda path=path: os.chown(path, 0, 0))
    higher = max(os.getpriority(os.PRIO_PROCESS, 0) - 1, -20)
    probe.refused("a higher priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, higher))
    probe.refused("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))


def twin(probe):
    copied("mine", 0o755)
    confined(probe, "a program that was just written", "./mine")
    probe.works("its own id", lambda: os.setuid(os.getuid()))
    lower = min(os.getpriority(os.PRIO_PROCESS, 0) + 1, 19)
    probe.works("a lower priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, lower))


main(attack, twin)
