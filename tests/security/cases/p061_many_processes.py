"""61: a fork bomb whose processes leave their parents."""

import os
import signal

from probe import in_child, main

LIMITS = {"processes": 20, "wall": "20s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "processes"}}


def attack(probe):
    probe.begun()
    for number in range(1, 65):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33):
            signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            continue


def twin(probe):
    for _ in range(40):
        probe.same("one by one", in_child(lambda: None), 0)


main(attack, twin)
