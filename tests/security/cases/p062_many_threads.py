"""62: a bomb of threads, in several processes."""

import os
import threading
import time

from probe import main

LIMITS = {"processes": 20, "wall": "20s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "processes"}}


def attack(probe):
    probe.begun()
    for _ in range(3):
        os.fork()
    while True:
        try:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            time.sleep(0.01)


def twin(probe):
    threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(10)]
    probe.works("some", lambda: [thread.start() for thread in threads])
    for thread in threads:
        thread.join()


main(attack, twin)
