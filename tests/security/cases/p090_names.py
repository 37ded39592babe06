"""90: names without end, of nothing that takes a byte."""

import os

from probe import PLACES, main, write

LIMITS = {"workspace": "16MiB", "inodes": 500, "wall": "25s"}
NOT_ON = {"bind": "nothing bounds what is written there, as its profile must say"}
EXPECTED = {"attack": {"termination": "limit", "limit": "workspace"}}


def attack(probe):
    makers = (
        lambda path: write(path, b""),
        os.mkdir,
        lambda path: os.symlink("x", path),
        os.mkfifo,
    )
    probe.begun()
    while True:
        for number in range(4000):
            for place in PLACES:
                try:
                    makers[number % len(makers)](f"{place}/{number}")
                except OSError:
                    continue


def twin(probe):
    for number in range(60):
        for place in PLACES:
            probe.works("a name", lambda p=f"{place}/{number}": write(p, b""))
            probe.works("its end", lambda p=f"{place}/{number}": os.unlink(p))


main(attack, twin)
