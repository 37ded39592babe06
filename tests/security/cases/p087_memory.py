"""87: anonymous memory over the limit, in one process and over several."""

import os
import time

from probe import main

LIMITS = {"memory": "128MiB", "wall": "20s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "memory"}}
PART = 48 << 20


def attack(probe):
    probe.begun()
    for _ in range(8):
        if os.fork() == 0:
            held = bytearray(os.urandom(1 << 20) * (PART >> 20))
            time.sleep(60)
            del held
    time.sleep(60)


def twin(probe):
    probe.works("within it", lambda: len(bytearray(os.urandom(1 << 20) * 32)))


main(attack, twin)
