"""20, 67, 77, 78: set-uid bits, file capabilities and programs from memory give no rights."""

import errno
import os
import shutil
import subprocess

from probe import main

CAPABILITY = bytes.fromhex("0100000200000020000000000000000000000000")
"""Of version 2, cap_sys_admin permitted and effective (linux/capability.h)."""


def status(*argv, **more):
    lines = subprocess.run(argv, capture_output=True, check=True, text=True, **more).stdout
    return dict(line.split(":\t", 1) for line in lines.splitlines() if ":\t" in line)


def confined(probe, what, found):
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        probe.same(f"{name} of {what}", int(found[name], 16), 0)
    probe.same(f"uid of {what}", found["Uid"].split(), [str(os.getuid())] * 4)
    probe.same(f"locks of {what}", (found["NoNewPrivs"], found["Seccomp"]), ("1", "2"))


def attack(probe):
    probe.same("it is root", os.getuid() == 0, False)
    for folder in (".", "/tmp", "/dev/shm"):
        path = f"{folder}/cat"
        shutil.copy("/bin/cat", path)
        os.chmod(path, 0o6755)
        confined(probe, path, status(path, "/proc/self/status"))
    probe.refused(
        "file capabilities", lambda: os.setxattr("cat", "security.capability", CAPABILITY)
    )
    fd = os.memfd_create("cat", 0)
    os.sendfile(fd, os.open("/bin/cat", os.O_RDONLY), 0, 1 << 26)
    confined(probe, "memory", status(f"/proc/self/fd/{fd}", "/proc/self/status", pass_fds=(fd,)))
    for change in (os.setuid, os.setgid, os.seteuid):
        probe.refused(change.__name__, lambda change=change: change(0), errno.EINVAL, errno.EPERM)
    probe.refused("groups", lambda: os.setgroups([0]), errno.EPERM)
    for path in ("cat", "/tmp/cat"):
        probe.refused("an owner", lambda path=path: os.chown(path, 0, 0))
    higher = max(os.getpriority(os.PRIO_PROCESS, 0) - 1, -20)
    probe.refused("a higher priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, higher))
    probe.refused("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))


def twin(probe):
    shutil.copy("/bin/cat", "mine")
    os.chmod("mine", 0o755)
    confined(probe, "a program that was just written", status("./mine", "/proc/self/status"))
    probe.works("its own id", lambda: os.setuid(os.getuid()))
    lower = min(os.getpriority(os.PRIO_PROCESS, 0) + 1, 19)
    probe.works("a lower priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, lower))


main(attack, twin)
