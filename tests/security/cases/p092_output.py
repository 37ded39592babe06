"""92: both streams flooded with one endless line."""

import os

from probe import main

LIMITS = {"output": "1MiB"}
EXPECTED = {"attack": {"termination": "limit", "limit": "output"}}


def attack(probe):
    probe.begun()
    if os.fork() == 0:
        while True:
            os.write(2, b"y" * 65536)
    while True:
        os.write(1, b"x" * 65536)


def twin(probe):
    for fd in (1, 2):
        probe.works("a line", lambda fd=fd: os.write(fd, b"x" * 60_000 + b"\n"))


main(attack, twin)
