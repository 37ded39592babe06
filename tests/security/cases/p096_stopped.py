"""96: a tree that stopped itself, behind children that ignore every end."""

import os
import signal

from probe import main

LIMITS = {"wall": "12s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "wall"}}


def attack(probe):
    probe.begun()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(4):
        if os.fork() == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)


def twin(probe):
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    probe.works("woken", lambda: os.kill(pid, signal.SIGCONT))
    probe.same("its end", os.waitpid(pid, 0)[1], 0)


main(attack, twin)
