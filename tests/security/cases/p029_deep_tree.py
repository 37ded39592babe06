"""29: folders in folders, deeper than a name can be long, closed and full, left for who cleans."""

import contextlib
import os

from probe import TMP, main, write

EXPECTED = {"twin": {"changes_truncated": False, "changes": {"a/b/c/leaf": "file"}}}
DEPTH = 1100  # of four bytes each: longer than PATH_MAX


def close(path):
    with contextlib.suppress(PermissionError):  # in the lesser tier, as a user
        os.chmod(path, 0)


def attack(probe):
    work = os.open(".", os.O_RDONLY)
    for place in (TMP, work):
        top = place if place == work else os.open(place, os.O_RDONLY)
        os.fchdir(top)
        for _ in range(DEPTH):
            os.mkdir("ddd")
            os.chdir("ddd")
        probe.works("a file at the end", lambda: write("leaf", b"x"))
        close(".")
        probe.refused("its name", os.getcwd)
    os.fchdir(top)
    close("ddd")


def twin(probe):
    probe.works("folders", lambda: os.makedirs("a/b/c"))
    probe.works("a file", lambda: write("a/b/c/leaf", b"x"))


main(attack, twin)
