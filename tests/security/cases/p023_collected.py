"""22, 23, 25: links, FIFOs, sockets and odd names where the changes are read."""

import os
import stat

from probe import main, write

EXPECTED = {
    "attack": {
        "changes_truncated": False,
        "changes": {
            "old": "symlink",
            "fifo": "fifo",
            "listening": "socket",
            "closed": "directory",
            "closed/inner": "file",
            "unreadable": "file",
            "a\nb": "file",
            "\udcff\udcfe": "file",
            "\x1b[2J": "file",
            "loop": "symlink",
        },
    },
    "twin": {"changes_truncated": False, "changes": {"old": "file", "folder/new": "file"}},
}


def attack(probe):
    os.unlink("old")
    probe.works("a link out", lambda: os.symlink(probe.facts["secret"], "old"))
    probe.works("a link in a circle", lambda: os.symlink("loop", "loop"))
    probe.works("a FIFO", lambda: os.mkfifo("fifo"))
    probe.works("a socket", lambda: os.mknod("listening", stat.S_IFSOCK | 0o600))
    os.mkdir("closed")
    write("closed/inner", b"x")
    write("unreadable", b"x", mode=0)
    probe.works("a closed one", lambda: os.chmod("closed", 0))
    for name in (b"a\nb", b"\xff\xfe", b"\x1b[2J", b"n" * 255):
        probe.works("a name", lambda name=name: write(name, b"x"))


def twin(probe):
    probe.works("a change", lambda: write("old", b"new"))
    os.mkdir("folder")
    probe.works("a new file", lambda: write("folder/new", b"x"))


main(attack, twin)
