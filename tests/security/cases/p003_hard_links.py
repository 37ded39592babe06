"""3, 4, 19: hard links. One that the workspace had can be read, and not written."""

import contextlib
import os

from probe import TMP, link, main, read, write

EXPECTED = {"twin": {"changes": {"hard": "file", "second": "file"}}}
GAPS = {
    "bind": {
        "changed on the host: outside/linked": "what is linked there is the owner's to write",
    },
}


def attack(probe):
    for path in ("/usr/bin/env", "/etc/passwd", "/proc/self/environ", "/dev/null"):
        probe.refused(f"link {path}", lambda path=path: link(path, "mine"))
        probe.refused(f"link {path}", lambda path=path: link(path, f"{TMP}/mine"))
    fd = os.open(TMP, os.O_TMPFILE | os.O_RDWR, 0o600)
    probe.refused("a nameless file put there", lambda: link(f"/proc/self/fd/{fd}", "/usr/bin/x"))
    for folder in ("/usr", "/etc", "/", "/run", "/dev"):
        probe.refused(
            f"nameless in {folder}", lambda f=folder: os.open(f, os.O_TMPFILE | os.O_RDWR)
        )
    write("hard", b"changed inside", os.O_TRUNC)
    with contextlib.suppress(PermissionError):  # in the lesser tier, as a user
        os.chmod("hard", 0o600)
        os.utime("hard", (1, 1))


def twin(probe):
    probe.same("read", read("hard"), b"one file of two names")
    probe.works("write", lambda: write("hard", b"x"))
    probe.works("link", lambda: os.link("old", "second"))
    fd = os.open(TMP, os.O_TMPFILE | os.O_RDWR, 0o600)
    probe.works("name it", lambda: link(f"/proc/self/fd/{fd}", f"{TMP}/named"))


main(attack, twin)
