"""22: folders and files that turn into links, over and over, while the changes are collected."""

import os

from probe import main, write

EXPECTED = {
    "attack": {"changes_truncated": False},
    "twin": {"changes_truncated": False, "changes": {"out/secret": "file"}},
}


def swap(probe):
    """Between a folder that holds a file by the secret's name, and a link to the secret's own."""
    outside, secret = probe.facts["outside"], probe.facts["secret"]
    while True:
        for name, target in (("out", outside), ("file", secret)):
            os.symlink(target, "new")
            os.rename(name, "aside")
            os.rename("new", name)
            os.unlink(name)
            os.rename("aside", name)


def attack(probe):
    os.mkdir("out")
    write("out/secret", b"mine")
    write("file", b"mine")
    for number in range(2):
        if os.fork() == 0:
            os.setsid()
            if number:
                os.mkdir("own")
                os.chdir("own")
                os.mkdir("out")
                write("out/secret", b"mine")
                write("file", b"mine")
            swap(probe)
    for _ in range(2000):
        probe.tried += 1
        try:
            with open("out/secret", "rb") as file:
                content = file.read()
        except OSError:
            continue
        if content not in (b"mine", b""):
            probe.wrong("read by the link", content)


def twin(probe):
    os.mkdir("out")
    probe.works("a file", lambda: write("out/secret", b"mine"))


main(attack, twin)
