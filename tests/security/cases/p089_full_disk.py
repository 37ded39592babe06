"""87, 89, 91: bytes and names without end, wherever something can be written; holes are none."""

import contextlib
import os

from probe import PLACES, TMP, main, write

LIMITS = {"workspace": "8MiB", "inodes": 500}
NOT_ON = {"bind": "nothing bounds what is written there, as its profile must say"}
EXPECTED = {
    "attack": {"termination": "limit", "limit": "workspace"},
    "twin": {"changes": {"sparse": "file"}},
}
GAPS = {
    "process": {
        "a hole": "RLIMIT_FSIZE holds each file, holes included, to the limit",
        "names": "names are counted five times a second",
    },
}


def attack(probe):
    probe.begun()
    part = b"x" * (1 << 20)
    for folder in PLACES:
        fd = os.open(f"{folder}/large", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):  # a hole, where no file is held to a size
            os.truncate(fd, 1 << 40)
        try:
            for _ in range(64):
                os.write(fd, part)
        except OSError:
            continue
        probe.wrong("written", folder)
    for folder in PLACES:
        try:
            for number in range(1000):
                write(f"{folder}/{number}", b"")
        except OSError:
            continue
        probe.wrong("names", folder)
    while True:
        os.sched_yield()


def twin(probe):
    with open("sparse", "wb") as file:
        probe.works("a hole", lambda: file.truncate(1 << 40))
        probe.works("some of it", lambda: file.write(b"x" * (1 << 20)))
    for number in range(100):
        probe.works("a name", lambda n=number: write(f"{TMP}/{n}", b"x"))


main(attack, twin)
