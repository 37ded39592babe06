"""3, 4, 19: hard links. One that the workspace had can be read, and not written."""

import os

from probe import link, main, read, write

EXPECTED = {"twin": {"changes": {"hard": "file", "second": "file"}}}


def attack(probe):
    for path in ("/usr/bin/env", "/etc/passwd", "/proc/self/environ", "/dev/null"):
        probe.refused(f"link {path}", lambda path=path: link(path, "mine"))
        probe.refused(f"link {path}", lambda path=path: link(path, "/tmp/mine"))
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    probe.refused("a nameless file put there", lambda: link(f"/proc/self/fd/{fd}", "/usr/bin/x"))
    for folder in ("/usr", "/etc", "/", "/run", "/dev"):
        probe.refused(
            f"nameless in {folder}", lambda f=folder: os.open(f, os.O_TMPFILE | os.O_RDWR)
        )
    write("hard", b"changed inside", os.O_TRUNC)
    os.chmod("hard", 0o600)
    os.utime("hard", (1, 1))


def twin(probe):
    probe.same("read", read("hard"), b"one file of two names")
    probe.works("write", lambda: write("hard", b"x"))
    probe.works("link", lambda: os.link("old", "second"))
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    probe.works("name it", lambda: link(f"/proc/self/fd/{fd}", "/tmp/named"))


main(attack, twin)
