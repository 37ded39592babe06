"""94: a chain of orphans, none of which lives long enough to be seen using much."""

import os
import time

from probe import main

LIMITS = {"cpu_time": "1s", "cpus": 1, "wall": "25s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "cpu_time"}}
SHORT_S = 0.03


def attack(probe):
    init = os.getppid()
    probe.begun()
    if os.fork():
        time.sleep(60)
    while True:
        if os.fork():
            while time.process_time() < SHORT_S:
                pass
            os._exit(0)
        while os.getppid() != init:
            time.sleep(0.001)


def twin(probe):
    while time.process_time() < SHORT_S:
        pass
    probe.tried += 1


main(attack, twin)
