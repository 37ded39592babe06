"""66: signals to process 1, to all, and to those outside."""

import contextlib
import os
import signal
import time

from probe import main

NUMBERS = [number for number in range(1, 65) if number not in (32, 33)]


def attack(probe):
    parent = os.getppid()
    for pid in {1, parent}:
        for number in NUMBERS:
            with contextlib.suppress(PermissionError):  # Landlock's scope
                os.kill(pid, number)
    # Below 3 there is only init and this process; outside, all else.
    for pid in (probe.facts["pid"], parent + 1000, 2**22 - 1):
        probe.refused(f"a signal to {pid}", lambda pid=pid: os.kill(pid, signal.SIGTERM))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.kill(-1, number)
    time.sleep(0.2)
    probe.same("its parent is still there", os.getppid(), parent)
    probe.refused("a descriptor of init's", lambda: os.pidfd_open(1) and os.readlink("/proc/1/exe"))


def twin(probe):
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
        probe.works("a signal to its own child", lambda number=number: os.kill(pid, number))
    probe.same("its end", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGKILL)


main(attack, twin)
