"""63, 64: what has left its parent and ignores every signal ends with the run."""

import os
import signal
import time

from probe import main

ENDLESS_S = 3600


def daemon(keep_output):
    """Two forks and a session of its own; the word that it is there comes by a pipe."""
    said, say = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        for number in range(1, 65):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_IGN)
        if not keep_output:
            for fd in (0, 1, 2):
                os.close(fd)
        os.write(say, b"x")
        time.sleep(ENDLESS_S)
    return os.read(said, 1)


def attack(probe):
    for keep_output in (True, False):
        probe.same("a daemon began", daemon(keep_output), b"x")


def twin(probe):
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    probe.same("a child waited for", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 3)


main(attack, twin)
