"""25: paths longer than any message. The list is cut and says so; the outcome stays."""

import os

from probe import main, write

EXPECTED = {
    "attack": {"changes_truncated": True},
    "twin": {"changes_truncated": False, "changes": {"d/d/d/leaf": "file"}},
}


def attack(probe):
    for name in ("\x01" * 255, "\U0001f980" * 63, "d"):
        start = os.open(".", os.O_RDONLY)
        for _ in range(300):
            os.mkdir(name)
            os.chdir(name)
        probe.works("a file at the end", lambda: write("leaf", b"x"))
        os.fchdir(start)


def twin(probe):
    probe.works("folders", lambda: os.makedirs("d/d/d"))
    probe.works("a file at the end", lambda: write("d/d/d/leaf", b"x"))


main(attack, twin)
